import * as Plot from "@observablehq/plot"
import { tableOf } from "../Csv.ts"
import { duration } from "../Units.ts"
import type { Figure, Width } from "./Figure.ts"
import type { Layer } from "./Layers.ts"
import { AXIS, fits, nsAxis } from "./PlotParts.ts"
import { nameOf, type ReportTimeline } from "./ReportInput.ts"

type Step = ReportTimeline["steps"][number]

/** Row of a step: a guest's row for each VMPL, the others for each core. */
const rowOf = ({ lane, vmpl, core }: Step): string => {
  if (lane === "guest") return `guest VMPL${vmpl ?? "?"}`
  return lane === "hardware" ? `core ${core}: processor` : `core ${core}: ${lane}`
}

const LAYER: { readonly [K in Step["lane"]]: Layer } = { guest: "guest", hardware: "world", KVM: "kvm", VMM: "user" }

const layerOfStep = ({ lane, label }: Step): Layer => (/^(?:thread_|core_wait)/.test(label) ? "threads" : LAYER[lane])

/** Rows from the inside out: the guest's levels, then core by core processor, KVM, VMM. */
const rowsOf = (steps: ReadonlyArray<Step>): ReadonlyArray<string> => {
  const used = new Set(steps.map(rowOf))
  const levels = [3, 2, 1, 0].map((vmpl) => `guest VMPL${vmpl}`)
  const cores = [...new Set(steps.map(({ core }) => core))]
  const hosts = cores.flatMap((core) => ["processor", "KVM", "VMM"].map((who) => `core ${core}: ${who}`))
  return [...levels, ...hosts].filter((row) => used.has(row))
}

/** `vmexit_sev_snp` as a label inside a bar: words, without the suffix that all of them have. */
const words = (label: string): string => label.replace(/_sev_snp$/, "").replaceAll("_", " ")

/** The thread's name and row at a moment: where an arrow begins or ends. */
const rowAt = (steps: ReadonlyArray<Step>, thread: string, atNs: number, after: boolean): string | null => {
  const own = steps.filter((step) => step.thread === thread && step.ns > 0)
  const step = after ? own.find((one) => one.atNs >= atNs) : own.findLast((one) => one.atNs + one.ns <= atNs)
  return step === undefined ? null : rowOf(step)
}

/**
 * One call with the median latency as a sequence in time, on a scale of its own: on a common one the labels of the fast
 * ones would not fit, and the breakdown compares the lengths already.
 */
export const sequenceFigure = (id: string, timeline: ReportTimeline): Figure => {
  const { steps, handOffs } = timeline
  const spanNs = Math.max(1, timeline.elapsedNs)
  const rows = rowsOf(steps)
  const bars = steps
    .filter(({ ns }) => ns > 0)
    .map((step) => ({ ...step, row: rowOf(step), end: step.atNs + step.ns, layer: layerOfStep(step) }))
  const arrivals = steps.filter(({ lane, ns }) => lane === "guest" && ns === 0).map((s) => ({ ...s, row: rowOf(s) }))
  const path = steps.filter(({ onPath, ns, lane }) => onPath && (ns > 0 || lane === "guest"))
  // The path goes from row to row where one step ends and the next begins; hand-offs have arrows instead.
  const turns = path.slice(1).flatMap((step, i) => {
    const before = path[i]!
    return before.thread === step.thread ? { at: step.atNs, from: rowOf(before), to: rowOf(step) } : []
  })
  const arrows = handOffs.flatMap(({ fromThread, toThread, atNs }) => {
    const from = rowAt(steps, fromThread, atNs, false)
    const to = rowAt(steps, toThread, atNs, true)
    return from === null || to === null || from === to ? [] : { at: atNs, from, to }
  })
  const name = nameOf(timeline)
  const draw = (width: Width): Plot.PlotOptions => ({
    ...AXIS,
    marginTop: 6,
    marginLeft: 124,
    height: 40 + rows.length * 24,
    x: nsAxis({ domain: [0, spanNs * 1.01] }, spanNs, width),
    y: { label: null, domain: rows, tickSize: 0, padding: 0.18 },
    color: { type: "identity" },
    marks: [
      Plot.gridX({ stroke: "var(--rule)", strokeOpacity: 1 }),
      Plot.ruleY(rows, { y: (row: string) => row, stroke: "var(--rule)" }),
      Plot.barX(bars, {
        ...{ x1: "atNs", x2: "end", y: "row", insetRight: 0.5 },
        fill: ({ layer }: (typeof bars)[number]) => `var(--${layer})`,
        fillOpacity: ({ onPath }: (typeof bars)[number]) => (onPath ? 1 : 0.35),
        title: ({ label, ns, thread }: (typeof bars)[number]) => `${label}: ${duration(ns)} on thread ${thread}`
      }),
      Plot.link(turns, { x1: "at", x2: "at", y1: "from", y2: "to", stroke: "var(--ink)", strokeOpacity: 0.55 }),
      Plot.arrow(arrows, {
        ...{ x1: "at", x2: "at", y1: "from", y2: "to", bend: 0, inset: 3, headLength: 7 },
        ...{ stroke: "var(--threads)", strokeWidth: 2 }
      }),
      Plot.dot(arrivals, { x: "atNs", y: "row", r: 4, fill: "var(--guest)", stroke: "var(--paper)" }),
      Plot.text(
        bars.filter(({ label, ns, onPath }) => onPath && fits(words(label), (ns / spanNs) * 0.84, width)),
        {
          ...{ x: (bar: (typeof bars)[number]) => (bar.atNs + bar.end) / 2, y: "row" },
          ...{ text: ({ label }: (typeof bars)[number]) => words(label), fill: "var(--on-bar)", fontSize: 11 }
        }
      )
    ]
  })
  return {
    id,
    title: `${name}: ${duration(timeline.ns)}`,
    description:
      `One call with the median latency of ${duration(timeline.ns)}, in ${path.length} steps. ` +
      path
        .filter(({ ns }) => ns > 0)
        .map((step) => `${rowOf(step)}: ${words(step.label)}, ${duration(step.ns)}.`)
        .join(" "),
    draw,
    data: tableOf(id, `${name}: steps of one call, virtual ns`, steps)
  }
}
