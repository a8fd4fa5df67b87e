import { describe, expect, it } from "vitest"
import { OPERATIONS } from "../../src/ComparisonRun.ts"
import { summarize } from "../../src/Summary.ts"
import { comparisonsOf, type PairedJson, type Replicated } from "../../src/statistics/PairedRuns.ts"
import { renderComparison } from "../../src/Table.ts"
import { profile, run, scenario } from "../fixture.ts"

const NAMES = [
  ["multi-vmpl-vcpu", null],
  ["vcpu-per-vmpl", "vmm-one-thread"],
  ["vm-per-vmpl", "vmm-one-thread"]
] as const

/** Medians of six replications: the second strategy is as fast as the third, or one way has no samples at all. */
const medians: ReadonlyArray<Replicated> = OPERATIONS.flatMap((operation) =>
  NAMES.map(([strategy, variant], i) => ({
    strategy,
    variant,
    operation,
    medians: Array.from({ length: 6 }, (_, k) =>
      operation === "run-vmpl-one-way" && i === 2 ? null : 100_000 + k * 7 + (i === 0 ? 0 : 123_456 + ((i * k) % 3))
    )
  }))
)
const paired: PairedJson = {
  seed: 7,
  replications: 6,
  boots: 1,
  calls: 100,
  statistic: "p50",
  level: 0.95,
  resamples: 2_000,
  medians,
  comparisons: comparisonsOf(medians, "vcpu-per-vmpl/vmm-one-thread")
}
const json = summarize({ run, profile, scenario, seed: 7, commit: "unknown", paired })
const text = renderComparison(json, { colour: false, breakdown: false, intervals: true })
const after = (title: string) => text.slice(text.indexOf(title)).split("\n\n")[0]!

describe("the tables of paired runs", () => {
  it("say in words which strategy is faster, against the fastest and against the baseline", () => {
    const fastest = after("Compared with the fastest, multi-vmpl-vcpu")
    expect(fastest).toMatch(/round trip │ vcpu-per-vmpl .* 123 us to 123 us │ x2\.23 │ slower/)
    expect(fastest).toMatch(/one way {4}│ vm-per-vmpl .*│ no samples/)
    const baseline = after("Compared with the baseline, vcpu-per-vmpl/vmm-one-thread")
    expect(baseline).toMatch(/round trip │ multi-vmpl-vcpu .* -123 us │ -123 us to -123 us │ x0\.45 │ faster/)
    expect(baseline).toMatch(/round trip │ vm-per-vmpl .*│ no detectable │\n.*vmm-one-thread.*│ difference/)
  })

  it("fit 100 columns", () => {
    for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(100)
  })

  it("say what the runs were", () => {
    expect(text.replaceAll(/\n */g, " ")).toContain(
      "Paired: 6 more runs of each strategy, one boot with 100 calls of each vCPU, seeds 7 to 12"
    )
  })
})

describe("the JSON", () => {
  it("has distribution and interval of each result, and the pairs", () => {
    for (const { samples, ns, distribution, interval } of json.results) {
      if (samples === 0) expect([distribution, interval]).toEqual([null, null])
      else expect([distribution![0], distribution![50], distribution![100]]).toEqual([ns.min, ns.p50, ns.max])
    }
    expect(json.paired).toBe(paired)
  })

  it("has intervals without width only where no price varied", () => {
    const method = (strategy: string) =>
      json.results.find((one) => one.strategy === strategy && one.operation === "run-vmpl-round-trip")!.interval!.method
    expect(method("multi-vmpl-vcpu")).toBe("exact")
    // A hand-off across cores varies, even if these samples happen to be equal.
    expect(method("vcpu-per-vmpl")).toBe("order statistics")
  })
})
