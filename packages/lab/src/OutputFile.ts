import { randomUUID } from "node:crypto"
import { basename, dirname, join } from "node:path"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import { reason } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"

/**
 * Writes a file that appears whole or not at all: it grows under another name beside its place and is moved there at
 * the end. `fill` is given a function that appends text or bytes.
 *
 * @returns what `fill` returns; InputInvalid when the file cannot be written there
 */
export const writeOutputFile = <A, E, R>(
  path: string,
  fill: (append: (part: string | Uint8Array) => Effect.Effect<void, InputInvalid>) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const part = join(dirname(path), `.${basename(path)}.${randomUUID()}.part`)
    const refused = <A, R>(self: Effect.Effect<A, PlatformError, R>) =>
      Effect.mapError(
        self,
        (error) => new InputInvalid({ line: oneLine(`${path}: cannot be written: ${reason(error)}`) })
      )
    const encoder = new TextEncoder()
    const written = Effect.scoped(
      Effect.gen(function* () {
        const file = yield* fs.open(part, { flag: "wx" }).pipe(refused)
        return yield* fill((part) =>
          file.writeAll(typeof part === "string" ? encoder.encode(part) : part).pipe(refused)
        )
      })
    )
    return yield* written.pipe(
      Effect.tap(() => fs.rename(part, path).pipe(refused)),
      Effect.onError(() => Effect.ignore(fs.remove(part, { force: true })))
    )
  })

/** Writes one text as a file, whole or not at all. */
export const writeOutputText = (path: string, text: string) => writeOutputFile(path, (append) => append(text))

/** Writes bytes as a file, whole or not at all. */
export const writeOutputBytes = (path: string, bytes: Uint8Array) => writeOutputFile(path, (append) => append(bytes))
