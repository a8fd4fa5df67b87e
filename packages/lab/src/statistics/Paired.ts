import { RandomStream } from "@vmpl-lab/sim"
import { median, quantile, sampleCorrelation, sampleWithReplacement } from "simple-statistics"
import { LEVEL } from "./QuantileInterval.ts"

/** Fewer pairs cannot tell a direction at this level: even if all agree, chance does that too often. */
export const PAIRS_MIN = 6

/** Samples drawn anew from the pairs. */
export const RESAMPLES = 2_000

/** Fixed, so that equal samples give equal intervals. */
const SEED = 1

/** A verdict in words: about the first strategy, seen from the second. */
export type Verdict = "faster" | "slower" | "no detectable difference"

/** How one strategy differs from another over pairs of runs. Times in virtual ns. */
export interface PairedDifference {
  /** Median of the differences, first less second. */
  readonly ns: number
  readonly interval: readonly [low: number, high: number]
  /** Median of the ratios, first by second; null where a second is zero. */
  readonly ratio: number | null
  readonly ratioInterval: readonly [low: number, high: number] | null
  /** How far the two go up and down together, -1 to 1: what pairing gains. Null where one of them never changes. */
  readonly correlation: number | null
  readonly verdict: Verdict
}

const isConstant = (values: ReadonlyArray<number>): boolean => values.every((value) => value === values[0])

/** The pairs' numbers of each resample: the same for every comparison of as many pairs. */
const resamples = (pairs: number): ReadonlyArray<ReadonlyArray<number>> => {
  const stream = new RandomStream(SEED, "bootstrap of pairs")
  const random = (): number => stream.int(0, 0x3fff_ffff) / 0x4000_0000
  const all = Array.from({ length: pairs }, (_, i) => i)
  return Array.from({ length: RESAMPLES }, () => sampleWithReplacement(all, pairs, random))
}

/** Percentile bootstrap of the median (Efron and Tibshirani, An Introduction to the Bootstrap, 13.3). */
const medianInterval = (
  values: ReadonlyArray<number>,
  draws: ReadonlyArray<ReadonlyArray<number>>
): readonly [low: number, high: number] => {
  if (isConstant(values)) return [values[0]!, values[0]!]
  const medians = draws.map((draw) => median(draw.map((i) => values[i]!)))
  return [quantile(medians, (1 - LEVEL) / 2), quantile(medians, (1 + LEVEL) / 2)]
}

const verdictOf = ([low, high]: readonly [number, number]): Verdict => {
  if (high < 0) return "faster"
  return low > 0 ? "slower" : "no detectable difference"
}

/**
 * Compares two strategies by one figure per run, where run k of both had the same seed. The interval is that of the
 * differences, so that what moves both alike does not widen it.
 *
 * @param first as many values as `second`, at least PAIRS_MIN
 */
export const pairedDifference = (first: ReadonlyArray<number>, second: ReadonlyArray<number>): PairedDifference => {
  const draws = resamples(first.length)
  const differences = first.map((ns, k) => ns - second[k]!)
  const interval = medianInterval(differences, draws)
  const ratios = second.includes(0) ? null : first.map((ns, k) => ns / second[k]!)
  return {
    ns: median(differences),
    interval,
    ratio: ratios === null ? null : median(ratios),
    ratioInterval: ratios === null ? null : medianInterval(ratios, draws),
    correlation: isConstant(first) || isConstant(second) ? null : sampleCorrelation([...first], [...second]),
    verdict: verdictOf(interval)
  }
}
