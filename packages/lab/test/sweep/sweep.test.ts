import { appendFileSync, existsSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { GRID, newFolder, type Outcome, shell, start, text, write } from "./support.ts"

const POINTS = 24
const lines = (content: string) => content.split("\n").slice(0, -1)

let folder = ""
let whole = ""
beforeAll(async () => {
  folder = newFolder()
  write(folder, "grid.json", GRID)
  const done = await shell("sweep grid.json -o whole.jsonl --jobs 1 --csv whole.csv", folder)
  expect(done).toEqual({ code: 0, out: `whole.jsonl: ${POINTS} points, 0 of them found, ${POINTS} run\n`, err: "" })
  whole = text(folder, "whole.jsonl")
})
afterAll(() => rmSync(folder, { recursive: true }))

/** Stops a sweep by a signal once its file has that many lines; how many it had in the end. */
const stopAt = (name: string, count: number, signal: NodeJS.Signals) =>
  new Promise<{ readonly code: number | null; readonly count: number }>((resolve) => {
    const child = start(`sweep grid.json -o ${name} --jobs 1`, folder)
    const found = () => (existsSync(join(folder, name)) ? lines(text(folder, name)).length : 0)
    const watch = setInterval(() => {
      if (found() < count) return
      // Once: a second SIGINT would not wait for the threads to end.
      clearInterval(watch)
      child.kill(signal)
    }, 1)
    child.on("exit", (code) => {
      clearInterval(watch)
      resolve({ code, count: found() })
    })
  })

describe("a sweep", () => {
  it("has a line for each point, in the order of the grid, with its parameters and results", () => {
    const points = lines(whole).map((line) => JSON.parse(line))
    expect(points.map(({ index }) => index)).toEqual(Array.from({ length: POINTS }, (_, i) => i))
    expect(new Set(points.map(({ id }) => id)).size).toBe(POINTS)
    expect(points[7].parameters).toEqual({
      "scenario.vcpus": 1,
      "scenario.calls": 4,
      "scenario.boots": 1,
      "host.placement": "same-core",
      "profile.userspace_exit.ns": 100,
      seed: 2
    })
    const median = (index: number, strategy: string): number =>
      points[index].results.find(
        (one: { strategy: string; operation: string }) =>
          one.strategy === strategy && one.operation === "run-vmpl-round-trip"
      ).ns.p50
    // One exit to user space in each of the two switches, at 100, 310 and 600 ns, on one core where nothing varies.
    expect(median(8, "vcpu-per-vmpl") - median(6, "vcpu-per-vmpl")).toBe(2 * 210)
    expect(median(10, "vcpu-per-vmpl") - median(8, "vcpu-per-vmpl")).toBe(2 * 290)
    expect(median(10, "multi-vmpl-vcpu")).toBe(median(6, "multi-vmpl-vcpu"))
  })

  it("gives the same file with two threads", async () => {
    expect((await shell("sweep grid.json -o two.jsonl --jobs 2", folder)).code).toBe(0)
    expect(text(folder, "two.jsonl")).toBe(whole)
  })

  it.each(["SIGKILL", "SIGINT"] as const)("goes on after %s without loss or repetition", async (signal) => {
    const name = `${signal}.jsonl`
    const stopped = await stopAt(name, 3, signal)
    expect(stopped.code).toBe(signal === "SIGINT" ? 130 : null)
    expect(stopped.count).toBeGreaterThanOrEqual(3)
    expect(stopped.count).toBeLessThan(POINTS)
    const before = lines(text(folder, name))
    const { code, out } = await shell(`sweep grid.json -o ${name} --jobs 2`, folder)
    expect(code).toBe(0)
    expect(out).toBe(`${name}: ${POINTS} points, ${stopped.count} of them found, ${POINTS - stopped.count} run\n`)
    expect(text(folder, name)).toBe(whole)
    for (const line of before) expect(lines(whole)).toContain(line)
    expect(readdirSync(folder).filter((file) => file.endsWith(".part"))).toEqual([])
  })

  it("drops a line that was cut off and runs its point again", async () => {
    const [first, second] = lines(whole)
    write(folder, "torn.jsonl", `${first}\n${second!.slice(0, 200)}`)
    const { code, out, err } = await shell("sweep grid.json -o torn.jsonl", folder)
    expect({ code, out }).toEqual({ code: 0, out: `torn.jsonl: ${POINTS} points, 1 of them found, 23 run\n` })
    expect(err).toMatch(/^vmpl-lab: torn\.jsonl: its last line was cut off/)
    expect(text(folder, "torn.jsonl")).toBe(whole)
  })

  it("runs nothing when all is there", async () => {
    write(folder, "full.jsonl", whole)
    const { out } = await shell("sweep grid.json -o full.jsonl", folder)
    expect(out).toBe(`full.jsonl: ${POINTS} points, ${POINTS} of them found, 0 run\n`)
    expect(text(folder, "full.jsonl")).toBe(whole)
  })

  it("tells before it runs how many points there are", async () => {
    const half = lines(whole).slice(0, 12)
    write(folder, "half.jsonl", `${half.join("\n")}\n`)
    const { out } = await shell("sweep grid.json -o half.jsonl --shard 1/3 --dry-run", folder)
    expect(out).toMatch(/^24 points, 8 of shard 1\/3, 4 to run\n {2}scenario\.vcpus: 2\n/)
    expect(lines(text(folder, "half.jsonl"))).toEqual(half)
  })

  it("writes a table of all results", () => {
    const rows = text(folder, "whole.csv").trim().split("\r\n")
    expect(rows).toHaveLength(1 + POINTS * 2 * 3)
    expect(rows[0]).toMatch(/^index,scenario\.vcpus,scenario\.calls,scenario\.boots,host\.placement,/)
    expect(rows[1]).toMatch(/^0,1,4,1,spread,100,1,multi-vmpl-vcpu,,ap-create,/)
  })
})

describe("shards", () => {
  beforeAll(async () => {
    const parts = await Promise.all(
      ["1/3", "2/3", "3/3"].map((part) =>
        shell(`sweep grid.json -o part${part[0]}.jsonl --jobs 1 --shard ${part}`, folder)
      )
    )
    for (const { code, out } of parts)
      expect({ code, out }).toMatchObject({ code: 0, out: expect.stringMatching("8 run") })
  })

  it("merged equal the whole, in any order and with repetitions", async () => {
    const files = "part3.jsonl part1.jsonl part2.jsonl part1.jsonl SIGKILL.jsonl"
    const merged = await shell(`merge ${files} -o all.jsonl --csv all.csv`, folder)
    expect(merged).toEqual({ code: 0, out: "all.jsonl: 24 of 24 points\n", err: "" })
    expect(text(folder, "all.jsonl")).toBe(whole)
    expect(text(folder, "all.csv")).toBe(text(folder, "whole.csv"))
  })

  it("can be merged in part, and say so", async () => {
    const part = text(folder, "part1.jsonl")
    write(folder, "cut.jsonl", part.slice(0, -20))
    const { code, out, err } = await shell("merge cut.jsonl part2.jsonl -o some.jsonl", folder)
    expect({ code, out }).toEqual({ code: 0, out: "some.jsonl: 15 of 24 points\n" })
    expect(err).toMatch(/^vmpl-lab: cut\.jsonl: its last line is cut off/)
  })

  it.each([
    ["differing", /^differing\.jsonl: line 2: point 3 differs from part1\.jsonl: line 2, expected equal results$/],
    ["grid", /^grid\.jsonl: line 2: grid 0+, expected [0-9a-f]{64} as in part1\.jsonl: line 1$/],
    ["commit", /^commit\.jsonl: line 2: commit old, expected .* as in part1\.jsonl: line 1$/],
    ["strange", /^strange\.jsonl: line 2: something else, expected a line written by sweep$/],
    ["broken", /^broken\.jsonl: line 2: not valid JSON, expected a line written by sweep$/]
  ])("that do not belong together are refused: %s", async (kind, says) => {
    const change: { readonly [kind: string]: (line: string) => string } = {
      differing: (line) => line.replace('"samples":4', '"samples":5'),
      grid: (line) => line.replace(/"grid":"[0-9a-f]+"/, `"grid":"${"0".repeat(64)}"`),
      commit: (line) => line.replace(/"commit":"[^"]+"/, '"commit":"old"'),
      strange: () => '{"seed":1}',
      broken: (line) => line.slice(0, -5)
    }
    const [first, second, ...rest] = lines(text(folder, "part1.jsonl"))
    write(folder, `${kind}.jsonl`, `${[first, change[kind]!(second!), ...rest].join("\n")}\n`)
    const { code, out, err } = await shell(`merge part1.jsonl ${kind}.jsonl -o no.jsonl`, folder)
    expect({ code, out }).toEqual({ code: 2, out: "" })
    expect(err.replace("vmpl-lab: ", "").trimEnd()).toMatch(says)
    expect(existsSync(join(folder, "no.jsonl"))).toBe(false)
  })
})

describe("a results file of something else", () => {
  const refused = ({ code, out }: Outcome) => expect({ code, out }).toEqual({ code: 2, out: "" })

  it("is refused and stays as it is, unless it is to be replaced", async () => {
    write(folder, "other.json", { ...GRID, seed: [1, 3] })
    write(folder, "kept.jsonl", whole)
    const outcome = await shell("sweep other.json -o kept.jsonl", folder)
    refused(outcome)
    expect(outcome.err).toMatch(/^vmpl-lab: kept\.jsonl: line 1: of another grid, .*--force to replace this one\n$/)
    expect(text(folder, "kept.jsonl")).toBe(whole)
    const forced = await shell("sweep other.json -o kept.jsonl --force", folder)
    expect(forced.out).toBe("kept.jsonl: 24 points, 0 of them found, 24 run\n")
    const seeds = lines(text(folder, "kept.jsonl")).map((line) => JSON.parse(line).parameters.seed)
    expect(new Set(seeds)).toEqual(new Set([1, 3]))
  })

  it.each(["a text without end", "{}\n", '{"sweep":2,"id":"'])("is refused even with --force: %j", async (content) => {
    write(folder, "notes.txt", content)
    const outcome = await shell("sweep grid.json -o notes.txt --force", folder)
    refused(outcome)
    expect(outcome.err).toMatch(/^vmpl-lab: notes\.txt: line 1: something else, expected a line written by sweep\n$/)
    expect(text(folder, "notes.txt")).toBe(content)
  })

  it("in which one point has two results is refused", async () => {
    write(folder, "twice.jsonl", whole)
    appendFileSync(join(folder, "twice.jsonl"), `${lines(whole)[0]!.replace('"samples":4', '"samples":5')}\n`)
    const outcome = await shell("sweep grid.json -o twice.jsonl", folder)
    refused(outcome)
    expect(outcome.err).toMatch(/twice\.jsonl: line 25: point 0 differs from twice\.jsonl: line 1/)
  })
})
