import { type Basis, type CostSum, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import { type Prices, priceFloor, split } from "./Prices.ts"

/** How a knob moves prices. */
export type KnobKind =
  /** One primitive, alone. */
  | "primitive"
  /** One part of a sum: the other parts give way, so that the sum stays. */
  | "part of a sum"
  /** All parts of a sum together, in proportion. */
  | "sum"

/** Something of a profile that is known only within a range. Times in virtual ns. */
export interface Knob {
  readonly name: string
  readonly kind: KnobKind
  readonly primitives: ReadonlyArray<PrimitiveName>
  readonly ns: number
  /** Ends of the range as far as the knob can go. */
  readonly low: number
  readonly high: number
  readonly basis: Basis
  readonly source: string
  readonly atLow: Prices
  readonly atHigh: Prices
}

/** The name of a set of primitives, as breakdowns have it. */
export const setName = (primitives: ReadonlyArray<PrimitiveName>): string => primitives.join(" + ")

const primitiveKnob = (profile: Profile, name: PrimitiveName): Knob => {
  const { ns, high, basis, source, ...cost } = profile.primitives[name]
  const low = Math.max(cost.low, priceFloor(name))
  const ends = { atLow: { [name]: low }, atHigh: { [name]: high } }
  return { name, kind: "primitive", primitives: [name], ns, low, high, basis, source, ...ends }
}

/**
 * One part of a sum at an end of its range. The others make up for it in proportion to the room that they have in
 * their own ranges; where that is not enough, the part goes only as far as they can follow.
 */
const partAt = (profile: Profile, sum: CostSum, part: PrimitiveName, end: "low" | "high"): Prices => {
  const others = sum.primitives.filter((name) => name !== part)
  const { primitives } = profile
  const rooms = others.map((name) => {
    const { ns, low, high } = primitives[name]
    return end === "low" ? high - ns : ns - low
  })
  const wanted = Math.abs(primitives[part][end] - primitives[part].ns)
  const moved = Math.min(
    wanted,
    rooms.reduce((a, b) => a + b, 0)
  )
  const shares = split(moved, rooms)
  const sign = end === "low" ? -1 : 1
  const given = others.map((name, i) => [name, primitives[name].ns - sign * shares[i]!] as const)
  return { ...Object.fromEntries(given), [part]: primitives[part].ns + sign * moved }
}

const partKnob = (profile: Profile, sum: CostSum, name: PrimitiveName): Knob => {
  const { ns, basis, source } = profile.primitives[name]
  const atLow = partAt(profile, sum, name, "low")
  const atHigh = partAt(profile, sum, name, "high")
  const ends = { low: atLow[name]!, high: atHigh[name]!, atLow, atHigh }
  return { name, kind: "part of a sum", primitives: [name], ns, basis, source, ...ends }
}

/** Primitives at a total, each with its share of what they cost now. */
export const pricesAt = (profile: Profile, names: ReadonlyArray<PrimitiveName>, total: number): Prices => {
  const weights = names.map((name) => profile.primitives[name].ns)
  const parts = split(total, weights)
  return Object.fromEntries(names.map((name, i) => [name, Math.max(parts[i]!, priceFloor(name))]))
}

const sumKnob = (profile: Profile, sum: CostSum): Knob => {
  const { primitives, ns, basis, source } = sum
  const low = sum.low ?? ns
  const high = sum.high ?? ns
  const ends = { atLow: pricesAt(profile, primitives, low), atHigh: pricesAt(profile, primitives, high) }
  return { name: setName(primitives), kind: "sum", primitives, ns, low, high, basis, source, ...ends }
}

/** Everything that can be moved in a profile: each sum, each part of one, each other primitive. */
export const knobsOf = (profile: Profile): ReadonlyArray<Knob> => {
  const sums = profile.sums.map((sum) => sumKnob(profile, sum))
  const single = PRIMITIVES.map((name) => {
    const sum = profile.sums.find(({ primitives }) => primitives.includes(name))
    return sum === undefined ? primitiveKnob(profile, name) : partKnob(profile, sum, name)
  })
  return [...sums, ...single]
}
