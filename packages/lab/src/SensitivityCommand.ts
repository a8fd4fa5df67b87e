import { performance } from "node:perf_hooks"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { analysisFlags, analysisInput, namesAsked, seedText, strategyFlag, textWidth } from "./AnalysisInput.ts"
import { writeOut } from "./Output.ts"
import { progressBar } from "./Progress.ts"
import { codeCommit } from "./Version.ts"

const flags = {
  ...analysisFlags,
  strategy: strategyFlag("strategy", "Only these strategies; several times, or with commas")
}

/** `vmpl-lab sensitivity`: how far each price of the profile moves the result within its range. */
export const sensitivityCommand = Command.make(
  "sensitivity",
  flags,
  Effect.fn("sensitivity")(function* (options) {
    const [{ sensitivity }, { finish }] = yield* Effect.promise(() =>
      Promise.all([import("./sensitivity/Sensitivity.ts"), import("./sensitivity/Finish.ts")])
    )
    const strategies = yield* namesAsked("strategy", options.strategy)
    const { profile, evaluate, repeat } = yield* analysisInput(options)
    const { operation, seed, draws } = options
    const begin = performance.now()
    const result = yield* Effect.scoped(
      Effect.flatMap(progressBar, (onProgress) =>
        finish(sensitivity({ profile, strategies, draws, evaluate }), ([done, total]) => onProgress(done, total))
      )
    )
    const { name, machine } = profile
    if (options.json) {
      const wall = { totalMs: performance.now() - begin }
      const head = { seed, commit: codeCommit(), profile: name, machine, ...repeat, draws, operation, statistic: "p50" }
      return yield* writeOut(`${JSON.stringify({ ...head, ...result, wall }, null, 2)}\n`)
    }
    const { sensitivityText } = yield* Effect.promise(() => import("./sensitivity/SensitivityText.ts"))
    const about = `Simulated, not measured. Profile ${name}, scenario ${repeat.scenario}, ${seedText(seed, draws)}.`
    yield* writeOut(`${sensitivityText(result, operation, textWidth())}\n${about}\n`)
  })
).pipe(Command.withDescription("How far each price of a profile moves the result within its range"))
