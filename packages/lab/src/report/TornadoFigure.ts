import * as Plot from "@observablehq/plot"
import { tableOf } from "../Csv.ts"
import { duration } from "../Units.ts"
import type { Figure, Width } from "./Figure.ts"
import { BASES, fillOf, layerLegend, layerOf } from "./Layers.ts"
import { AXIS, nsAxis } from "./PlotParts.ts"
import type { SensitivityResult } from "./ReportInput.ts"

/** Prices shown for each strategy: those that move its median most. */
const KNOBS = 8

/** How far each price moves one strategy's median, from the low end of what is known of it to the high end. */
export const tornadoFigure = (id: string, sensitivity: SensitivityResult, strategy: string): Figure | null => {
  const base = sensitivity.baseline.find((one) => one.strategy === strategy)?.ns
  if (base === undefined) return null
  const bars = sensitivity.knobs
    .flatMap(({ knob, basis, low, high, effects }) =>
      effects
        .filter((effect) => effect.strategy === strategy && effect.low !== effect.high)
        .map((effect) => ({ knob, basis, price: [low, high] as const, low: effect.low, high: effect.high }))
    )
    .toSorted((a, b) => Math.abs(b.high - b.low) - Math.abs(a.high - a.low))
  if (bars.length === 0) return null
  const shown = bars.slice(0, KNOBS)
  const ends = [base, ...shown.flatMap(({ low, high }) => [low, high])]
  const [left, right] = [Math.min(...ends), Math.max(...ends)]
  const margin = (right - left) * 0.05
  const draw = (width: Width): Plot.PlotOptions => ({
    ...AXIS,
    marginTop: 6,
    height: 40 + shown.length * 42,
    x: nsAxis({ domain: [left - margin, right + margin] }, right, width),
    y: { axis: null, domain: [0, 1] },
    fy: { label: null, axis: null, domain: shown.map(({ knob }) => knob) },
    color: { type: "identity" },
    marks: [
      Plot.gridX({ stroke: "var(--rule)", strokeOpacity: 1 }),
      Plot.rect(shown, {
        ...{ fy: "knob", y1: () => 0.1, y2: () => 0.5 },
        x1: ({ low, high }: (typeof shown)[number]) => Math.min(low, high),
        x2: ({ low, high }: (typeof shown)[number]) => Math.max(low, high),
        fill: ({ knob, basis }: (typeof shown)[number]) => fillOf(layerOf(knob), basis)
      }),
      Plot.ruleX([base], { stroke: "var(--ink)", strokeWidth: 1.5 }),
      Plot.text(shown, {
        ...{ fy: "knob", frameAnchor: "top-left", dy: 4, fill: "var(--ink)" },
        text: ({ knob, price: [low, high] }: (typeof shown)[number]) =>
          width === "wide" ? `${knob}, ${duration(low)} to ${duration(high)}` : knob
      })
    ]
  })
  return {
    id,
    title: `${strategy}: ${duration(base)} at nominal prices`,
    description:
      `Median of ${strategy} with one price at a time at the ends of its range; the line is ${duration(base)}. ` +
      shown.map(({ knob, low, high }) => `${knob}: ${duration(low)} to ${duration(high)}.`).join(" "),
    draw,
    legend: layerLegend(
      [],
      BASES.filter((basis) => shown.some((bar) => bar.basis === basis))
    ),
    data: tableOf(
      id,
      `${strategy}: median at the ends of each price, virtual ns`,
      bars.map(({ knob, basis, price, low, high }) => ({
        ...{ price: knob, basis, lowPriceNs: price[0], highPriceNs: price[1], medianAtLow: low, medianAtHigh: high }
      }))
    )
  }
}
