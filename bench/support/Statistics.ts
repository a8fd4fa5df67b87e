import { RandomStream } from "@vmpl-lab/sim"
import { median, medianAbsoluteDeviation, quantile, sampleWithReplacement } from "simple-statistics"

/** Samples of one quantity with their centre and spread. Nothing is left out as an outlier. */
export interface Statistics {
  readonly samples: ReadonlyArray<number>
  readonly median: number
  /** Median absolute deviation from the median, not scaled. */
  readonly mad: number
  /** 95 % bootstrap interval of the median (percentile method); null for fewer than 3 samples. */
  readonly interval: readonly [low: number, high: number] | null
}

const RESAMPLES = 2_000
const SAMPLES_MIN = 3
const LOW = 0.025
const HIGH = 0.975
/** Fixed, so that equal samples give equal intervals. */
const SEED = 1

/** A source of numbers from 0 up to 1, the same on every run. */
const randomSource = (name: string): (() => number) => {
  const stream = new RandomStream(SEED, name)
  return () => stream.int(0, 0x3fff_ffff) / 0x4000_0000
}

const interval = (resampled: Array<number>): readonly [number, number] => [
  quantile(resampled, LOW),
  quantile(resampled, HIGH)
]

/** Median, spread and interval of at least one sample. */
export const statistics = (samples: ReadonlyArray<number>): Statistics => {
  const all = [...samples]
  const random = randomSource("bootstrap")
  const resample = () => median(sampleWithReplacement(all, all.length, random))
  return {
    samples,
    median: median(all),
    mad: medianAbsoluteDeviation(all),
    interval: all.length < SAMPLES_MIN ? null : interval(Array.from({ length: RESAMPLES }, resample))
  }
}

/** How many times larger one median is than another, with the bootstrap interval of that ratio. */
export interface Ratio {
  readonly ratio: number
  readonly interval: readonly [low: number, high: number] | null
}

/** Ratio of two medians; both sides are resampled, so the uncertainty of both is in the interval. */
export const ratio = (above: Statistics, below: Statistics): Ratio => {
  const [a, b] = [[...above.samples], [...below.samples]]
  const random = randomSource("bootstrap of a ratio")
  const resample = () =>
    median(sampleWithReplacement(a, a.length, random)) / median(sampleWithReplacement(b, b.length, random))
  return {
    ratio: above.median / below.median,
    interval: Math.min(a.length, b.length) < SAMPLES_MIN ? null : interval(Array.from({ length: RESAMPLES }, resample))
  }
}
