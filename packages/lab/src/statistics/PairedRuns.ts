import type { Strategy } from "@vmpl-lab/hv-strategies"
import { strategyName } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import { OPERATIONS, type OperationName } from "../ComparisonRun.ts"
import { RunFailed } from "../RunFailed.ts"
import { runStrategy } from "../RunStrategy.ts"
import { Scenario } from "../Scenario.ts"
import type { SvsmLaunch } from "../SvsmLaunch.ts"
import { type PairedDifference, pairedDifference, RESAMPLES } from "./Paired.ts"
import { distribution } from "./Quantile.ts"
import { LEVEL } from "./QuantileInterval.ts"

/** Calls of each vCPU in one replication: enough for a median, few enough that all replications take seconds. */
const CALLS_MAX = 100

/** A strategy as results name it. */
export interface StrategyRef {
  readonly strategy: string
  readonly variant: string | null
}

/** Medians of one operation under one strategy, one for each replication; null in one without samples. */
export interface Replicated extends StrategyRef {
  readonly operation: OperationName
  readonly medians: ReadonlyArray<number | null>
}

/** One strategy against another. All figures are null, and so is the verdict, without samples in every replication. */
export interface PairedComparison extends StrategyRef {
  readonly operation: OperationName
  readonly against: StrategyRef
  /** Why it is compared with that one. */
  readonly reference: "fastest" | "baseline"
  readonly difference: PairedDifference | null
}

/** What `paired` holds in the JSON of a comparison. */
export interface PairedJson {
  /** Replication k is a run with the seed plus k. */
  readonly seed: number
  readonly replications: number
  /** The scenario of a replication, where it differs from the comparison's. */
  readonly boots: number
  readonly calls: number
  /** The figure of each replication that is compared. */
  readonly statistic: "p50"
  readonly level: number
  readonly resamples: number
  readonly medians: ReadonlyArray<Replicated>
  readonly comparisons: ReadonlyArray<PairedComparison>
}

/** What paired runs are made from. */
export interface PairedInput {
  readonly scenario: Scenario
  readonly profile: Profile
  readonly seed: number
  readonly svsm: SvsmLaunch
  readonly strategies: ReadonlyArray<Strategy>
  readonly replications: number
  /** Name of the strategy that all others are compared with, beside the fastest. */
  readonly baseline: string | undefined
  /** Called now and then with the work done so far. */
  readonly onProgress: (done: number, total: number) => void
}

const isSame = (a: StrategyRef, b: StrategyRef): boolean => a.strategy === b.strategy && a.variant === b.variant

const isComplete = (values: ReadonlyArray<number | null>): values is ReadonlyArray<number> => !values.includes(null)

const middle = (values: ReadonlyArray<number>): number => distribution(values)![50]!

/** Every strategy of one operation against one of them. */
const against = (
  rows: ReadonlyArray<Replicated>,
  other: Replicated,
  reference: PairedComparison["reference"]
): ReadonlyArray<PairedComparison> =>
  rows
    .filter((row) => !isSame(row, other))
    .map(({ strategy, variant, operation, medians }) => ({
      operation,
      strategy,
      variant,
      against: { strategy: other.strategy, variant: other.variant },
      reference,
      difference: isComplete(medians) && isComplete(other.medians) ? pairedDifference(medians, other.medians) : null
    }))

/** All pairs that are reported: each strategy against the fastest and against the baseline, operation by operation. */
export const comparisonsOf = (
  medians: ReadonlyArray<Replicated>,
  baseline: string | undefined
): ReadonlyArray<PairedComparison> =>
  OPERATIONS.flatMap((operation) => {
    const rows = medians.filter((row) => row.operation === operation)
    const complete = rows.filter((row) => isComplete(row.medians))
    const speeds = complete.map((row) => middle(row.medians as ReadonlyArray<number>))
    const fastest = complete[speeds.indexOf(Math.min(...speeds))]
    const base = rows.find(({ strategy, variant }) => strategyName({ key: strategy, variant }) === baseline)
    return [
      ...(fastest === undefined ? [] : against(rows, fastest, "fastest")),
      ...(base === undefined ? [] : against(rows, base, "baseline"))
    ]
  })

/**
 * Runs the scenario again with one seed after the other, under every strategy with each, and compares strategies run by
 * run. Runs are paired and not single calls: a strategy that takes a primitive more often than another is further in
 * that primitive's stream at its next call, so that call k of both has nothing in common but the request.
 *
 * @returns RunFailed when a guest does not come to its end
 */
export const runPaired = Effect.fnUntraced(function* (input: PairedInput) {
  const { profile, seed, svsm, strategies, replications, baseline, onProgress } = input
  const calls = Math.min(input.scenario.calls, CALLS_MAX)
  const scenario = new Scenario({ ...input.scenario, boots: 1, calls })
  const work = 1 + calls * scenario.vcpus
  const medians = new Map<string, Replicated & { readonly medians: Array<number | null> }>()
  let runs = 0
  for (let k = 0; k < replications; k++) {
    for (const strategy of strategies) {
      const run = runStrategy({ strategy, scenario, profile, seed: seed + k, svsm })
      let step = run.next()
      while (step.done !== true) {
        onProgress(runs * work + step.value, strategies.length * replications * work)
        yield* Effect.yieldNow
        step = run.next()
      }
      if (typeof step.value === "string") return yield* new RunFailed({ why: `seed ${seed + k}: ${step.value}` })
      runs += 1
      for (const { operation, ns } of step.value.run.operations) {
        const { key, variant } = strategy
        const name = `${operation} ${strategyName(strategy)}`
        const row = medians.get(name) ?? { strategy: key, variant, operation, medians: [] }
        row.medians.push(ns.length === 0 ? null : middle(ns))
        medians.set(name, row)
      }
    }
  }
  const rows = [...medians.values()]
  const paired: PairedJson = {
    seed,
    replications,
    boots: 1,
    calls,
    statistic: "p50",
    level: LEVEL,
    resamples: RESAMPLES,
    medians: rows,
    comparisons: comparisonsOf(rows, baseline)
  }
  return paired
})
