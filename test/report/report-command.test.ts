import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import type { ComparisonJson } from "@vmpl-lab/lab"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"
import { comparison, everyKind, scratch } from "./results.ts"

const { path, remove } = scratch()
let json: ComparisonJson
let files: ReadonlyArray<string>

beforeAll(async () => {
  json = await comparison()
  files = everyKind(path, json)
}, 120_000)
afterAll(remove)

/** A CSV file without quoted cells. */
const lines = (file: string): ReadonlyArray<ReadonlyArray<string>> =>
  readFileSync(file, "utf8")
    .trimEnd()
    .split("\r\n")
    .map((line) => line.split(","))

describe("report", () => {
  it("is equal for equal results, says what it rests on, and refers to nothing outside itself", async () => {
    for (const name of ["a.html", "b.html"]) {
      expect(await vmplLab(["report", ...files, "-o", path(name)])).toEqual({ code: 0, out: "", err: "" })
    }
    const page = readFileSync(path("a.html"), "utf8")
    expect(readFileSync(path("b.html"), "utf8")).toBe(page)
    expect(page).toContain("Simulated, never measured.")
    for (const text of [json.commit, json.profile, json.launchDigest, json.stateDigest]) expect(page).toContain(text)
    const targets = [...page.matchAll(/\b(?:src|href|xlink:href)="([^"]*)"/g)].map(([, target]) => target!)
    expect(targets.length).toBeGreaterThan(10)
    expect(targets.filter((target) => !/^(?:#|data:)/.test(target))).toEqual([])
    expect(page).not.toMatch(/<script|@import|url\((?!#)/)
  })

  it("has no two elements of one id", () => {
    const ids = [...readFileSync(path("a.html"), "utf8").matchAll(/ id="([^"]*)"/g)].map(([, id]) => id!)
    expect(new Set(ids).size).toBe(ids.length)
  })

  it("writes every table of the page as CSV, all of them different", async () => {
    expect((await vmplLab(["report", ...files, "-o", path("c.html"), "--csv", path("tables")])).code).toBe(0)
    const page = readFileSync(path("c.html"), "utf8")
    const links = [...page.matchAll(/download="([^"]*)"/g)].map(([, name]) => name!)
    expect(links.toSorted()).toEqual(readdirSync(path("tables")).toSorted())
    const steps = lines(path("tables/r1-sequence-1.csv"))
    expect(steps[0]).toEqual(["atNs", "ns", "lane", "thread", "core", "vmpl", "label", "onPath"])
    expect(steps.length - 1).toBe(json.timeline![0]!.steps.length)
  })

  it.each([
    ["text.json", "no JSON", /text\.json: not valid JSON/],
    ["empty.json", "  \n", /empty\.json: empty, expected/],
    ["list.json", "[1]", /list\.json: expected a result of compare --json, got \[1\]/],
    ["none.json", "{}", /none\.json: seed: missing/],
    ["odd.json", '{"knobs": 3}', /odd\.json: (?:baseline: missing|knobs: expected an array)/],
    ["sweep2.jsonl", '{"a":1}\nx\n{"a":2}\n', /sweep2\.jsonl: line 2: not valid JSON/],
    ["sweep3.jsonl", "3\n", /sweep3\.jsonl: line 1: expected one JSON object/],
    ["sweep4.jsonl", "\n\n", /sweep4\.jsonl: empty/]
  ])("refuses %s in one line and leaves no file", async (name, text, line) => {
    writeFileSync(path(name), text)
    const output = path(`${name}.html`)
    const { code, out, err } = await vmplLab(["report", files[0]!, path(name), "-o", output])
    expect([code, out]).toEqual([2, ""])
    expect(err).toMatch(line)
    expect(err.trimEnd().split("\n")).toHaveLength(1)
    expect(readdirSync(dirname(output)).filter((file) => file.includes(`${name}.`))).toEqual([])
  })

  it("refuses a result whose figures are of the wrong kind, naming the place", async () => {
    const wrong = structuredClone(json) as unknown as { results: Array<{ ns: { p50: unknown } }> }
    wrong.results[2]!.ns.p50 = "fast"
    writeFileSync(path("wrong.json"), JSON.stringify(wrong))
    const { code, err } = await vmplLab(["report", path("wrong.json"), "-o", path("wrong.html")])
    expect(code).toBe(2)
    expect(err).toMatch(/wrong\.json: results\[2\]\.ns\.p50: expected a number.*got "fast"/)
    expect(existsSync(path("wrong.html"))).toBe(false)
  })

  it("refuses a place where it cannot write", async () => {
    const { code, out, err } = await vmplLab(["report", files[0]!, "-o", path("no-such-folder/r.html")])
    expect([code, out]).toEqual([2, ""])
    expect(err).toMatch(/r\.html: cannot be written: no such file/)
  })
})

describe("an output file that cannot take its place", () => {
  it("leaves nothing beside it: the unfinished one is removed", async () => {
    mkdirSync(path("taken/inner"), { recursive: true })
    for (const args of [
      ["report", files[0]!, "-o"],
      ["compare", "--calls", "2", "--boots", "1", "--trace-out"]
    ]) {
      const { code, err } = await vmplLab([...args, path("taken/inner")])
      expect(code).toBe(2)
      expect(err).toMatch(/inner: cannot be written: /)
      expect(readdirSync(path("taken"))).toEqual(["inner"])
    }
  })
})

describe("compare", () => {
  it("tells one median call of each strategy step by step in its JSON", () => {
    expect(json.timeline!.map(({ strategy, variant }) => [strategy, variant])).toEqual(
      json.strategies.map(({ strategy, variant }) => [strategy, variant])
    )
    for (const { strategy, variant, ns } of json.timeline!) {
      const result = json.results.find(
        (one) => one.strategy === strategy && one.variant === variant && one.operation === "run-vmpl-round-trip"
      )!
      expect(ns).toBe(result.ns.p50)
    }
  })

  it("writes the results as CSV, and a trace that says of what it is and that it was cut", async () => {
    const args = ["compare", "--calls", "20", "--boots", "1", "--csv", path("out.csv")]
    const { code, err } = await vmplLab([...args, "--trace-out", path("t.json"), "--trace-calls", "7"])
    expect(code).toBe(0)
    expect(err).toContain("the first 7 of 80 calls of each strategy; --trace-calls N takes more")
    const rows = lines(path("out.csv"))
    expect(rows[0]!.slice(0, 5)).toEqual(["strategy", "variant", "operation", "samples", "ns.p50"])
    expect(rows.length - 1).toBe(json.results.length)
    const trace = JSON.parse(readFileSync(path("t.json"), "utf8"))
    expect(trace).toMatchObject({ displayTimeUnit: "ns", otherData: { basis: "simulated", seed: 1 } })
    expect(trace.otherData.strategies).toHaveLength(json.strategies.length)
    const flows = trace.traceEvents.filter(({ ph }: { ph: string }) => ph === "s")
    expect(new Set(flows.map(({ id }: { id: string }) => id)).size).toBe(7 * json.strategies.length)
  })

  it("refuses a trace or table that cannot be written, with nothing on standard output", async () => {
    for (const flag of ["--csv", "--trace-out"]) {
      const { code, out, err } = await vmplLab(["compare", "--calls", "2", "--boots", "1", flag, path("none/x")])
      expect([code, out]).toEqual([2, ""])
      expect(err).toMatch(/x: cannot be written: no such file/)
    }
  })
})
