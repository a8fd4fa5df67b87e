import { strategyName } from "@vmpl-lab/hv-strategies"
import type { OperationName } from "../ComparisonRun.ts"
import { grid } from "../Grid.ts"
import type { ResultEntry } from "../Summary.ts"
import { duration, ratio } from "../Units.ts"
import type { PairedComparison, PairedJson, StrategyRef } from "./PairedRuns.ts"
import type { Interval } from "./QuantileInterval.ts"

/** A strategy on two lines, to keep the column narrow. */
const twoLines = ({ strategy, variant }: StrategyRef): string =>
  variant === null ? strategy : `${strategy}\n(${variant})`

const signed = (ns: number): string => (ns < 0 ? `-${duration(-ns)}` : duration(ns))

const intervalText = ([low, high]: Interval): string => {
  if (low !== null && low === high) return duration(low)
  if (low === null) return high === null ? "unknown" : `up to ${duration(high)}`
  return high === null ? `from ${duration(low)}` : `${duration(low)} to\n${duration(high)}`
}

/** The quantiles' confidence intervals, for results with samples. */
export const intervalTable = (
  results: ReadonlyArray<ResultEntry>,
  words: { readonly [K in OperationName]: string }
): string =>
  grid(
    ["operation", "strategy", "p50", "p90", "p99"],
    [2, 3, 4],
    results.flatMap((result) => {
      const { interval, operation } = result
      if (interval === null) return []
      const { p50, p90, p99 } = interval
      return [[words[operation], twoLines(result), intervalText(p50), intervalText(p90), intervalText(p99)]]
    })
  )

const pairedRow = (
  { operation, difference, ...one }: PairedComparison,
  words: { readonly [K in OperationName]: string }
): ReadonlyArray<string> => {
  const head = [words[operation], twoLines(one)]
  if (difference === null) return [...head, "-", "-", "-", "no samples"]
  const [low, high] = difference.interval
  const span = low === high ? signed(low) : `${signed(low)} to ${signed(high)}`
  const verdict = difference.verdict === "no detectable difference" ? "no detectable\ndifference" : difference.verdict
  return [...head, signed(difference.ns), span, ratio(difference.ratio), verdict]
}

/**
 * One table for each strategy that others are compared with, preceded by its name.
 *
 * @returns titles and tables in turn
 */
export const pairedTables = (
  { comparisons }: PairedJson,
  words: { readonly [K in OperationName]: string }
): ReadonlyArray<{ readonly title: string; readonly table: string }> => {
  const groups = Map.groupBy(comparisons, ({ reference, against: { strategy, variant } }) => {
    const name = strategyName({ key: strategy, variant })
    return reference === "fastest" ? `the fastest, ${name}` : `the baseline, ${name}`
  })
  return [...groups].map(([reference, rows]) => ({
    title: `Compared with ${reference}: median differences of paired runs`,
    table: grid(
      ["operation", "strategy", "difference", "95 % interval", "ratio", "verdict"],
      [2, 3, 4],
      rows.map((row) => pairedRow(row, words))
    )
  }))
}
