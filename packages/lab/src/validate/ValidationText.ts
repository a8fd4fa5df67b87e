import { grid } from "../Grid.ts"
import { wrap } from "../Wrap.ts"
import type { Validation, ValidationRow } from "./Validate.ts"

const signed = (percent: number): string => `${percent > 0 ? "+" : ""}${percent.toFixed(1)} %`

const value = (of: number, unit: ValidationRow["unit"]): string =>
  unit === "ns" ? `${Math.round(of)} ns` : `x${of.toFixed(3)}`

const published = ({ published: middle, low, high, unit }: ValidationRow): string =>
  low === null || high === null ? value(middle, unit) : `${value(middle, unit)}\n${low} to ${high}`

const worst = (percent: number | null): string => (percent === null ? "none" : `${percent.toFixed(1)} %`)

/** The rows as a table of at most 100 columns, what they are worth, and the sweeps. */
export const validationText = ({ rows, sweeps, sweepDeviationPercent, worst: errors }: Validation): string => {
  const table = grid(
    ["result and its source", "predicted", "published", "error", "use"],
    [1, 2, 3],
    rows.map((row) => [
      `${row.what}\n${row.sources.join(", ")}`,
      value(row.predicted, row.unit),
      published(row),
      signed(row.errorPercent),
      row.use
    ])
  )
  const notes = rows.flatMap(({ what, note }) => (note === null ? [] : [`Not comparable, ${what}: ${note}.`]))
  const clocks = new Set(rows.flatMap(({ clockMhz }) => clockMhz ?? []))
  const derived = [...clocks].map(
    (mhz) => `Rows of a machine at ${mhz} MHz are computed from the profile derived to that clock.`
  )
  const lengths = sweeps.filter(({ instruction }) => instruction === "RMPADJUST").map(({ pages }) => pages)
  const below = [
    `Largest error: in-sample ${worst(errors.inSample)}, out-of-sample ${worst(errors.outOfSample)}.`,
    "In-sample: the profile names that result as the source of a price, so that agreement is no evidence.",
    `PVALIDATE and RMPADJUST over ${lengths.join(", ")} pages: ${sweepDeviationPercent.toFixed(2)} % off a straight line.`,
    ...derived,
    ...notes,
    "Simulated, not measured."
  ]
  return [table, ...below.map((line) => wrap(line))].join("\n")
}
