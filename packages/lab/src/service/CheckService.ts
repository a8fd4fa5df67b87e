import { PROTOCOL } from "@vmpl-lab/guest"
import { CALL_REGISTERS } from "@vmpl-lab/svsm"
import { shown } from "../InputInvalid.ts"
import type { CapabilityName, ResultName, Service } from "./Define.ts"
import { type StructFields, structSize } from "./Struct.ts"

const U32_MAX = 0xffff_ffff
/** AMD's reference code has these. @spec SVSM 3 */
const RESERVED = { first: 0x8000_0000, last: 0x8000_ffff } as const
const SERVICE_KEYS = ["name", "protocol", "version", "errors", "calls"]
const CALL_KEYS = ["call", "uses", "costNs", "request", "reply", "example", "handler"]
const BUFFER_MAX = 8192
const CAPABILITIES: ReadonlyArray<CapabilityName> = ["secrets", "firmware", "clock", "random", "host"]
const RESULTS: ReadonlyArray<ResultName> = [
  "INCOMPLETE",
  "BUSY",
  "INVALID_ADDRESS",
  "INVALID_FORMAT",
  "INVALID_PARAMETER",
  "INVALID_REQUEST"
]
const FAILURE_MAX = 0x7fff_efff
const NUMBERS = ["u8", "u16", "u32", "u64"]

type Trouble = string | undefined
type Shape = { readonly [key: string]: unknown }

const isObject = (value: unknown): value is Shape => typeof value === "object" && value !== null
const isWhole = (value: unknown, low: number, high: number): boolean =>
  Number.isInteger(value) && (value as number) >= low && (value as number) <= high

const expected = (path: string, what: string, got: unknown): string => `${path}: expected ${what}, got ${shown(got)}`

const wholeTrouble = (path: string, value: unknown, low: number, high: number): Trouble =>
  isWhole(value, low, high) ? undefined : expected(path, `a whole number from ${low} to ${high}`, value)

const first = (troubles: Iterable<Trouble>): Trouble => {
  for (const trouble of troubles) if (trouble !== undefined) return trouble
  return undefined
}

/** A key that nobody reads would be lost without a word: a call's own `errors`, or an option that is spelt wrong. */
const unknownTrouble = (path: string, value: Shape, keys: ReadonlyArray<string>): Trouble => {
  const unknown = Object.keys(value).find((key) => !keys.includes(key))
  return unknown === undefined ? undefined : `${path}${unknown}: unknown, expected one of ${keys.join(", ")}`
}

const registerTrouble = (path: string, value: unknown): Trouble =>
  (CALL_REGISTERS as ReadonlyArray<unknown>).includes(value)
    ? undefined
    : expected(path, CALL_REGISTERS.join(", "), value)

const sizeTrouble = (path: string, size: unknown): Trouble => {
  if (!isObject(size)) return wholeTrouble(path, size, 1, BUFFER_MAX)
  return (
    registerTrouble(`${path}.register`, size.register) ??
    wholeTrouble(`${path}.max`, size.max, 1, BUFFER_MAX) ??
    wholeTrouble(`${path}.min`, size.min, 1, size.max as number)
  )
}

/** Fields of a structure: numbers by their names, or bytes. */
const structTrouble = (path: string, fields: unknown): Trouble => {
  if (!isObject(fields) || Object.keys(fields).length === 0)
    return expected(path, "an object of at least one field", fields)
  return first(
    Object.entries(fields).map(([name, field]) => {
      if (isObject(field) && field.kind === "bytes")
        return wholeTrouble(`${path}.${name}.length`, field.length, 1, BUFFER_MAX)
      return NUMBERS.includes(field as string)
        ? undefined
        : expected(`${path}.${name}`, `${NUMBERS.join(", ")} or bytes(length)`, field)
    })
  )
}

const fieldTrouble = (path: string, field: unknown, kinds: ReadonlyArray<string>): Trouble => {
  if (!isObject(field) || !kinds.includes(field.kind as string)) return expected(path, kinds.join(", "), field)
  if (field.kind === "buffer reply") return structTrouble(path, field.fields)
  const register = registerTrouble(`${path}.register`, field.register)
  if (register !== undefined || (field.kind !== "buffer" && field.kind !== "struct")) return register
  const inside = field.kind === "struct" ? structTrouble(path, field.fields) : undefined
  if (inside !== undefined) return inside
  const { align } = field
  if (!isWhole(align, 1, 4096) || ((align as number) & ((align as number) - 1)) !== 0)
    return expected(`${path}.align`, "a power of two up to 4096", align)
  return sizeTrouble(`${path}.size`, field.size)
}

const fieldsTrouble = (path: string, fields: unknown, kinds: ReadonlyArray<string>): Trouble => {
  if (!isObject(fields)) return expected(path, "an object of fields", fields)
  const entries = Object.entries(fields)
  const wrong = first(entries.map(([name, field]) => fieldTrouble(`${path}.${name}`, field, kinds)))
  if (wrong !== undefined) return wrong
  const places = entries.filter(([, field]) => (field as Shape).kind !== "buffer reply")
  const registers = places.map(([, field]) => (field as Shape).register)
  const twice = places.find((_, i) => registers.indexOf(registers[i]) !== i)
  return twice && `${path}.${twice[0]}: ${shown((twice[1] as Shape).register)} is another field's, expected each once`
}

interface ExampleField {
  readonly kind: string
  readonly size: number | { readonly max: number }
  readonly fields: StructFields
}

const structExampleTrouble = (path: string, value: unknown, fields: StructFields): Trouble => {
  if (!isObject(value)) return expected(path, "an object of the structure's fields", value)
  return first(
    Object.entries(value).map(([name, part]) => {
      const field = fields[name]
      const at = `${path}.${name}`
      if (field === undefined) return `${at}: no field of that name, expected one of ${Object.keys(fields).join(", ")}`
      if (typeof field !== "string") return part instanceof Uint8Array ? undefined : expected(at, "a Uint8Array", part)
      if (field === "u64") return typeof part === "bigint" ? undefined : expected(at, "a bigint", typeof part)
      return wholeTrouble(at, part, 0, 2 ** Number(field.slice(1)) - 1)
    })
  )
}

/** A structure of the reply has to fit into the smallest buffer that its guest may name. */
const bufferReplyTrouble = (path: string, reply: Shape, request: Shape): Trouble =>
  first(
    Object.entries(reply).map(([name, field]) => {
      const { kind, buffer, fields } = field as { kind: string; buffer: string; fields: StructFields }
      if (kind !== "buffer reply") return undefined
      const buffers = Object.entries(request).filter(([, one]) =>
        ["buffer", "struct"].includes((one as Shape).kind as string)
      )
      const found = buffers.find(([key]) => key === buffer)
      if (found === undefined)
        return expected(
          `${path}.${name}.buffer`,
          `one of the request's buffers (${buffers.map(([key]) => key)})`,
          buffer
        )
      const { size } = found[1] as { readonly size: number | { readonly min: number } }
      const least = typeof size === "number" ? size : size.min
      const needed = structSize(fields)
      return needed <= least ? undefined : `${path}.${name}: ${needed} bytes, expected at most ${buffer}'s ${least}`
    })
  )

const errorsTrouble = (errors: unknown): Trouble => {
  if (errors === undefined) return undefined
  if (!isObject(errors)) return expected("errors", "an object of result codes by tag", errors)
  return first(
    Object.entries(errors).map(([tag, why]) =>
      (RESULTS as ReadonlyArray<unknown>).includes(why) || isWhole(why, 0, FAILURE_MAX)
        ? undefined
        : expected(`errors.${tag}`, `a whole number from 0 to ${FAILURE_MAX} or one of ${RESULTS.join(", ")}`, why)
    )
  )
}

const exampleTrouble = (path: string, example: unknown, fields: Shape): Trouble => {
  if (example === undefined) return undefined
  if (!isObject(example)) return expected(path, "an object of arguments", example)
  return first(
    Object.entries(example).map(([name, value]) => {
      const field = fields[name] as ExampleField | undefined
      if (field === undefined)
        return `${path}.${name}: no field of that name, expected one of ${Object.keys(fields).join(", ")}`
      if (field.kind === "u32") return wholeTrouble(`${path}.${name}`, value, 0, U32_MAX)
      if (field.kind === "u64")
        return typeof value === "bigint" ? undefined : expected(`${path}.${name}`, "a bigint", typeof value)
      if (field.kind === "struct") return structExampleTrouble(`${path}.${name}`, value, field.fields)
      const most = typeof field.size === "number" ? field.size : field.size.max
      const fits = value instanceof Uint8Array && value.length <= most
      return fits ? undefined : expected(`${path}.${name}`, `a Uint8Array of at most ${most} bytes`, typeof value)
    })
  )
}

const callTrouble = (path: string, call: unknown): Trouble => {
  if (!isObject(call)) return expected(path, "a call of defineCall", call)
  const { uses } = call
  return (
    unknownTrouble(`${path}.`, call, CALL_KEYS) ??
    wholeTrouble(`${path}.call`, call.call, 0, U32_MAX) ??
    wholeTrouble(`${path}.costNs`, call.costNs, 0, 1_000_000_000) ??
    (Array.isArray(uses) && uses.every((use) => CAPABILITIES.includes(use))
      ? undefined
      : expected(`${path}.uses`, `a list of ${CAPABILITIES.join(", ")}`, uses)) ??
    fieldsTrouble(`${path}.request`, call.request, ["u32", "u64", "buffer", "struct"]) ??
    fieldsTrouble(`${path}.reply`, call.reply, ["u32", "u64", "buffer reply"]) ??
    bufferReplyTrouble(`${path}.reply`, call.reply as Shape, call.request as Shape) ??
    exampleTrouble(`${path}.example`, call.example, call.request as Shape) ??
    (typeof call.handler === "function" ? undefined : expected(`${path}.handler`, "a function", call.handler))
  )
}

const protocolTrouble = (protocol: unknown): Trouble => {
  const whole = wholeTrouble("protocol", protocol, 0, U32_MAX)
  if (whole !== undefined) return whole
  const number = protocol as number
  const isTaken = number <= PROTOCOL.UEFI_MM || (number >= RESERVED.first && number <= RESERVED.last)
  const taken = `0 to ${PROTOCOL.UEFI_MM} (${Object.keys(PROTOCOL).join(", ")}) and 0x80000000 to 0x8000ffff are taken`
  return isTaken ? `protocol: ${number}, but ${taken}` : undefined
}

/** What is wrong with something that should be a service, as path, expectation and what was found. */
export const serviceTrouble = (service: unknown): Trouble => {
  if (!isObject(service)) return expected("default export", "a service of defineService", service)
  const unknown = unknownTrouble("", service, SERVICE_KEYS)
  if (unknown !== undefined) return unknown
  const { name, version, calls } = service
  if (typeof name !== "string" || !/^[\w .-]{1,40}$/.test(name))
    return expected("name", "1 to 40 letters, digits or dashes", name)
  const protocol = protocolTrouble(service.protocol)
  if (protocol !== undefined) return protocol
  if (!isObject(version)) return expected("version", "an object of min and max", version)
  const versions =
    wholeTrouble("version.max", version.max, 1, U32_MAX) ??
    wholeTrouble("version.min", version.min, 1, version.max as number)
  if (versions !== undefined) return versions
  const errors = errorsTrouble(service.errors)
  if (errors !== undefined) return errors
  if (!isObject(calls) || Object.keys(calls).length === 0)
    return expected("calls", "an object of at least one call", calls)
  const entries = Object.entries(calls)
  const wrong = first(entries.map(([key, call]) => callTrouble(`calls.${key}`, call)))
  if (wrong !== undefined) return wrong
  const numbers = Object.values((service as unknown as Service).calls).map(({ call }) => call)
  const twice = numbers.findIndex((number, i) => numbers.indexOf(number) !== i)
  return twice < 0
    ? undefined
    : `calls.${entries[twice]![0]}.call: ${numbers[twice]} is another call's, expected each once`
}
