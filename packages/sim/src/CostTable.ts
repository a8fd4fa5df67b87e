import { assert } from "./ModelFault.ts"
import { type Cost, PRIMITIVES, type Profile } from "./Primitive.ts"
import { RandomStream } from "./Random.ts"

const PERMILLE_STEPS = 1000

/**
 * A quantile function as 1001 integers, one per permille, interpolated between the knots in integer arithmetic:
 * the same samples on every machine.
 */
export const quantileTable = (knots: NonNullable<Cost["quantiles"]>): Float64Array => {
  const table = new Float64Array(PERMILLE_STEPS + 1)
  for (let k = 0; k + 1 < knots.length; k++) {
    const [p0, ns0] = knots[k]!
    const [p1, ns1] = knots[k + 1]!
    for (let p = p0; p <= p1; p++) table[p] = ns0 + Math.floor(((ns1 - ns0) * (p - p0)) / (p1 - p0))
  }
  return table
}

/** Tables are made once: every boot charges the prices of the same few profiles. */
const tables = new WeakMap<NonNullable<Cost["quantiles"]>, Float64Array>()

const tableOf = (knots: NonNullable<Cost["quantiles"]>): Float64Array => {
  let table = tables.get(knots)
  if (table === undefined) {
    table = quantileTable(knots)
    tables.set(knots, table)
  }
  return table
}

/** Prices of a profile, ready to be charged: a constant, or a draw from the primitive's own random stream. */
export class CostTable {
  readonly #nominal: Float64Array
  readonly #spread: ReadonlyArray<Float64Array | null>
  /** Streams of those that draw: a price with a spread, a step that is not always taken. */
  readonly #streams: ReadonlyArray<RandomStream | null>
  readonly #permille: Float64Array
  readonly #chances: ReadonlyArray<RandomStream | null>

  /** @param run which run of the seed this is: each draws from streams of its own */
  constructor(profile: Profile, seed: number, run = 0) {
    const costs = PRIMITIVES.map((name) => profile.primitives[name])
    this.#nominal = Float64Array.from(costs, (cost) => cost.ns)
    this.#spread = costs.map((cost) => (cost.quantiles === undefined ? null : tableOf(cost.quantiles)))
    const stream = (component: string): RandomStream =>
      new RandomStream(seed, run === 0 ? component : `run:${run}/${component}`)
    this.#streams = PRIMITIVES.map((name, i) => (this.#spread[i] === null ? null : stream(`cost:${name}`)))
    this.#permille = Float64Array.from(costs, (cost) => cost.probability?.permille ?? PERMILLE_STEPS)
    this.#chances = PRIMITIVES.map((name, i) => (costs[i]!.probability === undefined ? null : stream(`chance:${name}`)))
    for (const cost of costs) assert(Number.isInteger(cost.ns) && cost.ns >= 0, "a cost is a natural number of ns")
  }

  /** Virtual nanoseconds of one execution of a primitive (index of PRIMITIVES). */
  sample(primitive: number): number {
    const spread = this.#spread[primitive]
    if (spread === null || spread === undefined) return this.#nominal[primitive]!
    return spread[this.#streams[primitive]!.int(0, PERMILLE_STEPS)]!
  }

  /** Whether a step that is not taken on every occasion is taken on this one: a draw from a stream of its own. */
  occurs(primitive: number): boolean {
    const chances = this.#chances[primitive]
    return chances === null || chances!.int(1, PERMILLE_STEPS) <= this.#permille[primitive]!
  }
}
