import * as Flag from "effect/cli/Flag"
import * as Option from "effect/Option"

/** Bytes in hexadecimal, at least one and at most `size`, filled up with zeros to `size`. */
const bytesIn = (text: string, least: number, size: number): Option.Option<Uint8Array> => {
  if (!/^([0-9a-f]{2})+$/i.test(text) || text.length < 2 * least || text.length > 2 * size) return Option.none()
  const bytes = new Uint8Array(size)
  bytes.set(Buffer.from(text, "hex"))
  return Option.some(bytes)
}

/** What a report is to be fresh by: 1 to 64 bytes, with zeros behind them to 64. */
export const nonceFlag = (name: string): Flag.Flag<Uint8Array> =>
  Flag.String(name).pipe(
    Flag.withMetavar("HEX"),
    Flag.withDescription("Up to 64 bytes that the report is to be fresh by, with zeros behind them"),
    Flag.filterMap(
      (text) => bytesIn(text, 1, 64),
      () => "1 to 64 bytes in hexadecimal, two digits each"
    )
  )

/** Exactly `size` bytes. */
export const bytesFlag = (name: string, size: number): Flag.Flag<Uint8Array> =>
  Flag.String(name).pipe(
    Flag.withMetavar("HEX"),
    Flag.filterMap(
      (text) => bytesIn(text, size, size),
      () => `${size} bytes in hexadecimal, two digits each`
    )
  )

/** A launch digest. */
export const digestFlag = (name: string): Flag.Flag<Uint8Array> =>
  bytesFlag(name, 48).pipe(Flag.withDescription("Launch digest that the report must have"))
