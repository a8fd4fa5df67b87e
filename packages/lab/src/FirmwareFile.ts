import type { FirmwareUse } from "@vmpl-lab/hypervisor"
import * as Effect from "effect/Effect"
import { readInputFile } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"

/** A fault of the file that is launched: its message is one line for the user. */
export const isFirmwareError = (cause: unknown): cause is Error =>
  cause instanceof Error && "_tag" in cause && cause._tag === "FirmwareError"

/** Runs a function that throws FirmwareError for an image that does not serve; its line is what the user sees. */
export const fitting = <A>(make: () => A): Effect.Effect<A, InputInvalid> =>
  Effect.try({ try: make, catch: (cause) => cause }).pipe(
    Effect.catch((cause) =>
      isFirmwareError(cause) ? Effect.fail(new InputInvalid({ line: oneLine(cause.message) })) : Effect.die(cause)
    )
  )

/**
 * Reads and parses a firmware image.
 *
 * @returns InputInvalid when the file is missing, unreadable, empty, larger than 16 MiB, or not an image that a guest of
 *   this kind can be launched from.
 */
export const loadFirmware = Effect.fn("loadFirmware")(function* (path: string, use: FirmwareUse) {
  const { FIRMWARE_SIZE_MAX, isIgvm, parseFirmware } = yield* Effect.promise(() => import("@vmpl-lab/hypervisor"))
  const bytes = yield* readInputFile(path, FIRMWARE_SIZE_MAX)
  if (isIgvm(bytes)) {
    const line = `--firmware: ${path} begins as an IGVM file, expected a firmware image: --igvm takes it`
    return yield* new InputInvalid({ line: oneLine(line) })
  }
  return yield* fitting(() => parseFirmware(bytes, path, use))
})

/**
 * Reads and parses an IGVM file for SEV-SNP.
 *
 * @returns InputInvalid when the file is missing, unreadable, too large, or has anything that SNP does not allow.
 */
export const loadIgvm = Effect.fn("loadIgvm")(function* (path: string) {
  const { IGVM_SIZE_MAX, parseIgvm } = yield* Effect.promise(() => import("@vmpl-lab/hypervisor"))
  const bytes = yield* readInputFile(path, IGVM_SIZE_MAX)
  return yield* fitting(() => parseIgvm(bytes, path))
})
