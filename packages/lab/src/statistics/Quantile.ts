/**
 * The p-quantile of sorted samples by nearest rank: the smallest sample that at least p of all samples do not exceed.
 * Chosen over interpolation because the answer is then a latency that occurred, an exact integer.
 *
 * @param sorted ascending, not empty
 * @param p per cent, a whole number from 0 (the smallest sample) to 100
 */
export const nearestRank = (sorted: ArrayLike<number>, p: number): number =>
  sorted[Math.max(0, Math.ceil((p * sorted.length) / 100) - 1)]!

/** The 101 percentiles 0 to 100 by nearest rank, in the unit of the samples; null without samples. */
export const distribution = (samples: ReadonlyArray<number>): ReadonlyArray<number> | null => {
  if (samples.length === 0) return null
  const sorted = Float64Array.from(samples).sort()
  return Array.from({ length: 101 }, (_, p) => nearestRank(sorted, p))
}
