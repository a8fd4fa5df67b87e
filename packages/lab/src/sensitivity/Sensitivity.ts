import type { Basis, PrimitiveName, Profile } from "@vmpl-lab/sim"
import { nearestRank } from "../statistics/Quantile.ts"
import type { Evaluate, Outcome } from "./Evaluate.ts"
import { type Knob, type KnobKind, knobsOf } from "./Knobs.ts"
import { withPrices } from "./Prices.ts"

/** One strategy's median with a knob at the two ends of its range: the median over the draws, in virtual ns. */
export interface Effect {
  readonly strategy: string
  readonly low: number
  readonly high: number
  /** Whether that end moves the median the same way in every draw. If not, it cannot be told from chance. */
  readonly lowDetected: boolean
  readonly highDetected: boolean
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
  /** Largest way that a strategy's median goes from one end to the other, nominal price included, chance left out. */
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
    /** Whether any of the four medians can be told from the nominal one. */
    readonly detected: boolean
  }>
}

/** With a knob at one end, a strategy overtakes another that is faster at nominal prices: both in every draw. */
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

/** One strategy at nominal prices. */
export interface Baseline {
  readonly strategy: string
  /** Median over the draws. */
  readonly ns: number
  /** Samples of each draw. */
  readonly samples: number
  /** How far the draws' medians differ, largest less smallest. */
  readonly noiseNs: number
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

/** What was found for one strategy at one end: a median for each draw. */
type Medians = ReadonlyArray<number>

/** The way from the lowest to the highest of a knob's medians; an end that cannot be told from chance moves nothing. */
export const swing = ({ low, high, lowDetected, highDetected }: Effect, base: number): number => {
  const moved = [base, ...(lowDetected ? [low] : []), ...(highDetected ? [high] : [])]
  return Math.max(...moved) - Math.min(...moved)
}

const ratioOf = (a: number, b: number): number | null => (b === 0 ? null : a / b)

const middle = (medians: Medians): number =>
  nearestRank(
    medians.toSorted((a, b) => a - b),
    50
  )

/** Whether `a` is above `b`, draw by draw, in every one. */
const above = (a: Medians, b: Medians): boolean => a.every((ns, draw) => ns > b[draw]!)

export interface SensitivityInput {
  readonly profile: Profile
  readonly strategies: ReadonlyArray<string>
  /** Random runs of each strategy and price. */
  readonly draws: number
  readonly evaluate: Evaluate
}

/**
 * One knob at a time at the low and at the high end of its range, all others at their nominal price; `evaluate` is run
 * for each strategy. A price that nothing on the path depends on still shuffles the random draws: an effect counts only
 * if all draws agree on its direction. Yields its progress.
 */
export function* sensitivity(input: SensitivityInput): Generator<Progress, Sensitivity, void> {
  const { profile, strategies, draws, evaluate } = input
  const knobs = knobsOf(profile)
  let total = strategies.length * (draws + 2 * knobs.length)
  let done = 0
  const run = function* (strategy: string, prices: Knob["atLow"], draw: number): Generator<Progress, Outcome, void> {
    const evaluation = evaluate(strategy, withPrices(profile, prices), draw)
    let step = evaluation.next()
    while (step.done !== true) {
      yield [done, total]
      step = evaluation.next()
    }
    done++
    yield [done, total]
    return step.value
  }

  const nominal: Array<{ readonly medians: Medians; readonly first: Outcome }> = []
  for (const strategy of strategies) {
    const outcomes: Array<Outcome> = []
    for (let draw = 0; draw < draws; draw++) outcomes.push(yield* run(strategy, {}, draw))
    nominal.push({ medians: outcomes.map(({ ns }) => ns), first: outcomes[0]! })
  }
  const baseline = strategies.map((strategy, i) => {
    const { medians, first } = nominal[i]!
    const noiseNs = Math.max(...medians) - Math.min(...medians)
    return { strategy, ns: middle(medians), samples: first.samples, noiseNs }
  })

  /** All draws at one end; one stands for all where nothing is left to chance, or where the first moves nothing. */
  const medians = function* (i: number, prices: Knob["atLow"]): Generator<Progress, Medians, void> {
    const strategy = strategies[i]!
    const first = (yield* run(strategy, prices, 0)).ns
    if (baseline[i]!.noiseNs === 0) return Array.from({ length: draws }, () => first)
    if (first === nominal[i]!.medians[0]) return nominal[i]!.medians
    total += draws - 1
    const all = [first]
    for (let draw = 1; draw < draws; draw++) all.push((yield* run(strategy, prices, draw)).ns)
    return all
  }

  const moved: Array<{
    readonly effect: KnobEffect
    readonly low: ReadonlyArray<Medians>
    readonly high: ReadonlyArray<Medians>
  }> = []
  for (const knob of knobs) {
    const low: Array<Medians> = []
    const high: Array<Medians> = []
    for (const i of strategies.keys()) {
      // An end that is the nominal price needs no run of its own.
      if (knob.low === knob.ns) done++
      low.push(knob.low === knob.ns ? nominal[i]!.medians : yield* medians(i, knob.atLow))
      if (knob.high === knob.ns) done++
      high.push(knob.high === knob.ns ? nominal[i]!.medians : yield* medians(i, knob.atHigh))
    }
    const detected = (ends: ReadonlyArray<Medians>, i: number): boolean =>
      above(ends[i]!, nominal[i]!.medians) || above(nominal[i]!.medians, ends[i]!)
    const effects = strategies.map((strategy, i) => ({
      strategy,
      low: middle(low[i]!),
      high: middle(high[i]!),
      lowDetected: detected(low, i),
      highDetected: detected(high, i)
    }))
    const taken = nominal.some(({ first }) => knob.primitives.some((primitive) => first.taken.has(primitive)))
    const swingNs = Math.max(0, ...effects.map((effect, i) => swing(effect, baseline[i]!.ns)))
    const { name, kind, primitives, ns, basis, source } = knob
    const ends = { low: knob.low, high: knob.high }
    moved.push({
      effect: { knob: name, kind, primitives, ns, ...ends, basis, source, taken, swingNs, effects },
      low,
      high
    })
  }

  const order = moved.toSorted((a, b) => b.effect.swingNs - a.effect.swingNs)
  const effects = order.map(({ effect }) => effect)
  return {
    baseline,
    knobs: effects,
    withoutEffect: effects.filter(({ swingNs }) => swingNs === 0).map(({ knob }) => knob),
    pairs: pairsOf(baseline, effects),
    reversals: order.flatMap(({ effect, low, high }) =>
      (["low", "high"] as const).flatMap((end) =>
        reversals(
          effect,
          end,
          end === "low" ? low : high,
          nominal.map((one) => one.medians),
          strategies
        )
      )
    )
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
          differenceHigh: one.high - other.high,
          detected: one.lowDetected || one.highDetected || other.lowDetected || other.highDetected
        }
      })
      return { a: a.strategy, b: b.strategy, ratio: ratioOf(a.ns, b.ns), differenceNs: a.ns - b.ns, knobs: moved }
    })
  )

const reversals = (
  { knob, ...prices }: KnobEffect,
  end: "low" | "high",
  moved: ReadonlyArray<Medians>,
  nominal: ReadonlyArray<Medians>,
  strategies: ReadonlyArray<string>
): ReadonlyArray<Reversal> =>
  strategies.flatMap((overtakes, i) =>
    strategies.flatMap((overtaken, j) => {
      if (!above(nominal[i]!, nominal[j]!) || !above(moved[j]!, moved[i]!)) return []
      const medians = { overtakesNs: middle(moved[i]!), overtakenNs: middle(moved[j]!) }
      return [{ knob, end, ns: prices[end], overtakes, overtaken, ...medians }]
    })
  )
