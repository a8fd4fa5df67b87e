import { median, quantile } from "simple-statistics"

/** Samples of one case with their centre and spread, in nanoseconds. Nothing is left out as an outlier. */
export interface Summary {
  readonly samples: number
  readonly median: number
  readonly p10: number
  readonly p90: number
  readonly p99: number
  readonly min: number
  readonly max: number
  /** Medians of the rounds: their range is what is not known of the median. */
  readonly rounds: ReadonlyArray<number>
  /** Why the figure is doubtful, or null. */
  readonly noisy: string | null
}

/** Spread within a case, and between its rounds, above which it is marked. */
const SPREAD_MAX = 0.5
const ROUNDS_MAX = 0.2
/** Less than this, in ns, is the clock's own grain. */
const GRAIN_NS = 100

const percent = (share: number): string => `${Math.round(100 * share)} %`

/** Why samples are doubtful: a wide middle, or rounds that disagree. */
const doubt = (centre: number, p10: number, p90: number, rounds: ReadonlyArray<number>): string | null => {
  const spread = (p90 - p10) / centre
  const range = (Math.max(...rounds) - Math.min(...rounds)) / centre
  if (range > ROUNDS_MAX && range * centre > GRAIN_NS) return `medians of rounds range over ${percent(range)}`
  return spread > SPREAD_MAX && p90 - p10 > GRAIN_NS ? `p10 to p90 is ${percent(spread)} of the median` : null
}

/** @param rounds samples of each round, at least one sample each */
export const summarize = (rounds: ReadonlyArray<Float64Array>): Summary => {
  const all = rounds.flatMap((round) => [...round])
  const medians = rounds.map((round) => median([...round]))
  const [p10, centre, p90, p99] = [0.1, 0.5, 0.9, 0.99].map((p) => quantile(all, p)) as [number, number, number, number]
  return {
    samples: all.length,
    median: centre,
    p10,
    p90,
    p99,
    min: Math.min(...all),
    max: Math.max(...all),
    rounds: medians,
    noisy: doubt(centre, p10, p90, medians)
  }
}
