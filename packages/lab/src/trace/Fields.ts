import { type PageSize, PERMISSION } from "@vmpl-lab/rmp"
import { shown } from "../InputInvalid.ts"

/** What is wrong with a line: the key (a path such as `npt.spa`, empty for the line as a whole) and what was expected. */
export class LineInvalid extends Error {
  readonly key: string
  readonly expected: string

  /** `found` says what stands there instead, such as `got 5` or `missing`. */
  constructor(key: string, found: string, expected: string) {
    super(`${key === "" ? "" : `${key}: `}${found}, expected ${expected}`)
    this.key = key
    this.expected = expected
  }
}

/** Frames of addresses below 2^52. */
const FRAMES = 2 ** 40
const HEX = /^0x[0-9a-fA-F]+$/
const ADDRESS = 'a 4 KiB aligned address below 2^52 as a hexadecimal string such as "0x1000"'
const LARGE_ADDRESS = 'a 2 MiB aligned address below 2^52 as a hexadecimal string such as "0x200000"'

/** Frame of an address text, -1 when it is none, too high or not a multiple of 4 KiB. */
const frameOf = (value: unknown): number => {
  if (typeof value !== "string" || !HEX.test(value)) return -1
  const frame = Number(value) / 4096
  return Number.isInteger(frame) && frame < FRAMES ? frame : -1
}

/**
 * The keys of one JSON object, each read once by the method that says what it must hold. A wrong, missing or unknown
 * key throws LineInvalid: the first in the order of reading, unknown keys last.
 */
export class Fields {
  readonly #record: { readonly [key: string]: unknown }
  readonly #path: string
  readonly #read: Array<string> = []

  /** `path` is the key that holds the object, empty for the line itself. */
  constructor(value: unknown, path = "") {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new LineInvalid(path, `got ${shown(value)}`, "a JSON object")
    this.#record = value as { readonly [key: string]: unknown }
    this.#path = path
  }

  #pathOf(key: string): string {
    return this.#path === "" ? key : `${this.#path}.${key}`
  }

  #refuse(key: string, expected: string): LineInvalid {
    const value = this.#record[key]
    return new LineInvalid(this.#pathOf(key), value === undefined ? "missing" : `got ${shown(value)}`, expected)
  }

  #value(key: string): unknown {
    this.#read.push(key)
    return this.#record[key]
  }

  boolean(key: string): boolean {
    const value = this.#value(key)
    if (typeof value !== "boolean") throw this.#refuse(key, "true or false")
    return value
  }

  /** A whole number, both bounds allowed. */
  integer(key: string, low: number, high: number): number {
    const value = this.#value(key)
    if (typeof value !== "number" || !Number.isInteger(value) || value < low || value > high)
      throw this.#refuse(key, `a whole number from ${low} to ${high}`)
    // -0 is a whole number too, and would show in replies and comparisons.
    return value + 0
  }

  choice<const Choice extends string>(key: string, choices: ReadonlyArray<Choice>): Choice {
    return this.#chosen(key, this.#value(key), choices)
  }

  /** Undefined when the key is left out. */
  optionalChoice<const Choice extends string>(key: string, choices: ReadonlyArray<Choice>): Choice | undefined {
    const value = this.#value(key)
    return value === undefined ? undefined : this.#chosen(key, value, choices)
  }

  #chosen<const Choice extends string>(key: string, value: unknown, choices: ReadonlyArray<Choice>): Choice {
    for (const choice of choices) if (value === choice) return choice
    const names = choices.map((choice) => JSON.stringify(choice))
    throw this.#refuse(key, `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`)
  }

  /** Frame number of a 4 KiB aligned address. */
  frame(key: string): number {
    const frame = frameOf(this.#value(key))
    if (frame < 0) throw this.#refuse(key, ADDRESS)
    return frame
  }

  /** Frame number of a 2 MiB aligned address. */
  largeFrame(key: string): number {
    const frame = frameOf(this.#value(key))
    if (frame < 0 || frame % 512 !== 0) throw this.#refuse(key, LARGE_ADDRESS)
    return frame
  }

  size(key: string): PageSize {
    const value = this.#value(key)
    if (value === "4K") return 0
    if (value === "2M") return 1
    throw this.#refuse(key, '"4K" or "2M"')
  }

  /** A mask from an object of five booleans. */
  mask(key: string): number {
    const perms = this.object(key, "an object of read, write, executeUser, executeSupervisor and shadowStack")
    const mask =
      (perms.boolean("read") ? PERMISSION.READ : 0) |
      (perms.boolean("write") ? PERMISSION.WRITE : 0) |
      (perms.boolean("executeUser") ? PERMISSION.EXECUTE_USER : 0) |
      (perms.boolean("executeSupervisor") ? PERMISSION.EXECUTE_SUPERVISOR : 0) |
      (perms.boolean("shadowStack") ? PERMISSION.SHADOW_STACK : 0)
    perms.end()
    return mask
  }

  /** A text that is not empty. */
  text(key: string): string {
    const value = this.#value(key)
    if (typeof value !== "string" || value === "") throw this.#refuse(key, "a text that is not empty")
    return value
  }

  /** Bytes from a text of hexadecimal digits, two for each. */
  bytes(key: string, max: number): Uint8Array {
    const value = this.#value(key)
    if (typeof value !== "string" || !/^([0-9a-fA-F]{2})+$/.test(value) || value.length > max * 2)
      throw this.#refuse(key, `1 to ${max} bytes as hexadecimal digits such as "00ff"`)
    return Uint8Array.from(Buffer.from(value, "hex"))
  }

  object(key: string, expected: string): Fields {
    const fields = this.optionalObject(key, expected)
    if (fields === undefined) throw this.#refuse(key, expected)
    return fields
  }

  /** Undefined when the key is left out. */
  optionalObject(key: string, expected: string): Fields | undefined {
    const value = this.#value(key)
    if (value === undefined) return undefined
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.#refuse(key, expected)
    return new Fields(value, this.#pathOf(key))
  }

  /** All keys have been read: any other is unknown. */
  end(): void {
    for (const key in this.#record) {
      if (this.#read.includes(key)) continue
      throw new LineInvalid(this.#pathOf(key), "unknown key", `only ${this.#read.join(", ")}`)
    }
  }
}
