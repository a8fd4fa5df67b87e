/** So many bytes as they are. */
export interface BytesField {
  readonly kind: "bytes"
  readonly length: number
}

/** One field of a structure in guest memory: little-endian numbers, or bytes. */
export type StructField = "u8" | "u16" | "u32" | "u64" | BytesField
export type StructFields = { readonly [name: string]: StructField }

/** A structure's value: a `number`, a `bigint` for 64 bits, or a `Uint8Array`. */
export type StructValue<F extends StructFields> = {
  readonly [K in keyof F]: F[K] extends BytesField ? Uint8Array : F[K] extends "u64" ? bigint : number
}

type Values = { readonly [name: string]: number | bigint | Uint8Array }

export const bytes = (length: number): BytesField => ({ kind: "bytes", length })

const NUMBER_SIZE = { u8: 1, u16: 2, u32: 4, u64: 8 } as const

const sizeOf = (field: StructField): number => (typeof field === "string" ? NUMBER_SIZE[field] : field.length)

/** Bytes of a structure: its fields one behind the other, without gaps. */
export const structSize = (fields: StructFields): number =>
  Object.values(fields).reduce((sum, field) => sum + sizeOf(field), 0)

const unsigned = (from: Uint8Array): bigint => from.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n)

export const decodeStruct = (fields: StructFields, from: Uint8Array): Values => {
  let at = 0
  return Object.fromEntries(
    Object.entries(fields).map(([name, field]) => {
      const part = from.slice(at, at + sizeOf(field))
      at += part.length
      if (typeof field !== "string") return [name, part]
      return [name, field === "u64" ? unsigned(part) : Number(unsigned(part))]
    })
  )
}

/** Numbers are cut to their field's size; bytes too, and shorter ones are filled up with zeros. Zero for what is left out. */
export const encodeStruct = (fields: StructFields, values: Partial<Values>): Uint8Array => {
  const into = new Uint8Array(structSize(fields))
  let at = 0
  for (const [name, field] of Object.entries(fields)) {
    const size = sizeOf(field)
    const value = values[name] ?? 0
    if (value instanceof Uint8Array) into.set(value.subarray(0, size), at)
    else {
      let rest = BigInt.asUintN(8 * size, BigInt(value))
      for (let i = 0; i < size; i++, rest >>= 8n) into[at + i] = Number(rest & 0xffn)
    }
    at += size
  }
  return into
}
