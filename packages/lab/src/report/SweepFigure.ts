import * as Plot from "@observablehq/plot"
import { type Cell, type DataTable, tableOf } from "../Csv.ts"
import { duration } from "../Units.ts"
import type { Figure, Width } from "./Figure.ts"
import { html } from "./Html.ts"
import { AXIS, nsAxis } from "./PlotParts.ts"
import type { SweepPoint } from "./ReportInput.ts"

interface Sample {
  readonly name: string
  readonly operation: string
  readonly p50: number
  /** The point's other scalar values by their path. */
  readonly at: { readonly [path: string]: Cell }
}

const scalars = (value: unknown, prefix = ""): ReadonlyArray<readonly [string, Cell]> => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return []
  return Object.entries(value).flatMap(([key, inner]: [string, unknown]) => {
    if (typeof inner === "number" || typeof inner === "string" || typeof inner === "boolean") {
      return [[`${prefix}${key}`, inner] as const]
    }
    return scalars(inner, `${prefix}${key}.`)
  })
}

const record = (value: unknown): SweepPoint | null =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as SweepPoint) : null

/** Every median in a sweep, with the point at which it stands. Lines of another shape have none. */
export const samplesOf = (points: ReadonlyArray<SweepPoint>): ReadonlyArray<Sample> =>
  points.flatMap((point) => {
    const inner = record(point.result) ?? point
    const results = Array.isArray(inner.results) ? inner.results : []
    const { results: _results, timeline: _timeline, wall: _wall, result: _result, ...rest } = point
    const at = Object.fromEntries([
      ...scalars(rest),
      ...scalars(inner === point ? {} : (record(inner.parameters) ?? {}))
    ])
    return results.flatMap((one: unknown) => {
      const result = record(one)
      const p50 = record(result?.ns)?.p50
      if (result === null || typeof p50 !== "number") return []
      const variant = typeof result.variant === "string" ? `/${result.variant}` : ""
      return { name: `${result.strategy}${variant}`, operation: String(result.operation), p50, at }
    })
  })

/** Everything that the sweep found, one row for each median. */
export const sweepTable = (id: string, title: string, points: ReadonlyArray<SweepPoint>): DataTable =>
  tableOf(
    id,
    title,
    samplesOf(points).map(({ name, operation, p50, at }) => ({ strategy: name, operation, p50, ...at }))
  )

/** Numbers that differ between points and are no digests or times of the host: candidates for the axis. */
const axisOf = (samples: ReadonlyArray<Sample>): string | null => {
  const paths = [...new Set(samples.flatMap(({ at }) => Object.keys(at)))].filter(
    (path) => !/wall|digest|seed|shard|index/i.test(path)
  )
  const varying = paths.filter((path) => {
    const values = new Set(samples.map(({ at }) => at[path]))
    return values.size > 1 && [...values].every((value) => typeof value === "number")
  })
  return varying.length > 0 ? varying[0]! : null
}

const DASHES = ["none", "6 3", "2 3", "8 3 2 3", "12 4", "4 2", "1 3", "10 2 2 2 2 2", "14 3 4 3"]
const COLOURS = ["kvm", "user", "guest", "threads", "world"]

/** Medians against the parameter that a sweep varies: lines, told apart by dashes and by labels at their ends. */
export const sweepFigure = (id: string, points: ReadonlyArray<SweepPoint>): Figure | null => {
  const all = samplesOf(points)
  const operation = all.find((one) => one.operation === "run-vmpl-round-trip")?.operation ?? all[0]?.operation
  const samples = all.filter((one) => one.operation === operation)
  const axis = axisOf(samples)
  if (axis === null || operation === undefined) return null
  const data = samples
    .map(({ name, p50, at }) => ({ name, p50, x: Number(at[axis]) }))
    .filter(({ x }) => Number.isFinite(x))
    .toSorted((a, b) => a.x - b.x)
  const names = [...new Set(data.map(({ name }) => name))]
  const low = Math.min(...data.map(({ p50 }) => p50))
  const high = Math.max(...data.map(({ p50 }) => p50))
  const dash = (name: string) => DASHES[names.indexOf(name) % DASHES.length]!
  const stroke = (name: string) => `var(--${COLOURS[names.indexOf(name) % COLOURS.length]})`
  const isLog = low > 0 && high / low > 30
  const draw = (width: Width): Plot.PlotOptions => ({
    ...AXIS,
    marginLeft: 66,
    height: 320,
    x: { label: axis, labelArrow: "none", ticks: width === "wide" ? 8 : 4 },
    y: {
      ...nsAxis(isLog ? { type: "log" } : { domain: [0, high * 1.05] }, high, width),
      label: "median, virtual time",
      labelAnchor: "top"
    },
    marks: [
      Plot.gridY({ stroke: "var(--rule)", strokeOpacity: 1 }),
      ...names.map((name) =>
        Plot.lineY(
          data.filter((one) => one.name === name),
          { x: "x", y: "p50", stroke: stroke(name), strokeDasharray: dash(name), strokeWidth: 1.8, marker: "dot" }
        )
      )
    ]
  })
  return {
    id,
    title: `Median of ${operation} against ${axis}`,
    description: names
      .map((name) => {
        const own = data.filter((one) => one.name === name)
        return `${name}: from ${duration(own[0]!.p50)} to ${duration(own.at(-1)!.p50)}.`
      })
      .join(" "),
    draw,
    legend: html`<ul class="legend">${names.map(
      (name) =>
        html`<li><svg aria-hidden="true" focusable="false" width="34" height="12"><line x1="0" x2="34" y1="6" y2="6" stroke="${stroke(name)}" stroke-width="2" stroke-dasharray="${dash(name)}"/></svg> ${name}</li>`
    )}</ul>`,
    data: tableOf(
      id,
      `Median of ${operation} against ${axis}, virtual ns`,
      data.map(({ name, x, p50 }) => ({ strategy: name, [axis]: x, p50 }))
    )
  }
}
