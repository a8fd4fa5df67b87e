import type * as Plot from "@observablehq/plot"
import { duration } from "../Units.ts"
import { WIDTHS, type Width } from "./Figure.ts"

/** What all figures share: labels stand in rows of their own, so both sides are free. */
export const AXIS = { marginLeft: 14, marginRight: 14, marginTop: 6, marginBottom: 34 } as const

/** Height for so many rows, labels above each row included. */
export const rowLabels = (_width: Width, rows: number, height: number): { readonly height: number } => ({
  height: AXIS.marginTop + AXIS.marginBottom + rows * height
})

/** An axis of virtual time with few ticks, each with its unit. */
export const nsAxis = (scale: Plot.ScaleOptions, _high: number, width: Width): Plot.ScaleOptions => ({
  ...scale,
  label: "virtual time",
  labelArrow: "none",
  labelAnchor: "right",
  ticks: width === "wide" ? 7 : 4,
  tickFormat: (ns: number) => (ns === 0 ? "0" : duration(ns)),
  tickSize: 0
})

/** Whether a text of so many characters fits into a stretch of a scale, at 12 pixels. */
export const fits = (text: string, share: number, width: Width): boolean =>
  text.length * 6.4 + 6 < share * (WIDTHS[width] - AXIS.marginLeft - AXIS.marginRight)
