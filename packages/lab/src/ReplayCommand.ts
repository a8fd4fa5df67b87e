import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { switchFlag } from "./Flags.ts"
import { reason } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"

/** Bytes read at a time: also what is held of a trace, and about what its replies are written in. */
const CHUNK_BYTES = 1 << 16

/** The bytes of a file or of standard input, as they come. */
const bytesOf = Effect.fn("bytesOf")(function* (file: string) {
  if (file === "-") return (yield* Stdio.Stdio).stdin
  return (yield* FileSystem.FileSystem).stream(file, { chunkSize: CHUNK_BYTES })
})

/** Writes replies and waits until the system took them; false once the reader went away (`| head`). */
const write = (text: string): Effect.Effect<boolean, Error> =>
  Effect.callback((resume) => {
    process.stdout.write(text, (error) => {
      if (error == null) resume(Effect.succeed(true))
      else if ((error as NodeJS.ErrnoException).code === "EPIPE") resume(Effect.succeed(false))
      else resume(Effect.fail(error))
    })
  })

/** `vmpl-lab replay`: feeds recorded operations to the RMP and VMPL model, one JSON object per line in and out. */
export const replay = Command.make(
  "replay",
  {
    file: Argument.String("file").pipe(
      Argument.withMetavar("FILE"),
      Argument.withDescription("Trace with one JSON object per line; - is standard input")
    ),
    explain: switchFlag("explain").pipe(
      Flag.withDescription("Add to each reply the rule that decided, and where it is written")
    ),
    memory: switchFlag("memory").pipe(
      Flag.withDescription("Take operations on memory contents too, beyond the common format")
    )
  },
  Effect.fn("replay")(function* ({ file, explain, memory }) {
    const { ruleExplainer, TraceReplay } = yield* Effect.promise(() => import("./trace/index.ts"))
    const name = file === "-" ? "standard input" : file
    const bad = (line: string) => new InputInvalid({ line: oneLine(`${name}: ${line}`) })
    const trace = new TraceReplay(explain ? { explainer: ruleExplainer, memory } : { memory })

    /** Replies first: those to the lines before a bad one are printed. False: nobody reads them any more. */
    const deliver = Effect.fnUntraced(function* ({ out, error }: ReturnType<typeof trace.feed>) {
      const wanted = out === "" || (yield* write(out))
      if (wanted && error !== null) return yield* bad(error)
      return wanted
    })
    let wanted = true
    const bytes = yield* bytesOf(file)
    yield* bytes.pipe(
      Stream.mapError((error) => bad(`cannot be read: ${reason(error)}`)),
      Stream.runForEachWhile((chunk) =>
        Effect.map(deliver(trace.feed(chunk)), (more) => {
          wanted = more
          return more
        })
      )
    )
    if (wanted) yield* deliver(trace.end())
  })
).pipe(Command.withDescription("Replay recorded RMP and VMPL operations"))
