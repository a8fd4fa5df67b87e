import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  CORE_WAIT,
  COUNTER,
  CostTable,
  ModelFault,
  PRIMITIVE,
  PRIMITIVES,
  quantileTable,
  RandomStream,
  Span
} from "../src/index.ts"
import { profileOf } from "./support.ts"

const SPREAD = [
  [0, 100],
  [500, 200],
  [1000, 1200]
] as const

const draws = (table: CostTable, primitive: number, count: number): ReadonlyArray<number> =>
  Array.from({ length: count }, () => table.sample(primitive))

describe("a quantile table", () => {
  it("interpolates linearly between its knots and meets each of them", () => {
    const table = quantileTable(SPREAD)
    expect(table).toHaveLength(1001)
    expect([0, 5, 250, 499, 500, 501, 750, 999, 1000].map((permille) => table[permille])).toEqual([
      100, 101, 150, 199, 200, 202, 700, 1198, 1200
    ])
  })

  it("rounds towards the lower value: integers only", () => {
    const table = quantileTable([
      [0, 0],
      [1000, 999]
    ])
    expect([1, 2, 999, 1000].map((permille) => table[permille])).toEqual([0, 1, 998, 999])
  })

  it("never falls, and never leaves the range of its knots", () => {
    const knots = fc
      .record({
        inner: fc.uniqueArray(fc.integer({ min: 1, max: 999 }), { maxLength: 5 }),
        ns: fc.array(fc.nat(1e6), { minLength: 7, maxLength: 7 })
      })
      .map(({ inner, ns }) => {
        const permille = [0, ...inner.sort((a, b) => a - b), 1000]
        const sorted = ns.sort((a, b) => a - b)
        return permille.map((p, index) => [p, sorted[index]!] as const)
      })
    fc.assert(
      fc.property(knots, (list) => {
        const table = quantileTable(list)
        for (const [permille, ns] of list) expect(table[permille]).toBe(ns)
        for (let p = 1; p <= 1000; p++) expect(table[p]! >= table[p - 1]! && Number.isInteger(table[p])).toBe(true)
      }),
      { seed: 20260822, numRuns: 100 }
    )
  })
})

describe("a cost table", () => {
  it("charges a constant where the profile gives no spread", () => {
    const table = new CostTable(profileOf({ ioctl: 42 }), 1)
    expect(new Set(draws(table, PRIMITIVE.ioctl, 100))).toEqual(new Set([42]))
    expect(table.sample(PRIMITIVE.ipi_kick)).toBe(0)
  })

  it("spreads as the quantiles say", () => {
    const table = new CostTable(profileOf({ ioctl: SPREAD }), 1)
    const sorted = [...draws(table, PRIMITIVE.ioctl, 20_000)].sort((a, b) => a - b)
    expect([sorted[0], sorted.at(-1)]).toEqual([100, 1200])
    expect(Math.abs(sorted[5_000]! - 150)).toBeLessThan(5)
    expect(Math.abs(sorted[10_000]! - 200)).toBeLessThan(20)
    expect(Math.abs(sorted[15_000]! - 700)).toBeLessThan(30)
  })

  it("gives equal sequences for equal seeds and other ones for other seeds", () => {
    const sequence = (seed: number) => draws(new CostTable(profileOf({ ioctl: SPREAD }), seed), PRIMITIVE.ioctl, 50)
    expect(sequence(7)).toEqual(sequence(7))
    const seeds = [0, 1, 2, 3, 7, 2 ** 31, 2 ** 32, 2 ** 32 + 7, Number.MAX_SAFE_INTEGER]
    expect(new Set(seeds.map((seed) => sequence(seed).join())).size).toBe(seeds.length)
  })

  it("gives each primitive a stream of its own: a draw of one does not move another", () => {
    const prices = profileOf({ ioctl: SPREAD, ipi_kick: SPREAD })
    const alone = draws(new CostTable(prices, 3), PRIMITIVE.ioctl, 50)
    const table = new CostTable(prices, 3)
    const kicks: Array<number> = []
    const mixed = Array.from({ length: 50 }, (_, i) => {
      for (let k = 0; k <= i % 3; k++) kicks.push(table.sample(PRIMITIVE.ipi_kick))
      return table.sample(PRIMITIVE.ioctl)
    })
    expect(mixed).toEqual(alone)
    expect(kicks.slice(0, 50)).not.toEqual(alone)
  })

  it.each([-1, 0.5, Number.NaN])("refuses a price of %d ns", (ns) => {
    expect(() => new CostTable(profileOf({ ioctl: ns }), 1)).toThrow(ModelFault)
  })
})

describe("a random stream", () => {
  it("gives the same integers with every version of its library", () => {
    const stream = new RandomStream(1, "cost:ioctl")
    expect(Array.from({ length: 8 }, () => stream.int(0, 1000))).toEqual([47, 16, 944, 803, 515, 77, 415, 48])
  })

  it("depends on the name and on both halves of the seed", () => {
    const first = (seed: number, name: string) => {
      const stream = new RandomStream(seed, name)
      return Array.from({ length: 4 }, () => stream.int(0, 2 ** 31)).join()
    }
    const names = ["a", "b", "ab", "ba", ""]
    const seeds = [0, 1, 2 ** 31, 2 ** 32, 2 ** 33, 2 ** 52]
    const all = names.flatMap((name) => seeds.map((seed) => first(seed, name)))
    expect(new Set(all).size).toBe(all.length)
  })

  it("stays inside its bounds, both included", () => {
    const stream = new RandomStream(5, "bounds")
    const seen = new Set(Array.from({ length: 500 }, () => stream.int(3, 6)))
    expect([...seen].sort()).toEqual([3, 4, 5, 6])
  })
})

describe("a span", () => {
  it("adds up what was charged, waiting for a core included, and forgets it at its next start", () => {
    const span = new Span()
    span.start(1000)
    span.add(PRIMITIVE.ioctl, 40)
    span.add(PRIMITIVE.ioctl, 2)
    span.add(CORE_WAIT, 8)
    span.counters[COUNTER.KICKS]! += 1
    expect([span.begin, span.total(), span.ns[PRIMITIVE.ioctl], span.count[PRIMITIVE.ioctl]]).toEqual([1000, 50, 42, 2])
    expect([CORE_WAIT, span.ns.length]).toEqual([PRIMITIVES.length, PRIMITIVES.length + 1])
    span.start(7)
    expect([span.begin, span.total()]).toEqual([7, 0])
    expect([...span.count, ...span.counters].every((value) => value === 0)).toBe(true)
  })

  it("is what plain sums are, over any charges and starts", () => {
    const step = fc.record({
      primitive: fc.integer({ min: 0, max: CORE_WAIT }),
      ns: fc.nat(1000),
      starts: fc.boolean()
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const span = new Span()
        const ns = new Array<number>(CORE_WAIT + 1).fill(0)
        const count = new Array<number>(CORE_WAIT + 1).fill(0)
        for (const { primitive, ns: charge, starts } of steps) {
          if (starts) {
            span.start(5)
            ns.fill(0)
            count.fill(0)
          }
          span.add(primitive, charge)
          ns[primitive]! += charge
          count[primitive]! += 1
        }
        expect([...span.ns]).toEqual(ns)
        expect([...span.count]).toEqual(count)
        expect(span.total()).toBe(ns.reduce((sum, one) => sum + one, 0))
        const charged = [...span.charged.subarray(0, span.kinds)].sort((a, b) => a - b)
        expect(charged).toEqual(count.flatMap((times, primitive) => (times > 0 ? [primitive] : [])))
      })
    )
  })
})

describe("a step that is not always taken", () => {
  const table = (permille: number) => {
    const profile = profileOf({ srcu_grace_period: 5 })
    const { srcu_grace_period } = profile.primitives
    const probability = { permille, low: 0, high: 1_000 }
    const primitives = { ...profile.primitives, srcu_grace_period: { ...srcu_grace_period, probability } }
    return new CostTable({ ...profile, primitives }, 1)
  }
  const taken = (costs: CostTable, primitive: number): number =>
    Array.from({ length: 10_000 }, () => costs.occurs(primitive)).filter(Boolean).length

  it("is taken as often as its probability says, and always without one", () => {
    expect(taken(table(0), PRIMITIVE.srcu_grace_period)).toBe(0)
    expect(taken(table(1_000), PRIMITIVE.srcu_grace_period)).toBe(10_000)
    expect(Math.abs(taken(table(100), PRIMITIVE.srcu_grace_period) - 1_000)).toBeLessThan(100)
    expect(taken(table(0), PRIMITIVE.create_vm_tail)).toBe(10_000)
  })
})
