import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { optional } from "./Flags.ts"
import { reason } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOutputText } from "./OutputFile.ts"

/** `vmpl-lab report`: results as one HTML file that needs nothing else, and as CSV files. */
export const report = Command.make(
  "report",
  {
    files: Argument.String("result").pipe(
      Argument.withMetavar("RESULT"),
      Argument.withDescription(
        "Output of compare --json or sensitivity --json, or a sweep (.jsonl); several to join them"
      ),
      Argument.atLeast(1)
    ),
    output: Flag.String("output").pipe(
      Flag.withAlias("o"),
      Flag.withMetavar("FILE"),
      Flag.withDescription("HTML file to write")
    ),
    csv: optional(Flag.String("csv")).pipe(
      Flag.withMetavar("DIR"),
      Flag.withDescription("Write every table as a CSV file into this directory too")
    )
  },
  Effect.fn("report")(function* ({ files, output, csv }) {
    const { readReportInput } = yield* Effect.promise(() => import("./report/ReportInput.ts"))
    const inputs = yield* Effect.forEach(files, (file) => readReportInput(file))
    const [{ renderReport }, { csvOf }] = yield* Effect.promise(() =>
      Promise.all([import("./report/Page.ts"), import("./Csv.ts")])
    )
    const { document, tables } = renderReport(inputs)
    if (csv !== undefined) {
      const fs = yield* FileSystem.FileSystem
      yield* fs
        .makeDirectory(csv, { recursive: true })
        .pipe(
          Effect.mapError(
            (error) => new InputInvalid({ line: oneLine(`--csv: ${csv} cannot be made: ${reason(error)}`) })
          )
        )
      for (const table of tables) yield* writeOutputText(`${csv}/${table.name}.csv`, csvOf(table))
    }
    yield* writeOutputText(output, document)
  })
).pipe(Command.withDescription("Draw results as one HTML file"))
