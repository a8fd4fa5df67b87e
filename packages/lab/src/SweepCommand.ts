import { availableParallelism } from "node:os"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { numberFlag, optional, switchFlag } from "./Flags.ts"
import { InputInvalid, shown } from "./InputInvalid.ts"
import { writeErrorLine, writeOut } from "./Output.ts"
import { writeOutputText } from "./OutputFile.ts"
import { codeCommit, packageVersion } from "./Version.ts"

const PARTS_MAX = 10_000

const flags = {
  grid: Argument.String("grid").pipe(
    Argument.withMetavar("GRID"),
    Argument.withDescription("JSON file with the values of each parameter")
  ),
  out: optional(Flag.String("output")).pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("FILE"),
    Flag.withDescription("Results, one JSON object per line; a sweep that was stopped goes on there")
  ),
  jobs: optional(numberFlag("jobs", 1, 1_024)).pipe(Flag.withDescription("Threads; without it, one for each core")),
  shard: Flag.String("shard").pipe(
    Flag.withMetavar("I/N"),
    Flag.withDescription("Run only part I of N, from 1"),
    Flag.withDefault("1/1")
  ),
  force: switchFlag("force").pipe(Flag.withDescription("Replace results of another grid or commit")),
  dryRun: switchFlag("dry-run").pipe(Flag.withDescription("Check the grid and print how many points there are to run")),
  csv: optional(Flag.String("csv")).pipe(Flag.withMetavar("FILE"), Flag.withDescription("Write the results as CSV too"))
}

const shardOf = (text: string) => {
  const [, part, parts] = /^(\d+)\/(\d+)$/.exec(text)?.map(Number) ?? []
  if (part === undefined || parts === undefined || part < 1 || part > parts || parts > PARTS_MAX) {
    const line = `--shard: expected I/N with I from 1 to N and N up to ${PARTS_MAX}, got ${shown(text)}`
    return Effect.fail(new InputInvalid({ line }))
  }
  return Effect.succeed({ part, parts })
}

/** `vmpl-lab sweep`: a grid over parameters of scenario, host and profile, on all cores. */
export const sweep = Command.make(
  "sweep",
  flags,
  Effect.fn("sweep")(function* (options) {
    const { out } = options
    const shard = yield* shardOf(options.shard)
    if (out === undefined && !options.dryRun) {
      return yield* new InputInvalid({ line: "--output: missing, expected this option, or --dry-run" })
    }
    const { loadPlan } = yield* Effect.promise(() => import("./sweep/GridFile.ts"))
    const { foundIn, onFile, progressOf, runSweep } = yield* Effect.promise(() => import("./sweep/RunSweep.ts"))
    const plan = yield* loadPlan(options.grid, codeCommit(), packageVersion())
    const part = options.shard === "1/1" ? "" : ` of shard ${options.shard}`
    if (out === undefined || options.dryRun) {
      const { lines } = out === undefined ? { lines: [] } : yield* foundIn(plan, out, options.force)
      const { indices, missing } = progressOf(plan, shard, lines)
      const axes = plan.axes.map(({ key, values }) => `  ${key}: ${values.length}\n`).join("")
      const points = `${plan.points} points, ${indices.length}${part}, ${missing.length} to run`
      return yield* writeOut(`${points}\n${axes}  strategies in each: ${plan.strategies.join(", ")}\n`)
    }
    const { sweepProgress } = yield* Effect.promise(() => import("./sweep/SweepProgress.ts"))
    const { SWEEP_WORKER } = yield* Effect.promise(() => import("./sweep/WorkerPool.ts"))
    const jobs = options.jobs ?? availableParallelism()
    const { force } = options
    const { found, run, torn } = yield* Effect.scoped(
      Effect.flatMap(sweepProgress, (onProgress) =>
        runSweep({ plan, out, shard, jobs, force, worker: SWEEP_WORKER, onProgress })
      )
    )
    if (torn) yield* writeErrorLine(`${out}: its last line was cut off; that point was run again`)
    if (options.csv !== undefined) {
      const { sweepCsv } = yield* Effect.promise(() => import("./sweep/SweepCsv.ts"))
      const { lines } = yield* foundIn(plan, out)
      yield* writeOutputText(options.csv, yield* onFile(out, () => sweepCsv(lines)))
    }
    yield* writeOut(`${out}: ${found + run} points${part}, ${found} of them found, ${run} run\n`)
  })
).pipe(Command.withDescription("Run a grid of parameters on all cores; continues where it was stopped"))
