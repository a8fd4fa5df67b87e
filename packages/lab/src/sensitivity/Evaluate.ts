import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import type { OperationName } from "../ComparisonRun.ts"
import { runStrategy } from "../RunStrategy.ts"
import type { Scenario } from "../Scenario.ts"
import { latency } from "../Summary.ts"
import type { SvsmLaunch } from "../SvsmLaunch.ts"

/** One strategy under one profile. */
export interface Outcome {
  /** Median latency of the operation in virtual ns. */
  readonly ns: number
  readonly samples: number
  /** How often one operation takes each primitive, on average; those it never takes are left out. */
  readonly taken: ReadonlyMap<PrimitiveName, number>
}

/**
 * Runs a strategy, named `key` or `key/variant`, under a profile. `draw` counts from 0 and says which of several random
 * runs it is: equal draws have equal randomness. Yields now and then, so that it can be stopped.
 */
export type Evaluate = (strategy: string, profile: Profile, draw: number) => Generator<void, Outcome, void>

/** A strategy did not come to its end, or the operation did not occur. */
export class EvaluationFailed extends Error {}

/** What stays the same from one run to the next. */
export interface EvaluationInput {
  readonly scenario: Scenario
  readonly seed: number
  readonly svsm: SvsmLaunch
  readonly operation: OperationName
}

/** Evaluation by simulating the scenario; the seed of a draw is the first seed plus its number. */
export const simulated = ({ scenario, seed, svsm, operation }: EvaluationInput): Evaluate =>
  function* (name, profile, draw) {
    const strategy = STRATEGIES.find((one) => strategyName(one) === name)!
    const run = runStrategy({ strategy, scenario, profile, seed: seed + draw, svsm })
    let step = run.next()
    while (step.done !== true) {
      yield
      step = run.next()
    }
    if (typeof step.value === "string") throw new EvaluationFailed(step.value)
    const record = step.value.run.operations.find((one) => one.operation === operation)!
    const samples = record.ns.length
    const { p50 } = latency(record.ns)
    if (p50 === null) throw new EvaluationFailed(`${name}: no ${operation} in this scenario`)
    const taken = PRIMITIVES.flatMap((primitive, i) => {
      const count = record.countByPrimitive[i]!
      return count === 0 ? [] : [[primitive, count / samples] as const]
    })
    return { ns: p50, samples, taken: new Map(taken) }
  }

/** Evaluations that are asked for more than once are made once. */
export const remembered = (evaluate: Evaluate): Evaluate => {
  const known = new Map<string, Outcome>()
  return function* (name, profile, draw) {
    const key = JSON.stringify([name, draw, PRIMITIVES.map((primitive) => profile.primitives[primitive].ns)])
    const before = known.get(key)
    if (before !== undefined) return before
    const outcome = yield* evaluate(name, profile, draw)
    known.set(key, outcome)
    return outcome
  }
}
