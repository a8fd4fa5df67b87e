import { nearestRank } from "./Quantile.ts"

/** Probability with which an interval is to hold the true value. */
export const LEVEL = 0.95

/** The standard normal quantile at 0.975, which goes with the level. */
const Z = 1.959963984540054

/** Above this many samples the binomial distribution is close enough to a normal one. */
const EXACT_MAX = 1_000

/** Ends of an interval in virtual ns; null where the samples are too few to bound that side. */
export type Interval = readonly [low: number | null, high: number | null]

/** Ranks, counted from 1, of the two samples that bound a quantile; null where no sample does. */
export interface Ranks {
  readonly low: number | null
  readonly high: number | null
}

/**
 * The largest c with P(B <= c) at most `tail`, or -1, for B binomial with `n` trials of probability `p` up to 0.5.
 * Products and quotients only, so that every machine gets the same.
 */
const lowTail = (n: number, p: number, tail: number): number => {
  let probability = 1
  for (let i = 0; i < n; i++) probability *= 1 - p
  let sum = 0
  for (let c = 0; c <= n; c++) {
    sum += probability
    if (sum > tail) return c - 1
    probability *= ((n - c) / (c + 1)) * (p / (1 - p))
  }
  return n
}

/** The smallest c with P(B >= c) at most `tail`, n + 1 when there is none; otherwise as `lowTail`. */
const highTail = (n: number, p: number, tail: number): number => {
  let probability = 1
  for (let i = 0; i < n; i++) probability *= 1 - p
  let below = 0
  for (let c = 0; c <= n; c++) {
    if (1 - below <= tail) return c
    below += probability
    probability *= ((n - c) / (c + 1)) * (p / (1 - p))
  }
  return n + 1
}

/**
 * Which order statistics bound the p-quantile of `n` independent samples, whatever their distribution: how many samples
 * lie below the quantile is binomial, and each end leaves at most half of the remaining probability outside (David and
 * Nagaraja, Order Statistics, third edition, 7.1). Above 1000 samples the normal approximation chooses the ranks.
 *
 * @param p per cent, a whole number from 1 to 99
 */
export const quantileRanks = (n: number, p: number): Ranks => {
  const tail = (1 - LEVEL) / 2
  let low: number
  let high: number
  if (n > EXACT_MAX) {
    const middle = (n * p) / 100
    const reach = Z * Math.sqrt((n * p * (100 - p)) / 10_000)
    low = Math.floor(middle - reach)
    high = Math.ceil(middle + reach) + 1
  } else if (p <= 50) {
    low = lowTail(n, p / 100, tail) + 1
    high = highTail(n, p / 100, tail)
  } else {
    // The same from above: a power of the small probability would be lost to rounding.
    low = n + 1 - highTail(n, (100 - p) / 100, tail)
    high = n - lowTail(n, (100 - p) / 100, tail)
  }
  return { low: low < 1 ? null : low, high: high > n ? null : high }
}

/**
 * Confidence interval of the p-quantile by order statistics.
 *
 * @param sorted ascending, not empty
 */
export const quantileInterval = (sorted: ArrayLike<number>, p: number): Interval => {
  const { low, high } = quantileRanks(sorted.length, p)
  return [low === null ? null : sorted[low - 1]!, high === null ? null : sorted[high - 1]!]
}

/** What `results[].interval` holds: how the ends came about, and the ends in virtual ns. */
export interface QuantileIntervals {
  readonly level: number
  /** `exact`: chance had no part, a repetition gives the same. `order statistics`: of independent samples. */
  readonly method: "exact" | "order statistics"
  readonly p50: Interval
  readonly p90: Interval
  readonly p99: Interval
}

/** Intervals of the three quantiles that tables show; null without samples. */
export const quantileIntervals = (samples: ReadonlyArray<number>, drawn: boolean): QuantileIntervals | null => {
  if (samples.length === 0) return null
  const sorted = Float64Array.from(samples).sort()
  const interval = (p: number): Interval => {
    const value = nearestRank(sorted, p)
    return drawn ? quantileInterval(sorted, p) : [value, value]
  }
  const method = drawn ? "order statistics" : "exact"
  return { level: LEVEL, method, p50: interval(50), p90: interval(90), p99: interval(99) }
}
