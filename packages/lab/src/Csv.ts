import { stringify } from "csv-stringify/sync"
import type { ComparisonJson } from "./Summary.ts"

/** A value of a table: null is an empty cell. */
export type Cell = string | number | boolean | null

/** A table as data: what a report shows and what a CSV file holds. */
export interface DataTable {
  /** File name without its ending: lower case, digits and dashes. */
  readonly name: string
  readonly title: string
  readonly columns: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<Cell>>
}

/** RFC 4180, with a header line and CR LF, as spreadsheets and statistics programs read it. */
export const csvOf = ({ columns, rows }: DataTable): string =>
  stringify(
    rows.map((row) => [...row]),
    { header: true, columns: [...columns], record_delimiter: "windows", cast: { boolean: String } }
  )

const isCell = (value: unknown): value is Cell =>
  value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean"

/** An object's values by their path (`ns.p50`); what is a list or empty has no cell. */
const flat = (value: object, prefix = ""): ReadonlyArray<readonly [path: string, value: Cell]> =>
  Object.entries(value).flatMap(([key, inner]: [string, unknown]) => {
    if (isCell(inner)) return [[`${prefix}${key}`, inner] as const]
    if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return []
    return flat(inner, `${prefix}${key}.`)
  })

/** Objects as one table: a column for each path that any of them has, in the order of first appearance. */
export const tableOf = (name: string, title: string, records: ReadonlyArray<object>): DataTable => {
  const flattened = records.map((record) => new Map(flat(record)))
  const columns = [...new Set(flattened.flatMap((record) => [...record.keys()]))]
  return { name, title, columns, rows: flattened.map((record) => columns.map((column) => record.get(column) ?? null)) }
}

/** One row for each strategy and operation, virtual nanoseconds, with what the run can be repeated by. */
export const resultTable = (
  json: Pick<ComparisonJson, "seed" | "commit" | "profile" | "scenario" | "results">
): DataTable => {
  const { seed, commit, profile, scenario } = json
  return tableOf(
    "results",
    "Results",
    json.results.map((result) => ({ ...result, seed, commit, profile, scenario }))
  )
}
