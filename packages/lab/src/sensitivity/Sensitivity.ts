import type { Basis, PrimitiveName, Profile } from "@vmpl-lab/sim"
import type { Evaluate, Outcome } from "./Evaluate.ts"
import { type Knob, type KnobKind, knobsOf } from "./Knobs.ts"
import { withPrices } from "./Prices.ts"

/** Median latencies of one strategy with a knob at the two ends of its range, in virtual ns. */
export interface Effect {
  readonly strategy: string
  readonly low: number
  readonly high: number
}

/** How far one knob moves the result. */
export interface KnobEffect {
  readonly knob: string
  readonly kind: KnobKind
  readonly primitives: ReadonlyArray<PrimitiveName>
  readonly ns: number
  readonly low: number
  readonly high: number
  readonly basis: Basis
  readonly source: string
  /** Whether the operation takes any of the primitives under any of the strategies. */
  readonly taken: boolean
  /** Largest way that a strategy's median goes from one end to the other, nominal price included. */
  readonly swingNs: number
  readonly effects: ReadonlyArray<Effect>
}

/** Two strategies at nominal prices and how each knob moves what is between them: `a`'s median against `b`'s. */
export interface PairEffect {
  readonly a: string
  readonly b: string
  /** Null where `b` is free. */
  readonly ratio: number | null
  readonly differenceNs: number
  readonly knobs: ReadonlyArray<{
    readonly knob: string
    readonly ratioLow: number | null
    readonly ratioHigh: number | null
    readonly differenceLow: number
    readonly differenceHigh: number
  }>
}

/** With a knob at one end, a strategy overtakes another that is faster at nominal prices. */
export interface Reversal {
  readonly knob: string
  readonly end: "low" | "high"
  /** The knob's price there. */
  readonly ns: number
  readonly overtakes: string
  readonly overtaken: string
  readonly overtakesNs: number
  readonly overtakenNs: number
}

export interface Baseline {
  readonly strategy: string
  readonly ns: number
  readonly samples: number
}

export interface Sensitivity {
  readonly baseline: ReadonlyArray<Baseline>
  /** Widest swing first. */
  readonly knobs: ReadonlyArray<KnobEffect>
  /** Knobs that move no strategy's median. */
  readonly withoutEffect: ReadonlyArray<string>
  readonly pairs: ReadonlyArray<PairEffect>
  readonly reversals: ReadonlyArray<Reversal>
}

/** Done and total, in evaluations. */
export type Progress = readonly [done: number, total: number]

/** The way from the lowest to the highest of a knob's three medians. */
export const swing = ({ low, high }: Effect, base: number): number =>
  Math.max(low, high, base) - Math.min(low, high, base)

const ratioOf = (a: number, b: number): number | null => (b === 0 ? null : a / b)

/**
 * One knob at a time at the low and at the high end of its range, all others at their nominal price; `evaluate` is run
 * for each strategy. Yields its progress.
 */
export function* sensitivity(
  profile: Profile,
  strategies: ReadonlyArray<string>,
  evaluate: Evaluate
): Generator<Progress, Sensitivity, void> {
  const knobs = knobsOf(profile)
  const total = strategies.length * (1 + 2 * knobs.length)
  let done = 0
  const run = function* (strategy: string, prices: Knob["atLow"]): Generator<Progress, Outcome, void> {
    const evaluation = evaluate(strategy, withPrices(profile, prices))
    let step = evaluation.next()
    while (step.done !== true) {
      yield [done, total]
      step = evaluation.next()
    }
    done++
    yield [done, total]
    return step.value
  }

  const nominal: Array<Outcome> = []
  for (const strategy of strategies) nominal.push(yield* run(strategy, {}))
  const baseline = strategies.map((strategy, i) => ({ strategy, ns: nominal[i]!.ns, samples: nominal[i]!.samples }))
  const found: Array<KnobEffect> = []
  for (const knob of knobs) {
    const effects: Array<Effect> = []
    for (const [i, strategy] of strategies.entries()) {
      // An end that is the nominal price needs no run of its own.
      const low = knob.low === knob.ns ? nominal[i]! : yield* run(strategy, knob.atLow)
      const high = knob.high === knob.ns ? nominal[i]! : yield* run(strategy, knob.atHigh)
      effects.push({ strategy, low: low.ns, high: high.ns })
    }
    const { name, kind, primitives, ns, low, high, basis, source } = knob
    const taken = nominal.some((outcome) => primitives.some((primitive) => outcome.taken.has(primitive)))
    const swingNs = Math.max(0, ...effects.map((effect, i) => swing(effect, baseline[i]!.ns)))
    found.push({ knob: name, kind, primitives, ns, low, high, basis, source, taken, swingNs, effects })
  }
  const order = found.toSorted((a, b) => b.swingNs - a.swingNs)
  return {
    baseline,
    knobs: order,
    withoutEffect: order.filter(({ swingNs }) => swingNs === 0).map(({ knob }) => knob),
    pairs: pairsOf(baseline, order),
    reversals: reversalsOf(baseline, order)
  }
}

const pairsOf = (baseline: ReadonlyArray<Baseline>, knobs: ReadonlyArray<KnobEffect>): ReadonlyArray<PairEffect> =>
  baseline.flatMap((a, i) =>
    baseline.slice(i + 1).map((b, k) => {
      const j = i + 1 + k
      const moved = knobs.map(({ knob, effects }) => {
        const one = effects[i]!
        const other = effects[j]!
        return {
          knob,
          ratioLow: ratioOf(one.low, other.low),
          ratioHigh: ratioOf(one.high, other.high),
          differenceLow: one.low - other.low,
          differenceHigh: one.high - other.high
        }
      })
      return { a: a.strategy, b: b.strategy, ratio: ratioOf(a.ns, b.ns), differenceNs: a.ns - b.ns, knobs: moved }
    })
  )

const reversalsOf = (baseline: ReadonlyArray<Baseline>, knobs: ReadonlyArray<KnobEffect>): ReadonlyArray<Reversal> =>
  knobs.flatMap((knob) =>
    (["low", "high"] as const).flatMap((end) =>
      baseline.flatMap((slow, i) =>
        baseline.flatMap((fast, j) => {
          const overtakesNs = knob.effects[i]![end]
          const overtakenNs = knob.effects[j]![end]
          if (slow.ns <= fast.ns || overtakesNs >= overtakenNs) return []
          const { knob: name } = knob
          const who = { overtakes: slow.strategy, overtaken: fast.strategy, overtakesNs, overtakenNs }
          return [{ knob: name, end, ns: knob[end], ...who }]
        })
      )
    )
  )
