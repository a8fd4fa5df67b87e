import { performance } from "node:perf_hooks"
import type { PrimitiveName } from "@vmpl-lab/sim"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { analysisFlags, analysisInput, namesAsked, seedText, strategyFlag, textWidth } from "./AnalysisInput.ts"
import { numberFlag, optional } from "./Flags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"
import { progressBar } from "./Progress.ts"
import { codeCommit } from "./Version.ts"

const flags = {
  ...analysisFlags,
  a: strategyFlag("a", "Strategies that are to catch up; without it, all but the fastest"),
  b: strategyFlag("b", "Strategies that they are to catch up with; without it, the fastest"),
  primitive: Flag.String("primitive").pipe(
    Flag.withMetavar("NAME[,NAME]"),
    Flag.withDescription("Price that moves, several moving together; may be given several times, for one answer each"),
    Flag.atLeast(0)
  ),
  bound: optional(numberFlag("bound", 1, 1_000_000_000)).pipe(
    Flag.withDescription("Highest price tried, in ns; without it, the high end of the ranges together")
  )
}

/** Sets of primitives, each name known and given once. */
const knobsAsked = Effect.fnUntraced(function* (lists: ReadonlyArray<string>) {
  const { PRIMITIVES } = yield* Effect.promise(() => import("@vmpl-lab/sim"))
  const known: ReadonlyArray<string> = PRIMITIVES
  const knobs: Array<ReadonlyArray<PrimitiveName>> = []
  for (const list of lists) {
    const names = list.split(",")
    const unknown = names.find((name) => !known.includes(name))
    if (unknown !== undefined) {
      const line = `--primitive: ${JSON.stringify(unknown)} unknown, expected one of ${known.join(", ")}`
      return yield* new InputInvalid({ line: oneLine(line) })
    }
    const twice = names.find((name, i) => names.indexOf(name) < i)
    if (twice !== undefined)
      return yield* new InputInvalid({ line: `--primitive: ${twice} given twice, expected once` })
    knobs.push(names as ReadonlyArray<PrimitiveName>)
  }
  return knobs
})

/** `vmpl-lab break-even`: how cheap something must become for one strategy to be as fast as another. */
export const breakEvenCommand = Command.make(
  "break-even",
  flags,
  Effect.fn("break-even")(function* (options) {
    const [{ breakEvens }, { finish }, { STRATEGY_NAMES }] = yield* Effect.promise(() =>
      Promise.all([
        import("./sensitivity/BreakEvenPlan.ts"),
        import("./sensitivity/Finish.ts"),
        import("./StrategyNames.ts")
      ])
    )
    const named = (flag: string, asked: ReadonlyArray<string>) =>
      asked.length === 0 ? Effect.succeed([]) : namesAsked(flag, asked)
    const a = yield* named("a", options.a)
    const b = yield* named("b", options.b)
    if (a.length === 1 && b.length === 1 && a[0] === b[0]) {
      return yield* new InputInvalid({ line: `--b: ${b[0]} is --a too, expected another strategy` })
    }
    const knobs = yield* knobsAsked(options.primitive)
    const { profile, evaluate, repeat } = yield* analysisInput(options)
    const strategies = a.length > 0 && b.length > 0 ? [...new Set([...a, ...b])] : STRATEGY_NAMES
    const begin = performance.now()
    const { bound, operation, seed, draws } = options
    const run = breakEvens({ profile, a, b, knobs, bound, strategies, draws, evaluate })
    const results = yield* Effect.scoped(
      Effect.flatMap(progressBar, (onProgress) => finish(run, ({ done, total }) => onProgress(done, total)))
    )
    const { name, machine } = profile
    if (options.json) {
      const wall = { totalMs: performance.now() - begin }
      const head = { seed, commit: codeCommit(), profile: name, machine, ...repeat, draws, operation, statistic: "p50" }
      return yield* writeOut(`${JSON.stringify({ ...head, results, wall }, null, 2)}\n`)
    }
    const { breakEvenText } = yield* Effect.promise(() => import("./sensitivity/BreakEvenText.ts"))
    const about = `Simulated, not measured. Profile ${name}, scenario ${repeat.scenario}, ${seedText(seed, draws)}.`
    const text =
      results.length === 0 ? "Nothing to ask: the paths do not differ." : breakEvenText(results, operation, textWidth())
    yield* writeOut(`${text}\n${about}\n`)
  })
).pipe(Command.withDescription("How cheap something must become for one strategy to be as fast as another"))
