import { dirname, join } from "node:path"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import { reason } from "../InputFile.ts"
import { InputInvalid, oneLine } from "../InputInvalid.ts"

const bad = (line: string) => Effect.fail(new InputInvalid({ line: oneLine(line) }))

/**
 * A folder that has something in it is left alone: evidence of another run would be lost, or mixed with this one. Looked
 * at before the guest is booted.
 */
export const checkFolder = Effect.fn("checkFolder")(function* (folder: string, flag = "output") {
  const fs = yield* FileSystem.FileSystem
  const found = yield* fs
    .readDirectory(folder)
    .pipe(
      Effect.catchTag("PlatformError", (error) =>
        error.reason._tag === "NotFound"
          ? Effect.succeed([])
          : bad(`--${flag}: ${folder}: cannot be read as a folder: ${reason(error)}`)
      )
    )
  if (found.length > 0) return yield* bad(`--${flag}: ${folder}: not empty, expected a new or an empty folder`)
})

/** A folder with those above it. Node's own way does not come back from places such as /proc, where none can be made. */
const makeFolder = (fs: FileSystem.FileSystem, folder: string): Effect.Effect<void, PlatformError> => {
  const make = fs
    .makeDirectory(folder)
    .pipe(
      Effect.catchTag("PlatformError", (error) =>
        error.reason._tag === "AlreadyExists" ? Effect.void : Effect.fail(error)
      )
    )
  const above = dirname(folder)
  return make.pipe(
    Effect.catchTag("PlatformError", (error) =>
      error.reason._tag === "NotFound" && above !== folder
        ? Effect.andThen(makeFolder(fs, above), make)
        : Effect.fail(error)
    )
  )
}

/** Writes the files into a folder. */
export const writeFolder = Effect.fn("writeFolder")(
  function* (folder: string, files: ReadonlyMap<string, Uint8Array>, _flag = "output") {
    const fs = yield* FileSystem.FileSystem
    yield* makeFolder(fs, folder)
    for (const [name, bytes] of files) yield* fs.writeFile(join(folder, name), bytes)
  },
  (self, folder, _files, flag = "output") =>
    Effect.catchTag(self, "PlatformError", (error) => bad(`--${flag}: ${folder}: cannot be written: ${reason(error)}`))
)
