import * as Plot from "@observablehq/plot"
import { type DataTable, tableOf } from "../Csv.ts"
import { duration } from "../Units.ts"
import type { Figure, Width } from "./Figure.ts"
import { type Html, html } from "./Html.ts"
import { AXIS, nsAxis, rowLabels } from "./PlotParts.ts"
import { nameOf, type ReportResult } from "./ReportInput.ts"

interface Row {
  readonly name: string
  readonly ns: { readonly [K in "min" | "p50" | "p90" | "p99" | "max"]: number }
  readonly curve: ReadonlyArray<{ readonly name: string; readonly ns: number; readonly percent: number }>
}

/** Above this spread, a linear axis would squeeze the fast ones into a point. */
const LOG_FROM = 30

const rowsOf = (results: ReadonlyArray<ReportResult>): ReadonlyArray<Row> =>
  results.flatMap((result) => {
    const { min, p50, p90, p99, max } = result.ns
    if (min === null || p50 === null || p90 === null || p99 === null || max === null) return []
    const name = nameOf(result)
    const curve = (result.distribution ?? []).map((ns, percent) => ({ name, ns, percent }))
    return [{ name, ns: { min, p50, p90, p99, max }, curve }]
  })

const dataOf = (id: string, title: string, results: ReadonlyArray<ReportResult>): DataTable => {
  const records = results.map((result) => {
    const distribution = Object.fromEntries((result.distribution ?? []).map((ns, percent) => [`p${percent}`, ns]))
    const { min, p50, p90, p99, max, mean } = result.ns
    return { strategy: nameOf(result), samples: result.samples, min, p50, p90, p99, max, mean, ...distribution }
  })
  return tableOf(id, `${title}, virtual ns`, records)
}

const legend = (hasCurves: boolean): Html =>
  html`<p class="key">${
    hasCurves
      ? "Curve: share of samples that took no longer, from 0 to 100 %. "
      : "Thin line: from the fastest sample to the slowest; thick: from the median to p90. "
  }Bar: median, also at the right. Ring: p99.</p>`

/**
 * The latencies of one operation under every strategy: the cumulative distribution where a result has one, otherwise
 * its quantiles. Null when no strategy has a sample.
 */
export const latencyFigure = (id: string, title: string, results: ReadonlyArray<ReportResult>): Figure | null => {
  const rows = rowsOf(results)
  if (rows.length === 0) return null
  const low = Math.min(...rows.map(({ ns }) => ns.min))
  const high = Math.max(...rows.map(({ ns }) => ns.max))
  const isLog = low > 0 && high / low > LOG_FROM
  const curves = rows.flatMap(({ curve }) => curve)
  const points = rows.map(({ name, ns }) => ({ name, ...ns }))
  const sorted = rows.toSorted((a, b) => a.ns.p50 - b.ns.p50)
  const draw = (width: Width): Plot.PlotOptions => ({
    ...AXIS,
    ...rowLabels(width, rows.length, 60),
    x: nsAxis(isLog ? { type: "log", domain: [low * 0.8, high * 1.1] } : { domain: [0, high * 1.02] }, high, width),
    y: { axis: null, domain: [0, 140] },
    fy: { label: null, axis: null, domain: rows.map(({ name }) => name), padding: 0.15 },
    marks: [
      Plot.gridX({ stroke: "var(--rule)", strokeOpacity: 1 }),
      Plot.ruleY([0], { stroke: "var(--rule)" }),
      Plot.areaY(curves, {
        ...{ x: "ns", y1: () => 0, y2: "percent", fy: "name", curve: "step-before" },
        ...{ fill: "var(--kvm)", fillOpacity: 0.18 }
      }),
      Plot.lineY(curves, {
        ...{ x: "ns", y: "percent", fy: "name", curve: "step-before" },
        ...{ stroke: "var(--kvm)", strokeWidth: 1.5 }
      }),
      // Without a distribution: from the smallest to the largest, and thicker up to the ninetieth percentile.
      Plot.ruleY(
        points.filter((_, i) => rows[i]!.curve.length === 0),
        { x1: "min", x2: "max", y: () => 35, fy: "name", stroke: "var(--kvm)" }
      ),
      Plot.ruleY(
        points.filter((_, i) => rows[i]!.curve.length === 0),
        { x1: "p50", x2: "p90", y: () => 35, fy: "name", stroke: "var(--kvm)", strokeWidth: 7, strokeOpacity: 0.5 }
      ),
      Plot.ruleX(points, { x: "p50", fy: "name", y1: () => 5, y2: () => 65, stroke: "var(--ink)", strokeWidth: 2.5 }),
      Plot.dot(points, { x: "p99", fy: "name", y: () => 35, r: 3.5, stroke: "var(--ink)", fill: "var(--paper)" }),
      Plot.text(points, {
        ...{ fy: "name", text: ({ name }: { name: string }) => name, frameAnchor: "top-left", dy: 2 },
        ...{ fontWeight: 600, fill: "var(--ink)" }
      }),
      Plot.text(points, {
        ...{ fy: "name", text: ({ p50 }: { p50: number }) => duration(p50), frameAnchor: "top-right", dy: 2 },
        ...{ fill: "var(--ink)" }
      })
    ]
  })
  const fastest = sorted[0]!
  const slowest = sorted.at(-1)!
  return {
    id,
    title,
    description:
      `${rows.length} strategies${isLog ? " on a logarithmic scale" : ""}. ` +
      `Lowest median ${duration(fastest.ns.p50)} (${fastest.name}), highest ${duration(slowest.ns.p50)} (${slowest.name}).` +
      rows.map(({ name, ns }) => ` ${name}: median ${duration(ns.p50)}, p99 ${duration(ns.p99)}.`).join(""),
    draw,
    legend: legend(curves.length > 0),
    data: dataOf(id, title, results)
  }
}
