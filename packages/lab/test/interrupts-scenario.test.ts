import { readdirSync, readFileSync } from "node:fs"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { DEFAULT_SCENARIO } from "../src/DefaultScenario.ts"
import { parseScenario } from "../src/ScenarioFile.ts"

const lineOf = (change: object): string => {
  const text = JSON.stringify({ ...DEFAULT_SCENARIO, workload: "interrupts", ...change })
  const result = parseScenario("mine.json", text)
  return Result.isFailure(result) ? result.failure.line : "accepted"
}

const DEVICE = { source: "device", vmpl: 2, periodNs: 100_000 }
const KEYS = {
  injection: "normal",
  svsmInjection: "normal",
  sources: [DEVICE],
  svsmShare: 300,
  pagesPerCall: 8,
  durationNs: 20_000_000
}
const ALTERNATE = { injection: "alternate", svsmInjection: "restricted" }
const BLOCKED = { svsmInjection: "blocked" }

describe("the workload interrupts", () => {
  it("accepts what makes sense", () => {
    expect(lineOf({ interrupts: KEYS })).toBe("accepted")
    expect(lineOf({ interrupts: { ...KEYS, ...ALTERNATE } })).toBe("accepted")
    expect(lineOf({ interrupts: { ...KEYS, sources: [] } })).toBe("accepted")
  })

  it("needs its keys", () => {
    expect(lineOf({})).toMatch(/^mine\.json: interrupts: expected this key, which the workload needs, got/)
  })

  it.each([
    [
      { injection: "secure" },
      'interrupts.injection: expected one of "normal", "restricted", "alternate", got "secure"'
    ],
    [{ svsmShare: 1_001 }, "interrupts.svsmShare: expected a value between 0 and 1000, got 1001"],
    [{ pagesPerCall: -1 }, "interrupts.pagesPerCall: expected a value between 0 and 200, got -1"],
    [{ durationNs: 1 }, "interrupts.durationNs: expected a value between 100000 and 2000000000, got 1"],
    [{ sources: [{ ...DEVICE, vmpl: 1 }] }, "interrupts.sources[0].vmpl: expected one of 0, 2, got 1"],
    [
      { sources: [{ ...DEVICE, source: "timer" }] },
      "interrupts.sources[0].periodNs: expected at least 200000 for a timer, got 100000"
    ],
    [
      { leavesApicAtNs: 5 },
      "interrupts.leavesApicAtNs: expected injection: alternate, as there is no other emulated APIC, got 5"
    ],
    [
      { ...ALTERNATE, durationNs: 200_000, leavesApicAtNs: 200_000 },
      "interrupts.leavesApicAtNs: expected less than durationNs, got 200000"
    ],
    [
      { injection: "alternate" },
      'interrupts.svsmInjection: expected restricted, as injection is alternate, got "normal"'
    ]
  ])("%j is refused in one line", (change, line) => {
    expect(lineOf({ interrupts: { ...KEYS, ...change } })).toBe(`mine.json: ${line}`)
  })

  it.each([
    [{ sources: [DEVICE, DEVICE] }, "interrupts.sources[1]: expected each source once for a level"],
    [
      { sources: [{ source: "device", vmpl: 2 }] },
      "interrupts.sources[0]: expected periodNs for all but the IPIs at VMPL0"
    ],
    [
      { sources: [{ ...DEVICE, everyCalls: 2 }] },
      "interrupts.sources[0]: expected everyCalls for IPIs at VMPL0, and only for those"
    ],
    [
      { sources: [{ source: "ipi", vmpl: 0, periodNs: 100_000 }] },
      "interrupts.sources[0]: expected everyCalls for IPIs at VMPL0, and only for those"
    ],
    [
      { ...ALTERNATE, sources: [{ ...DEVICE, source: "ipi" }] },
      "interrupts.sources: expected no IPIs at VMPL2 where injection is alternate"
    ],
    [
      { ...BLOCKED, sources: [{ source: "timer", vmpl: 0, periodNs: 300_000 }] },
      "interrupts.sources: expected no timer and no IPIs at VMPL0 where nothing goes in there"
    ]
  ])("%j: what does not fit together is named", (change, line) => {
    expect(lineOf({ interrupts: { ...KEYS, ...change } })).toContain(`mine.json: ${line}, got `)
  })

  it("the scenario files of the project are accepted", () => {
    const folder = new URL("../../../workloads/", import.meta.url)
    const files = readdirSync(folder).filter((name) => name.startsWith("interrupts"))
    expect(files.length).toBeGreaterThanOrEqual(3)
    for (const name of files) {
      const result = parseScenario(name, readFileSync(new URL(name, folder), "utf8"))
      expect(Result.isFailure(result) ? result.failure.line : "accepted").toBe("accepted")
    }
  })
})
