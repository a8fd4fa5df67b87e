import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { optional } from "./Flags.ts"
import { writeErrorLine, writeOut } from "./Output.ts"
import { writeOutputText } from "./OutputFile.ts"

const flags = {
  files: Argument.String("results").pipe(
    Argument.withMetavar("RESULTS"),
    Argument.withDescription("Files that sweep wrote"),
    Argument.atLeast(1)
  ),
  out: Flag.String("output").pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("FILE"),
    Flag.withDescription("All results, in the order of the grid")
  ),
  csv: optional(Flag.String("csv")).pipe(Flag.withMetavar("FILE"), Flag.withDescription("Write the results as CSV too"))
}

/** `vmpl-lab merge`: joins the results of a sweep's shards. */
export const merge = Command.make(
  "merge",
  flags,
  Effect.fn("merge")(function* ({ files, out, csv }) {
    const { mergeResults } = yield* Effect.promise(() => import("./sweep/Merge.ts"))
    const { onFile } = yield* Effect.promise(() => import("./sweep/RunSweep.ts"))
    const { writeLines } = yield* Effect.promise(() => import("./sweep/ResultsFile.ts"))
    const { lines, points, torn } = yield* onFile(files.join(", "), () => mergeResults(files))
    if (csv !== undefined) {
      const { sweepCsv } = yield* Effect.promise(() => import("./sweep/SweepCsv.ts"))
      yield* writeOutputText(csv, yield* onFile(csv, () => sweepCsv(lines)))
    }
    yield* onFile(out, () => writeLines(out, lines))
    for (const file of torn) yield* writeErrorLine(`${file}: its last line is cut off and was left out`)
    yield* writeOut(`${out}: ${lines.length} of ${points} points\n`)
  })
).pipe(Command.withDescription("Join results of one sweep from several files"))
