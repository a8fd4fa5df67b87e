import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { RandomStream } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { builtInFirmware } from "../../src/Compare.ts"
import { Scenario } from "../../src/Scenario.ts"
import { svsmLaunch } from "../../src/SvsmLaunch.ts"
import { pairedDifference } from "../../src/statistics/Paired.ts"
import { comparisonsOf, type Replicated, runPaired } from "../../src/statistics/PairedRuns.ts"
import { profile, scenario } from "../fixture.ts"

const times = (n: number, value: (k: number) => number): ReadonlyArray<number> =>
  Array.from({ length: n }, (_, k) => value(k))

/** A sum of four equally likely numbers: bell-shaped, median 0. */
const noise = (stream: RandomStream): number => times(4, () => stream.int(-500, 500)).reduce((a, b) => a + b, 0)

describe("verdicts", () => {
  const common = [100, 900, 300, 700, 500, 200, 800, 400, 600, 1_000]
  it.each([
    ["faster", common.map((ns) => ns - 5), common],
    ["slower", common.map((ns, k) => ns + 5 + (k % 3)), common],
    ["no detectable difference", common, common],
    ["no detectable difference", common.map((ns, k) => ns + (k % 2 === 0 ? 5 : -5)), common]
  ] as const)("%s", (verdict, first, second) => {
    expect(pairedDifference(first, second).verdict).toBe(verdict)
  })

  it("come from the differences: what moves both alike does not hide a small one", () => {
    const { ns, interval, ratio, correlation } = pairedDifference(
      common.map((one) => one + 5),
      common
    )
    expect({ ns, interval }).toEqual({ ns: 5, interval: [5, 5] })
    expect(ratio).toBeCloseTo((1 + 5 / 500 + 1 + 5 / 600) / 2, 3)
    expect(correlation).toBeCloseTo(1, 12)
    const shuffled = [...common.slice(3), ...common.slice(0, 3)].map((one) => one + 5)
    expect(pairedDifference(shuffled, common).verdict).toBe("no detectable difference")
  })

  it("turn round with the strategies", () => {
    const slow = common.map((one, k) => one + 10 + k)
    const there = pairedDifference(slow, common)
    const back = pairedDifference(common, slow)
    expect(back.ns).toBe(-there.ns)
    expect([there.verdict, back.verdict]).toEqual(["slower", "faster"])
  })

  it("have no correlation where one side is constant, and no ratio to nothing", () => {
    expect(
      pairedDifference(
        common,
        times(10, () => 50)
      ).correlation
    ).toBeNull()
    const { ratio, ratioInterval, verdict } = pairedDifference(
      common,
      times(10, () => 0)
    )
    expect({ ratio, ratioInterval, verdict }).toEqual({ ratio: null, ratioInterval: null, verdict: "slower" })
  })
})

describe("intervals of paired differences", () => {
  it.each([10, 30])("of %i pairs hold the true median in about 95 %% of all cases", (n) => {
    const stream = new RandomStream(5, "differences")
    const runs = 300
    let held = 0
    for (let run = 0; run < runs; run++) {
      const common = times(n, () => 10_000 + stream.int(0, 5_000))
      const first = common.map((ns) => ns + 40 + noise(stream))
      const [low, high] = pairedDifference(first, common).interval
      if (low <= 40 && 40 <= high) held += 1
    }
    // Two standard errors of 300 runs are 2.5 per cent.
    expect(held / runs).toBeGreaterThan(0.915)
    expect(held / runs).toBeLessThan(0.99)
  })

  it("are the same every time", () => {
    const first = [5, 3, 9, 4, 8, 2, 7]
    const second = [1, 2, 3, 4, 5, 6, 7]
    expect(pairedDifference(first, second)).toEqual(pairedDifference(first, second))
  })
})

describe("which pairs are compared", () => {
  const row = (strategy: string, ns: number | null, operation: Replicated["operation"] = "run-vmpl-one-way") => ({
    strategy,
    variant: null,
    operation,
    medians: times(6, (k) => k).map((k) => (ns === null ? null : ns + k))
  })
  const pairs = (rows: ReadonlyArray<Replicated>, baseline?: string) =>
    comparisonsOf(rows, baseline).map(
      ({ strategy, against, reference, difference }) =>
        `${strategy} ${difference?.verdict ?? "without samples"}: ${reference} ${against.strategy}`
    )

  it("each with the fastest and each with the baseline, by operation", () => {
    const rows = [row("a", 30), row("b", 10), row("c", 20)]
    expect(pairs(rows)).toEqual(["a slower: fastest b", "c slower: fastest b"])
    expect(pairs(rows, "c").slice(2)).toEqual(["a slower: baseline c", "b faster: baseline c"])
  })

  it("one without samples is neither the fastest nor given a verdict", () => {
    expect(pairs([row("a", null), row("b", 10)])).toEqual(["a without samples: fastest b"])
    expect(pairs([row("a", null)])).toEqual([])
  })

  it("operations have a fastest each", () => {
    const rows = [row("a", 1), row("b", 2), row("a", 2, "ap-create"), row("b", 1, "ap-create")]
    expect(pairs(rows)).toEqual(["a slower: fastest b", "b slower: fastest a"])
  })
})

describe("paired runs", () => {
  const small = new Scenario({ ...scenario, vcpus: 2, calls: 20 })
  const svsm = svsmLaunch(builtInFirmware(), 2)
  // The first stays in the kernel; the others take the same steps in a call.
  const names = ["multi-vmpl-vcpu", "vcpu-per-vmpl/vmm-threads", "vm-per-vmpl/vmm-threads"]
  const strategies = STRATEGIES.filter((one) => names.includes(strategyName(one)))
  const input = { scenario: small, svsm, seed: 3, strategies, replications: 6, baseline: names[1] }
  const run = (costs = profile, seed = 3) =>
    Effect.runPromise(runPaired({ ...input, profile: costs, seed, onProgress: () => {} }))
  const withoutSpread = {
    ...profile,
    primitives: Object.fromEntries(
      Object.entries(profile.primitives).map(([name, { quantiles: _, ...cost }]) => [name, cost])
    ) as unknown as typeof profile.primitives
  }

  it("replication k is the run with the seed plus k", async () => {
    const here = await run()
    const later = await run(profile, 5)
    for (const [i, { medians }] of later.medians.entries()) {
      expect(medians.slice(0, 4)).toEqual(here.medians[i]!.medians.slice(2))
    }
    expect(new Set(here.medians.find(({ strategy }) => strategy === "vcpu-per-vmpl")!.medians).size).toBeGreaterThan(1)
  })

  it("strategies that take the same steps in a call cannot be told apart, one that does not leave the kernel can", async () => {
    const { comparisons } = await run()
    const verdict = (strategy: string, against: string) =>
      comparisons.find(
        (one) =>
          one.operation === "run-vmpl-round-trip" && one.strategy === strategy && one.against.strategy === against
      )?.difference?.verdict
    expect(verdict("vcpu-per-vmpl", "multi-vmpl-vcpu")).toBe("slower")
    expect(verdict("multi-vmpl-vcpu", "vcpu-per-vmpl")).toBe("faster")
    expect(verdict("vm-per-vmpl", "vcpu-per-vmpl")).toBe("no detectable difference")
  })

  it("without spread every interval has no width", async () => {
    const { comparisons } = await run(withoutSpread)
    expect(comparisons.length).toBeGreaterThan(0)
    for (const { difference } of comparisons) expect(difference!.interval[0]).toBe(difference!.interval[1])
  })
})
