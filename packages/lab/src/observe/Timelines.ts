import { STRATEGIES, type Strategy } from "@vmpl-lab/hv-strategies"
import * as Effect from "effect/Effect"
import type { StrategyInput } from "../RunStrategy.ts"
import type { ComparisonJson } from "../Summary.ts"
import { medianTimeline, type Timeline } from "./Timeline.ts"

/** What all strategies of a comparison were run on. */
export type Observed = Omit<StrategyInput, "strategy">

/** The strategies that a comparison has run, in its order. */
export const strategiesOf = (json: ComparisonJson): ReadonlyArray<Strategy> =>
  json.strategies.flatMap(({ strategy, variant }) =>
    STRATEGIES.filter((known) => known.key === strategy && known.variant === variant)
  )

/** Runs a generator that yields between chunks of work; it can be interrupted there. @returns what it returns */
export const driven = Effect.fnUntraced(function* <A>(work: Generator<unknown, A, void>) {
  let step = work.next()
  while (step.done !== true) {
    yield* Effect.yieldNow
    step = work.next()
  }
  return step.value
})

/** One call with the median latency of each strategy that has made calls. */
export const timelines = Effect.fnUntraced(function* (json: ComparisonJson, observed: Observed) {
  const found: Array<Timeline> = []
  for (const strategy of strategiesOf(json)) {
    const p50 = json.results.find(
      (one) =>
        one.strategy === strategy.key && one.variant === strategy.variant && one.operation === "run-vmpl-round-trip"
    )?.ns.p50
    if (p50 === null || p50 === undefined) continue
    const timeline = yield* driven(medianTimeline({ strategy, ...observed }, p50))
    if (timeline !== null) found.push(timeline)
  }
  return found
})
