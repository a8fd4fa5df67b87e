import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import { optional } from "./Flags.ts"
import { reason } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"

/** A positive number with a fraction in decimal digits: no `1e3`, no sign. */
const decimalFlag = (name: string, low: number, high: number): Flag.Flag<number> =>
  Flag.String(name).pipe(
    Flag.withMetavar("X"),
    Flag.filterMap(
      (text) => {
        const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN
        return value >= low && value <= high ? Option.some(value) : Option.none()
      },
      () => `a number from ${low} to ${high}`
    )
  )

const flags = {
  from: Flag.String("from").pipe(
    Flag.withMetavar("NAME|FILE"),
    Flag.withDescription("Profile to start from"),
    Flag.withDefault("epyc-9654p")
  ),
  clockGhz: optional(decimalFlag("clock-ghz", 0.1, 100)).pipe(Flag.withDescription("Core clock of the other machine")),
  clockRatio: optional(decimalFlag("clock-ratio", 0.01, 100)).pipe(
    Flag.withDescription("The same as a multiple of the profile's clock")
  ),
  mitigations: decimalFlag("mitigations", 0.01, 100).pipe(
    Flag.withDescription("What an entry or exit costs there, as a multiple of here, at equal clocks"),
    Flag.withDefault(1)
  ),
  name: optional(Flag.String("name")).pipe(Flag.withMetavar("NAME"), Flag.withDescription("Name of the new profile")),
  output: optional(Flag.String("output").pipe(Flag.withAlias("o"))).pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Where to write it; standard output without it")
  )
}

/** How many times faster the other machine's clock is, from whichever flag says it. */
const clockRatioOf = (
  { clockGhz, clockRatio }: { readonly clockGhz: number | undefined; readonly clockRatio: number | undefined },
  from: string,
  clockMhz: number | undefined
) => {
  const invalid = (line: string) => Effect.fail(new InputInvalid({ line }))
  if (clockGhz !== undefined && clockRatio !== undefined) {
    return invalid("--clock-ratio: given with --clock-ghz, expected one of them")
  }
  if (clockRatio !== undefined) return Effect.succeed(clockRatio)
  if (clockGhz === undefined) return invalid("--clock-ghz: missing, expected this option or --clock-ratio")
  if (clockMhz === undefined) return invalid(oneLine(`${from}: clockMhz: missing, expected this key or --clock-ratio`))
  return Effect.succeed((clockGhz * 1_000) / clockMhz)
}

/** `vmpl-lab profile derive`: a profile of another machine by two numbers. */
const derive = Command.make(
  "derive",
  flags,
  Effect.fn("profile derive")(function* (options) {
    const [{ loadProfile, parseProfile }, { deriveProfile }] = yield* Effect.promise(() =>
      Promise.all([import("./ProfileFile.ts"), import("./derive/DeriveProfile.ts")])
    )
    const from = yield* loadProfile(options.from, "from")
    const clockRatio = yield* clockRatioOf(options, options.from, from.clockMhz)
    const { mitigations, output } = options
    const factors = `clock ratio ${Number(clockRatio.toPrecision(6))}, mitigation factor ${mitigations}`
    const name = options.name ?? `${from.name}-derived`
    const machine = `derived from ${from.machine}: ${factors}`
    const note = `Derived from profile ${from.name} by ${factors}; nothing was fitted to the machine.`
    const { primitives, sums, ...head } = deriveProfile(from, { name, machine, clockRatio, mitigations })
    const json = `${JSON.stringify({ ...head, note, primitives, sums }, null, 2)}\n`
    // The rules of a profile hold for this one too: a price can have become too large, or the name be none.
    yield* Effect.fromResult(parseProfile("derived profile", json))
    if (output === undefined) return yield* writeOut(json)
    const fs = yield* FileSystem.FileSystem
    yield* Effect.mapError(
      fs.writeFileString(output, json),
      (error) => new InputInvalid({ line: oneLine(`--output: ${output}: cannot be written: ${reason(error)}`) })
    )
  })
).pipe(Command.withDescription("Derive a profile of another machine by its clock and one mitigation factor"))

/** `vmpl-lab profile`: what can be done with profiles. */
export const profileCommand = Command.make("profile").pipe(
  Command.withDescription("Derive profiles of other machines"),
  Command.withSubcommands([derive])
)
