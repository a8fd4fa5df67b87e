import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import { InputInvalid, oneLine } from "./InputInvalid.ts"

const REASONS: { readonly [reason: string]: string } = {
  NotFound: "no such file",
  PermissionDenied: "permission denied"
}

/** Of the system's own codes. Its messages name calls and other paths, such as that of a file that is not whole yet. */
const CODES: { readonly [code: string]: string } = {
  EISDIR: "is a directory",
  ENOTDIR: "not a directory"
}

/** Why the system refused to read or write, in words. */
export const reason = (error: PlatformError): string => {
  if (error.reason._tag in REASONS) return REASONS[error.reason._tag]!
  const cause = error.reason.cause
  if (!(cause instanceof Error)) return error.message
  return CODES[(cause as NodeJS.ErrnoException).code ?? ""] ?? cause.message
}

/**
 * The bytes of a file that the user named. Reads no more than the limit, so that a device or a huge file is refused
 * instead of filling the memory.
 *
 * @returns InputInvalid when the file is missing, unreadable, a directory or larger than `maxBytes`.
 */
export const readInputFile = Effect.fn("readInputFile")(
  function* (path: string, maxBytes: number) {
    const fs = yield* FileSystem.FileSystem
    const file = yield* fs.open(path, { flag: "r" })
    const chunks: Array<Uint8Array> = []
    let length = 0
    while (length <= maxBytes) {
      const chunk = yield* file.readAlloc(Math.min(maxBytes + 1 - length, 1 << 20))
      if (chunk._tag === "None") break
      chunks.push(chunk.value)
      length += chunk.value.length
    }
    if (length > maxBytes) {
      return yield* new InputInvalid({ line: oneLine(`${path}: larger than ${maxBytes} bytes, expected at most that`) })
    }
    return new Uint8Array(Buffer.concat(chunks))
  },
  (self, path) =>
    Effect.scoped(self).pipe(
      Effect.catchTag("PlatformError", (error) =>
        Effect.fail(new InputInvalid({ line: oneLine(`${path}: cannot be read: ${reason(error)}`) }))
      )
    )
)

/** UTF-8 text of a file of at most 1 MiB; an empty file is refused. */
export const readInputText = Effect.fn("readInputText")(function* (path: string) {
  const bytes = yield* readInputFile(path, 1 << 20)
  if (bytes.length === 0) return yield* new InputInvalid({ line: oneLine(`${path}: empty, expected a JSON object`) })
  return new TextDecoder().decode(bytes)
})

/** Whether the user means a file (`./mine.json`, `dir/x`) rather than a built-in name. */
export const isPath = (nameOrPath: string): boolean => /[/\\]|\.json$/i.test(nameOrPath)
