import { RandomStream } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import { distribution, nearestRank } from "../../src/statistics/Quantile.ts"
import { quantileInterval, quantileIntervals, quantileRanks } from "../../src/statistics/QuantileInterval.ts"

/** Share of simulated intervals that hold the true quantile. Samples are whole numbers, all equally likely. */
const coverage = (n: number, p: number, runs: number): number => {
  const stream = new RandomStream(11, `coverage ${n} ${p}`)
  const values = 100_000
  const truth = (values * p) / 100 - 1
  let held = 0
  for (let run = 0; run < runs; run++) {
    const samples = Float64Array.from({ length: n }, () => stream.int(0, values - 1)).sort()
    const [low, high] = quantileInterval(samples, p)
    if ((low ?? 0) <= truth && truth <= (high ?? values)) held += 1
  }
  return held / runs
}

describe("ranks of the samples that bound a quantile", () => {
  // Binomial probabilities by hand: for n = 10 and the median, P(B <= 1) = 11 / 1024 and P(B <= 2) = 56 / 1024.
  it.each([
    [5, 50, null, null],
    [6, 50, 1, 6],
    [10, 50, 2, 9],
    [20, 50, 6, 15],
    [100, 50, 40, 61],
    [100, 90, 84, 96],
    [100, 99, 97, null],
    [368, 99, 360, 368],
    [367, 99, 359, null]
  ])("of %i samples, quantile %i: %s and %s", (n, p, low, high) => {
    expect(quantileRanks(n, p)).toEqual({ low, high })
  })

  it("lie the same from either end", () => {
    for (const n of [7, 50, 333, 1_000, 5_000]) {
      for (const p of [1, 10, 25, 50]) {
        const below = quantileRanks(n, p)
        const above = quantileRanks(n, 100 - p)
        const mirror = (rank: number | null) => (rank === null ? null : n + 1 - rank)
        expect([above.low, above.high]).toEqual([mirror(below.high), mirror(below.low)])
      }
    }
  })

  it("hardly change where the normal approximation takes over", () => {
    for (const p of [50, 90, 99]) {
      const exact = quantileRanks(1_000, p)
      const close = quantileRanks(1_001, p)
      expect(Math.abs(exact.low! - close.low!)).toBeLessThanOrEqual(3)
      expect(Math.abs(exact.high! - close.high!)).toBeLessThanOrEqual(3)
    }
  })
})

describe("intervals of quantiles", () => {
  it.each([
    [20, 50],
    [101, 50],
    [200, 90],
    [500, 99],
    [2_000, 50],
    [2_000, 99]
  ])("of %i samples hold the true p%i in 95 %% of all cases, and not in all", (n, p) => {
    const held = coverage(n, p, 2_000)
    // Two standard errors of 2000 runs are one per cent.
    expect(held).toBeGreaterThan(0.94)
    expect(held).toBeLessThan(0.99)
  })

  it("have no width where nothing was drawn, and no end where the samples do not reach", () => {
    const samples = [3, 1, 2, 2]
    expect(quantileIntervals(samples, false)).toEqual({
      level: 0.95,
      method: "exact",
      p50: [2, 2],
      p90: [3, 3],
      p99: [3, 3]
    })
    expect(quantileIntervals(samples, true)).toMatchObject({
      method: "order statistics",
      p50: [null, null],
      p99: [2, null]
    })
    expect(quantileIntervals([], true)).toBeNull()
  })

  it("do not depend on the order of the samples", () => {
    const samples = Array.from({ length: 40 }, (_, i) => (i * 7) % 40)
    expect(quantileIntervals(samples, true)).toEqual(
      quantileIntervals(
        samples.toSorted((a, b) => a - b),
        true
      )
    )
    expect(quantileIntervals(samples, true)!.p50).toEqual([13, 26])
  })
})

describe("distribution", () => {
  it("has 101 percentiles, the extremes and the quantiles of the table among them", () => {
    const samples = Array.from({ length: 250 }, (_, i) => ((i * 77) % 250) * 10)
    const all = distribution(samples)!
    const sorted = samples.toSorted((a, b) => a - b)
    expect(all).toHaveLength(101)
    expect([all[0], all[100]]).toEqual([0, 2490])
    for (const p of [1, 50, 90, 99]) expect(all[p]).toBe(nearestRank(sorted, p))
    expect(all).toEqual(all.toSorted((a, b) => a - b))
    expect(distribution([])).toBeNull()
  })
})
