import * as Effect from "effect/Effect"
import { writeErrorLine } from "../Output.ts"
import { writeOutputFile } from "../OutputFile.ts"
import type { ComparisonJson } from "../Summary.ts"
import { type Observed, strategiesOf } from "./Timelines.ts"
import { type TracedStrategy, traceStrategy } from "./TraceOut.ts"

/**
 * Writes the first calls of each strategy as one file in Chrome's trace-event format, and says on standard error when
 * that is not all of them.
 */
export const writeTrace = Effect.fnUntraced(function* (
  path: string,
  json: ComparisonJson,
  observed: Observed,
  calls: number
) {
  const traced: Array<TracedStrategy> = []
  yield* writeOutputFile(path, (append) =>
    Effect.gen(function* () {
      yield* append('{"displayTimeUnit":"ns","traceEvents":[\n')
      for (const [index, strategy] of strategiesOf(json).entries()) {
        const trace = traceStrategy({ strategy, ...observed }, index, calls)
        let step = trace.next()
        for (; step.done !== true; step = trace.next()) yield* append(step.value)
        traced.push(step.value)
      }
      const { seed, commit, profile, scenario } = json
      const otherData = { basis: "simulated", seed, commit, profile, scenario, strategies: traced }
      // Every event ends in a comma: a name without a track closes the list.
      const last = { ph: "M", pid: 0, tid: 0, name: "process_labels", args: { labels: "simulated" } }
      yield* append(`${JSON.stringify(last)}\n],"otherData":${JSON.stringify(otherData)}}\n`)
    })
  )
  const cut = traced.find((one) => one.calls < one.planned)
  if (cut !== undefined) {
    yield* writeErrorLine(
      `${path}: the first ${cut.calls} of ${cut.planned} calls of each strategy; --trace-calls N takes more`
    )
  }
})
