import { type Cost, type CostSum, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import type { MeasuredPrimitive } from "./Primitives.ts"

/** What a measured profile is made from. */
export interface ProfileInput {
  readonly name: string
  /** The machine in one line, its backend named. */
  readonly machine: string
  /** Profile from which everything else is inherited. */
  readonly base: Profile
  readonly measured: ReadonlyArray<MeasuredPrimitive>
}

const sourceOf = ({ figure }: MeasuredPrimitive): string =>
  `live measure: ${figure.cases.join(", ")}; ${figure.samples} samples${figure.noisy === null ? "" : `; noisy: ${figure.noisy}`}`

const whole = (ns: number): number => Math.round(ns)

/** A sum's parts: in the base profile's proportions, or equal ones; they add up to the sum exactly. */
const partsOf = (sum: number, names: ReadonlyArray<PrimitiveName>, base: Profile): ReadonlyArray<number> => {
  const weights = names.map((name) => base.primitives[name].ns)
  const total = weights.reduce((a, b) => a + b, 0)
  const parts = weights.map((weight) => Math.floor(total === 0 ? sum / names.length : (sum * weight) / total))
  parts[0]! += sum - parts.reduce((a, b) => a + b, 0)
  return parts
}

const single = (one: MeasuredPrimitive): Cost => ({
  ns: whole(one.figure.ns),
  low: whole(Math.min(one.figure.low, one.figure.ns)),
  high: whole(Math.max(one.figure.high, one.figure.ns)),
  basis: "measured",
  source: sourceOf(one),
  note: one.note
})

/**
 * The profile of the machine that was measured: measured primitives with basis `measured`, of which several are known
 * as a sum only; the rest as the base profile has it, and marked as it marks it. Low and high of a measured primitive
 * are the range of its rounds.
 */
export const measuredProfile = ({ name, machine, base, measured }: ProfileInput): Profile => {
  const primitives = new Map<PrimitiveName, Cost>()
  const sums: Array<CostSum> = []
  for (const one of measured) {
    if (one.primitives.length === 1) {
      primitives.set(one.primitives[0]!, single(one))
      continue
    }
    const ns = whole(one.figure.ns)
    const source = sourceOf(one)
    sums.push({ primitives: one.primitives, ns, basis: "measured", source })
    for (const [i, part] of partsOf(ns, one.primitives, base).entries()) {
      primitives.set(one.primitives[i]!, {
        ns: part,
        low: 0,
        high: ns,
        basis: "assumed",
        source: "none",
        note: `Share of a measured sum (${one.primitives.join(" + ")}); the split is ${base.name}'s.`
      })
    }
  }
  const inherited = (primitive: PrimitiveName): Cost => {
    const cost = base.primitives[primitive]
    return { ...cost, note: `Inherited from ${base.name}. ${cost.note ?? ""}`.trim() }
  }
  const known = new Set(primitives.keys())
  return {
    name,
    machine,
    primitives: Object.fromEntries(
      PRIMITIVES.map((primitive) => [primitive, primitives.get(primitive) ?? inherited(primitive)])
    ) as Profile["primitives"],
    sums: [...sums, ...base.sums.filter((sum) => !sum.primitives.some((primitive) => known.has(primitive)))]
  }
}
