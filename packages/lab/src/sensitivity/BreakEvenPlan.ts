import { PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import { type BreakEven, breakEven } from "./BreakEven.ts"
import type { Evaluate, Outcome } from "./Evaluate.ts"

/** A way out to user space and back, with what the VMM does there. */
const USER_SPACE: ReadonlyArray<PrimitiveName> = ["userspace_exit", "userspace_entry", "vmm_dispatch"]

export interface BreakEvenPlan {
  readonly profile: Profile
  /** Empty: all strategies but the fastest. */
  readonly a: ReadonlyArray<string>
  /** Empty: the fastest of all strategies. */
  readonly b: ReadonlyArray<string>
  /** Sets of primitives that are moved together. Empty: what the two paths take differently often. */
  readonly knobs: ReadonlyArray<ReadonlyArray<PrimitiveName>>
  /** Highest price tried; undefined: the high end of each range, together. */
  readonly bound: number | undefined
  readonly strategies: ReadonlyArray<string>
  readonly draws: number
  readonly evaluate: Evaluate
}

/** What fewer than one operation in twenty takes, such as a first call's, is not on the path of the median. */
const SELDOM = 0.05

/**
 * Primitives of which one path has more than the other, each alone; then those of the way to user space together, and
 * all that `a` has more of.
 */
export const knobsBetween = (a: Outcome, b: Outcome): ReadonlyArray<ReadonlyArray<PrimitiveName>> => {
  const moreInA = (name: PrimitiveName): number => (a.taken.get(name) ?? 0) - (b.taken.get(name) ?? 0)
  const differ = PRIMITIVES.filter((name) => Math.abs(moreInA(name)) >= SELDOM)
  const away = USER_SPACE.filter((name) => differ.includes(name))
  const more = differ.filter((name) => moreInA(name) > 0)
  const together = [away, ...(more.length > away.length ? [more] : [])].filter((names) => names.length > 1)
  return [...differ.map((name) => [name]), ...together]
}

/** Work done and all of it: strategies at nominal prices, then answers. The total grows until the former are known. */
export interface BreakEvenProgress {
  readonly done: number
  readonly total: number
}

/** The same progress as often as something has been simulated. */
function* reporting<T>(
  run: Generator<void, T, void>,
  progress: BreakEvenProgress
): Generator<BreakEvenProgress, T, void> {
  let step = run.next()
  while (step.done !== true) {
    yield progress
    step = run.next()
  }
  return step.value
}

/** The pairs and knobs of a plan, one after the other. Yields its progress. */
export function* breakEvens(plan: BreakEvenPlan): Generator<BreakEvenProgress, ReadonlyArray<BreakEven>, void> {
  const { profile, strategies, draws, evaluate } = plan
  const nominal = new Map<string, Outcome>()
  for (const name of strategies) {
    const progress = { done: nominal.size, total: 10 * strategies.length }
    nominal.set(name, yield* reporting(evaluate(name, profile, 0), progress))
  }
  const fastest = strategies.reduce((best, name) => (nominal.get(name)!.ns < nominal.get(best)!.ns ? name : best))
  const questions = (plan.a.length === 0 ? strategies : plan.a).flatMap((a) =>
    (plan.b.length === 0 ? [fastest] : plan.b).flatMap((b) => {
      if (a === b) return []
      const knobs = plan.knobs.length > 0 ? plan.knobs : knobsBetween(nominal.get(a)!, nominal.get(b)!)
      return knobs.map((primitives) => ({ a, b, primitives }))
    })
  )
  const results: Array<BreakEven> = []
  for (const [i, question] of questions.entries()) {
    const bound = plan.bound ?? question.primitives.reduce((sum, name) => sum + profile.primitives[name].high, 0)
    const progress = { done: strategies.length + i, total: strategies.length + questions.length }
    results.push(yield* reporting(breakEven({ profile, bound, draws, evaluate, ...question }), progress))
  }
  return results
}
