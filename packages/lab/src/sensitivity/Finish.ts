import * as Effect from "effect/Effect"
import { RunFailed } from "../Compare.ts"
import { EvaluationFailed } from "./Evaluate.ts"

/**
 * Drives a computation that yields now and then to its end.
 *
 * @returns RunFailed when one of its simulations does not come to its end
 */
export const finish = Effect.fnUntraced(function* <Step, Result>(
  run: Generator<Step, Result, void>,
  onStep: (step: Step) => void
) {
  for (;;) {
    const step = yield* Effect.try({
      try: () => run.next(),
      catch: (cause) => {
        if (cause instanceof EvaluationFailed) return new RunFailed({ why: cause.message })
        // Anything else is a bug of ours.
        throw cause
      }
    })
    if (step.done === true) return step.value
    onStep(step.value)
    yield* Effect.yieldNow
  }
})
