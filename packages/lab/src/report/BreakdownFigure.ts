import * as Plot from "@observablehq/plot"
import { tableOf } from "../Csv.ts"
import { duration, percent } from "../Units.ts"
import type { Figure, Width } from "./Figure.ts"
import { BASES, fillOf, LAYERS, layerLegend, layerOf } from "./Layers.ts"
import { AXIS, nsAxis, rowLabels } from "./PlotParts.ts"
import { nameOf, type ReportResult } from "./ReportInput.ts"

/** Segments of one bar, from layer to layer and within one the longest first. */
const segmentsOf = (result: ReportResult) => {
  let at = 0
  return result.breakdown
    .map((row) => ({ ...row, layer: layerOf(row.primitive) }))
    .toSorted((a, b) => LAYERS.indexOf(a.layer) - LAYERS.indexOf(b.layer) || b.ns - a.ns)
    .map((row) => {
      const begin = at
      at += row.ns
      return { ...row, name: nameOf(result), begin, end: at }
    })
}

/** Where the mean latency of one operation goes, primitive by primitive. Null when there is nothing to show. */
export const breakdownFigure = (id: string, title: string, results: ReadonlyArray<ReportResult>): Figure | null => {
  const segments = results.flatMap(segmentsOf)
  const names = results.filter(({ breakdown }) => breakdown.length > 0).map(nameOf)
  if (segments.length === 0) return null
  const high = Math.max(...segments.map(({ end }) => end))
  const labels = results.flatMap((result) =>
    result.breakdown.length === 0
      ? []
      : { name: nameOf(result), mean: duration(result.ns.mean), assumed: percent(result.assumedShare) }
  )
  const draw = (width: Width): Plot.PlotOptions => ({
    ...AXIS,
    ...rowLabels(width, names.length, 44),
    x: nsAxis({ domain: [0, high * 1.02] }, high, width),
    y: { axis: null },
    fy: { label: null, axis: null, domain: names, padding: 0.1 },
    marks: [
      Plot.gridX({ stroke: "var(--rule)", strokeOpacity: 1 }),
      Plot.barX(segments, {
        ...{ x1: "begin", x2: "end", fy: "name", insetTop: 17, insetRight: 1 },
        fill: ({ layer, basis }: (typeof segments)[number]) => fillOf(layer, basis),
        title: ({ primitive, ns, basis, source }: (typeof segments)[number]) =>
          `${primitive}: ${duration(ns)}, ${basis} (${source})`
      }),
      Plot.text(labels, {
        ...{ fy: "name", text: "name", frameAnchor: "top-left", dy: 2, fontWeight: 600, fill: "var(--ink)" }
      }),
      Plot.text(labels, {
        ...{ fy: "name", frameAnchor: "top-right", dy: 2, fill: "var(--ink)" },
        text: ({ mean, assumed }: (typeof labels)[number]) => (width === "wide" ? `${mean}, ${assumed} assumed` : mean)
      })
    ],
    color: { type: "identity" }
  })
  const used = LAYERS.filter((layer) => segments.some((segment) => segment.layer === layer))
  const bases = BASES.filter((basis) => segments.some((segment) => segment.basis === basis))
  return {
    id,
    title,
    description: labels.map(({ name, mean, assumed }) => `${name}: mean ${mean}, ${assumed} of it assumed.`).join(" "),
    draw,
    legend: layerLegend(used, bases),
    data: tableOf(
      id,
      `${title}, virtual ns`,
      results.flatMap((result) =>
        result.breakdown.map(({ primitive, ns, basis, source }) => ({
          strategy: nameOf(result),
          primitive,
          ns,
          share: result.ns.mean === null || result.ns.mean === 0 ? null : ns / result.ns.mean,
          basis,
          source
        }))
      )
    )
  }
}
