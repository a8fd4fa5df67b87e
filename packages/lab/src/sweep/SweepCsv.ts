import { csvOf, tableOf } from "../Csv.ts"
import type { PointStrategy } from "./Point.ts"
import { forEachLine, type LineAt, type PointLine } from "./ResultsFile.ts"

/**
 * What a point tells of a strategy as a whole, which all rows of the strategy repeat: host, boot, accepted memory, and
 * interrupts by source and level.
 */
const wholeOf = ({ strategies, interrupts }: PointLine, { strategy, variant }: StrategyName): object => {
  const isOwn = (one: StrategyName): boolean => one.strategy === strategy && one.variant === variant
  const { host, boot, acceptance, hostObjects, launchNs } = strategies.find(isOwn)!
  const { bytes: _b, ...spent } = host
  const sources = (interrupts?.find(isOwn)?.sources ?? []).map(({ source, vmpl, ...entry }) => [
    `${source}.vmpl${vmpl}`,
    entry
  ])
  return {
    hostObjects,
    host: spent,
    boot: { allUpNs: boot.allUpNs, launchNs },
    ...(acceptance === null ? {} : { acceptance }),
    ...(sources.length === 0 ? {} : { interrupts: Object.fromEntries(sources) })
  }
}

type StrategyName = Pick<PointStrategy, "strategy" | "variant">

/** A results file as CSV: one row for each point, strategy and operation. */
export const sweepCsv = (lines: ReadonlyArray<LineAt>): string => {
  const records: Array<object> = []
  forEachLine(lines, (content) => {
    const line: PointLine = JSON.parse(content.toString("utf8"))
    const { index, id, parameters, commit, version, results } = line
    for (const result of results) {
      const { interval, ...rest } = result
      const ends = Object.fromEntries(
        (["p50", "p90", "p99"] as const).flatMap((p) => [
          [`${p}.low`, interval?.[p][0] ?? null],
          [`${p}.high`, interval?.[p][1] ?? null]
        ])
      )
      // A value that is a list or an object is one cell, as JSON.
      const values = Object.entries(parameters).map(([key, value]) => [
        key,
        typeof value === "object" && value !== null ? JSON.stringify(value) : value
      ])
      const whole = wholeOf(line, result)
      records.push({ index, ...Object.fromEntries(values), ...rest, interval: ends, ...whole, id, commit, version })
    }
  })
  return csvOf(tableOf("sweep", "Sweep", records))
}
