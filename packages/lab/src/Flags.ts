import * as Flag from "effect/cli/Flag"
import * as Option from "effect/Option"

/** What a number on the command line may be: digits, or hexadecimal where that is usual. */
const wholeNumber = (text: string, low: number, high: number, radix: RegExp): Option.Option<number> => {
  const value = radix.test(text) ? Number(text) : Number.NaN
  return value >= low && value <= high ? Option.some(value) : Option.none()
}

/** A flag with a whole number in decimal digits, both bounds allowed: no `1e3`, no `0x10`, no blanks. */
export const numberFlag = (name: string, low: number, high: number): Flag.Flag<number> =>
  Flag.String(name).pipe(
    Flag.withMetavar("N"),
    Flag.filterMap(
      (text) => wholeNumber(text, low, high, /^\d+$/),
      () => `a whole number from ${low} to ${high}`
    )
  )

/** A flag with a bit field or an identifier, decimal or `0x` hexadecimal. */
export const hexFlag = (name: string, high: number): Flag.Flag<number> =>
  Flag.String(name).pipe(
    Flag.withMetavar("VALUE"),
    Flag.filterMap(
      (text) => wholeNumber(text, 0, high, /^(\d+|0x[0-9a-f]+)$/i),
      () => `a whole number from 0 to 0x${high.toString(16)}, decimal or 0x...`
    )
  )

/** An optional flag: undefined when it is not given. */
export const optional = <A>(flag: Flag.Flag<A>): Flag.Flag<A | undefined> =>
  flag.pipe(Flag.optional, Flag.map(Option.getOrUndefined))

/** A switch that is off unless given. */
export const switchFlag = (name: string): Flag.Flag<boolean> => Flag.Boolean(name).pipe(Flag.withDefault(false))

/** Costs of one machine, by name or as a file. */
export const profileFlag = Flag.String("profile").pipe(
  Flag.withMetavar("NAME|FILE"),
  Flag.withDescription("Costs of one machine"),
  Flag.withDefault("epyc-9654p")
)

/** What the guest is launched from instead of a firmware image. */
export const igvmFlag = optional(Flag.String("igvm")).pipe(
  Flag.withMetavar("FILE"),
  Flag.withDescription("IGVM file instead, which says all that is launched")
)

/** The seed of all random streams. */
export const seedFlag = numberFlag("seed", 0, Number.MAX_SAFE_INTEGER).pipe(
  Flag.withDescription("Equal seeds give equal results"),
  Flag.withDefault(1)
)
