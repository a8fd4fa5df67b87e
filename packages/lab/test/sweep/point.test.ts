import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { describe, expect, it } from "vitest"
import { DEFAULT_SCENARIO } from "../../src/DefaultScenario.ts"
import type { Scenario } from "../../src/Scenario.ts"
import { type PointOutcome, runPoint } from "../../src/sweep/Point.ts"
import { profile } from "../fixture.ts"

const base = { ...DEFAULT_SCENARIO, vcpus: 2, calls: 4, boots: 1 }

const outcomeOf = (keys: Partial<Scenario>): PointOutcome => {
  const strategies = [strategyName(STRATEGIES[0]!), "planes/kernel"]
  const answer = runPoint({ index: 0, scenario: { ...base, ...keys }, profile, strategies, seed: 3 })
  if ("failure" in answer) throw new Error(answer.failure)
  return answer.outcome
}

describe("a point of a sweep", () => {
  it("keeps host and boot of each strategy, and no text that is the same at every point", () => {
    const { strategies, interrupts } = outcomeOf({})
    expect(strategies.map(({ strategy }) => strategy)).toEqual(["multi-vmpl-vcpu", "planes"])
    for (const { host, boot, acceptance, ...rest } of strategies) {
      expect(host.cpuNsPerCall).toBeGreaterThan(0)
      expect(host.bytesPerVcpu).toBeGreaterThan(4_096)
      expect(boot.apCreate.length).toBeGreaterThan(0)
      expect(acceptance).toBeNull()
      expect(rest).not.toHaveProperty("summary")
    }
    expect(interrupts).toBeUndefined()
  })

  it("has the memory that its workload accepts", () => {
    const keys = { mebibytes: 16, entrySize: "2M" } as const
    const { strategies } = outcomeOf({ workload: "memory-acceptance", memoryAcceptance: keys })
    expect(strategies.map(({ acceptance }) => acceptance?.bytes)).toEqual([16 * 2 ** 20, 16 * 2 ** 20])
  })

  it("has the levels that its workload calls between", () => {
    const { strategies } = outcomeOf({ workload: "four-levels" })
    const created = strategies.map(({ boot }) => boot.apCreate.map(({ name }) => name.slice(0, 5)))
    for (const levels of created) expect(new Set(levels)).toEqual(new Set(["VMPL0", "VMPL1", "VMPL2", "VMPL3"]))
  })

  it("has the interrupts that its workload raises", () => {
    const { interrupts } = outcomeOf({
      workload: "interrupts",
      interrupts: {
        injection: "normal",
        svsmInjection: "normal",
        sources: [{ source: "device", vmpl: 2, periodNs: 100_000 }],
        svsmShare: 500,
        pagesPerCall: 0,
        durationNs: 2_000_000
      }
    })
    expect(interrupts).toHaveLength(2)
    for (const { sources } of interrupts!) expect(sources[0]!.raised).toBeGreaterThan(0)
  })
})
