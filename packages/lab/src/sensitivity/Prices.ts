import { type Cost, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"

/** Other prices for some primitives, in virtual ns. */
export type Prices = { readonly [K in PrimitiveName]?: number }

/** A spin loop must let time pass, or the simulation would spin in it for ever. */
export const priceFloor = (name: PrimitiveName): number => (name === "guest_pause" ? 1 : 0)

const MEDIAN = 500

/** Knots with one at the median, where the integer interpolation between its neighbours puts it. */
const withMedian = (knots: NonNullable<Cost["quantiles"]>, ns: number): NonNullable<Cost["quantiles"]> => {
  const after = knots.findIndex(([permille]) => permille >= MEDIAN)
  return knots[after]![0] === MEDIAN ? knots : [...knots.slice(0, after), [MEDIAN, ns], ...knots.slice(after)]
}

/**
 * A cost with all its numbers mapped: median, range and the spread from one execution to the next. `map` must keep the
 * order of numbers.
 */
export const mapCost = (cost: Cost, map: (ns: number) => number): Cost => {
  const { quantiles } = cost
  const moved = { ...cost, ns: map(cost.ns), low: map(cost.low), high: map(cost.high) }
  if (quantiles === undefined) return moved
  return { ...moved, quantiles: withMedian(quantiles, cost.ns).map(([permille, ns]) => [permille, map(ns)] as const) }
}

/** A cost at another median: its spread moves in proportion, its range is widened where the median leaves it. */
const atPrice = (cost: Cost, ns: number): Cost => {
  const scale = (value: number): number => (cost.ns === 0 ? ns : Math.round((value * ns) / cost.ns))
  const { quantiles } = mapCost(cost, scale)
  const { low, high } = cost
  const moved = { ...cost, ns, low: Math.min(low, ns), high: Math.max(high, ns) }
  return quantiles === undefined ? moved : { ...moved, quantiles }
}

/** The profile with other medians; each sum is what its parts then add up to. */
export const withPrices = (profile: Profile, prices: Prices): Profile => {
  const primitives = Object.fromEntries(
    PRIMITIVES.map((name) => {
      const cost = profile.primitives[name]
      const ns = prices[name]
      return [name, ns === undefined || ns === cost.ns ? cost : atPrice(cost, ns)]
    })
  ) as Record<PrimitiveName, Cost>
  const sums = profile.sums.map((sum) => {
    const ns = sum.primitives.reduce((total, name) => total + primitives[name].ns, 0)
    if (ns === sum.ns) return sum
    return {
      ...sum,
      ns,
      ...(sum.low === undefined ? {} : { low: Math.min(sum.low, ns) }),
      ...(sum.high === undefined ? {} : { high: Math.max(sum.high, ns) })
    }
  })
  return { ...profile, primitives, sums }
}

/**
 * Splits a whole number in proportion to weights, largest remainders first, so that the parts add up to it exactly.
 * Without any weight the parts are as equal as can be.
 */
export const split = (total: number, weights: ReadonlyArray<number>): ReadonlyArray<number> => {
  const sum = weights.reduce((a, b) => a + b, 0)
  const exact = weights.map((weight) => (sum === 0 ? total / weights.length : (total * weight) / sum))
  const parts = exact.map(Math.floor)
  const rest = total - parts.reduce((a, b) => a + b, 0)
  const order = exact
    .map((value, i) => [value - Math.floor(value), i] as const)
    .sort((a, b) => b[0] - a[0] || a[1] - b[1])
  for (let k = 0; k < rest; k++) parts[order[k]![1]]! += 1
  return parts
}
