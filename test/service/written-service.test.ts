import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { afterAll, describe, expect, it } from "vitest"
import { codeOf } from "../support/docCode.ts"
import { vmplLab } from "../support/shell.ts"

const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-service-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const fileWith = (name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const code = codeOf("write-a-service.md")
const counter = fileWith("counter.ts", code)

describe("the service of docs/write-a-service.md", () => {
  it("is shorter than 60 lines", () => {
    expect(code.split("\n").length).toBeLessThan(60)
  })

  it("runs as it is, under all strategies, at a cost of its own that does not depend on them", async () => {
    const { code, out, err } = await vmplLab(["service", "run", counter, "--fuzz", "200", "--calls", "3", "--json"])
    expect([code, err]).toEqual([0, ""])
    const { latency, fuzz } = JSON.parse(out)
    const names = STRATEGIES.map(strategyName)
    for (const call of ["increment", "list"]) {
      const rows = latency.filter((row: { call: string }) => row.call === call)
      expect(rows.map(({ strategy }: { strategy: string }) => strategy)).toEqual(names)
      for (const row of rows) {
        expect(row).toMatchObject({ samples: 3, results: ["SUCCESS"] })
        expect(row.switchNs + row.serviceNs).toBe(row.ns)
        // 150 and three secrets of 8 bytes; or 100, one secret, and one page with 8 bytes of it: the TSC counts in steps.
        expect(Math.abs(row.serviceNs - (call === "increment" ? 453 : 402))).toBeLessThanOrEqual(1)
      }
    }
    const [first, ...others] = fuzz
    expect(first.results).toMatchObject({
      SUCCESS: expect.any(Number),
      INVALID_PARAMETER: expect.any(Number),
      INVALID_ADDRESS: expect.any(Number),
      UNSUPPORTED_CALL: expect.any(Number)
    })
    // A strategy switches; it has no part in what is answered.
    for (const other of others) expect(other.results).toEqual(first.results)
  })

  it("prints a table that names what is assumed", async () => {
    const { code, out } = await vmplLab(["service", "run", counter, "--strategy", "multi-vmpl-vcpu", "--calls", "3"])
    expect(code).toBe(0)
    expect(out).toContain("Latency of the calls of monotonic-counter")
    expect(out).toMatch(/│ increment │ multi-vmpl-vcpu │ +3 │ 6\.\d+ us │ 6\.13 us │ +\d+ ns │ SUCCESS │/)
    expect(out).toContain("Simulated, not measured")
  })
})

/** The page's service with one piece of its text replaced. */
const changed = (from: string | RegExp, to: string): string => {
  const text = code.replace(from, to)
  if (text === code) throw new Error(`${from} is not in the page`)
  return text
}

describe("service run, what it refuses", () => {
  it.each<[string, string, string]>([
    ["no-service.ts", "export const a = 1", "default export: expected a service of defineService, got nothing"],
    ["syntax.ts", "export default {", "cannot be run: "],
    ["throws.ts", 'throw new Error("by itself\\non two lines")', "cannot be run: by itself on two lines"],
    ["stranger.ts", 'import "nobody-has-this"', "cannot be run: Cannot find package 'nobody-has-this'"],
    ["taken.ts", changed("0x4000_0000", "2"), "protocol: 2, but 0 to 4 (CORE, "],
    ["amd.ts", changed("0x4000_0000", "0x8000_0001"), "protocol: 2147483649, but "],
    ["fraction.ts", changed("0x4000_0000", "1.5"), "protocol: expected a whole number from 0 to 4294967295, got 1.5"],
    ["name.ts", changed('"monotonic-counter"', '""'), 'name: expected 1 to 40 letters, digits or dashes, got ""'],
    [
      "versions.ts",
      changed("min: 1, max: 1", "min: 2, max: 1"),
      "version.min: expected a whole number from 1 to 1, got 2"
    ],
    ["calls.ts", changed("call: 1,", "call: 0,"), "calls.list.call: 0 is another call's, expected each once"],
    ["register.ts", changed('u64("rdx")', 'u64("rcx")'), 'calls.increment.request.by: "rcx" is another field\'s'],
    [
      "rax.ts",
      changed('u64("rdx")', 'u64("rax" as "rcx")'),
      "calls.increment.request.by.register: expected rcx, rdx, r8"
    ],
    [
      "align.ts",
      changed("align: 8", "align: 3"),
      "calls.list.request.out.align: expected a power of two up to 4096, got 3"
    ],
    [
      "size.ts",
      changed("max: 4096", "max: 9000"),
      "calls.list.request.out.size.max: expected a whole number from 1 to 8192"
    ],
    ["uses.ts", changed('uses: ["secrets"]', 'uses: ["files" as "clock"]'), "calls.increment.uses: expected a list of"],
    ["example.ts", changed("by: 1n }", "by: 1 }"), 'calls.increment.example.by: expected a bigint, got "number"'],
    [
      "errors.ts",
      changed("call: 1,", "call: 1, errors: { CounterFull: 0 },"),
      "calls.list.errors: unknown, expected one of call, uses, costNs, "
    ],
    ["key.ts", changed("version:", "costNS: 1, version:"), "costNS: unknown, expected one of name, protocol, "],
    [
      "none.ts",
      "export default { name: 'x', protocol: 9, version: { min: 1, max: 1 }, calls: {} }",
      "calls: expected an object of at least one call"
    ]
  ])("%s", async (name, text, expected) => {
    const path = fileWith(name, text)
    const { code, out, err } = await vmplLab(["service", "run", path])
    expect([code, out]).toEqual([2, ""])
    expect(err).toContain(`vmpl-lab: ${path}: ${expected}`)
    expect(err.trim().split("\n")).toHaveLength(1)
  })

  it("a folder", async () => {
    const { code, err } = await vmplLab(["service", "run", "/"])
    expect([code, err]).toEqual([2, "vmpl-lab: /: no file, expected one of TypeScript or JavaScript\n"])
  })

  it("a file that is not there", async () => {
    const { code, err } = await vmplLab(["service", "run", "/nowhere/counter.ts"])
    expect([code, err]).toEqual([2, "vmpl-lab: /nowhere/counter.ts: cannot be read: no such file\n"])
  })

  it.each<[string, string, string]>([
    ["throws", changed('if (by === 0n) return yield* refuse("INVALID_PARAMETER")', 'throw new Error("lost")'), "lost"],
    [
      "forgets its reply",
      changed("return { value }", "return {} as { value: bigint }"),
      "Cannot convert undefined to a BigInt"
    ],
    ["leaves its buffer", changed("8 * counter)", "out.size)"), "bytes 8 to 16 of a buffer of 8"]
  ])("a handler that %s fails the run", async (name, text, why) => {
    const { code, out, err } = await vmplLab(["service", "run", fileWith(`${name.replaceAll(" ", "-")}.ts`, text)])
    expect([code, out]).toEqual([1, ""])
    expect(err).toMatch(/^vmpl-lab: the run failed: monotonic-counter, (increment|list): the handler died: .*\n$/)
    expect(err).toContain(why)
  })
})
