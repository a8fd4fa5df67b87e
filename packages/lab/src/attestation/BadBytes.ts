/** Bytes that are not what they are taken for. The message is one line: file, bytes, what was found and expected. */
export class BadBytes extends Error {
  readonly _tag = "BadBytes"
}

/** Refuses other lengths than `size`, naming the bytes that are missing or too many. */
export const expectSize = (name: string, bytes: Uint8Array, size: number, what: string): void => {
  if (bytes.length < size) {
    throw new BadBytes(`${name}: ends at byte ${hex(bytes.length)}, expected ${what} of ${hex(size)} bytes`)
  }
  if (bytes.length > size) {
    const extra = `bytes ${hex(size)} to ${hex(bytes.length - 1)}`
    throw new BadBytes(`${name}: ${extra} are too many, expected ${what} of ${hex(size)} bytes`)
  }
}

/** Refuses anything but zeros in the bytes from `start` to before `end`. */
export const expectZeros = (name: string, bytes: Uint8Array, start: number, end: number): void => {
  for (let at = start; at < end; at++) {
    if (bytes[at] === 0) continue
    const place = `byte ${hex(at)} is ${hex(bytes[at]!)}`
    throw new BadBytes(`${name}: ${place}, expected zeros in the reserved bytes ${hex(start)} to ${hex(end - 1)}`)
  }
}

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`
export const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
