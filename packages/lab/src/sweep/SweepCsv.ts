import { csvOf, tableOf } from "../Csv.ts"
import { forEachLine, type LineAt, type PointLine } from "./ResultsFile.ts"

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
      records.push({ index, ...Object.fromEntries(values), ...rest, interval: ends, id, commit, version })
    }
  })
  return csvOf(tableOf("sweep", "Sweep", records))
}
