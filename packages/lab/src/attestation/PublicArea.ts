import { BadBytes, hex } from "./BadBytes.ts"

const ALG_NULL = 0x0010
const ALG = { RSA: 0x0001, ECC: 0x0023 } as const
/** Bits of TPMA_OBJECT that mean nothing, also to TPMs of later revisions. @spec TPM2-PART2 8.3 */
const ATTRIBUTES_RESERVED = 0xfff0_f009
const DIGESTS = [0, 20, 32, 48, 64]
const UNIQUE_MAX = 512

/** Reads big-endian fields one after the other, and says where they end too early. */
class Fields {
  at = 0
  readonly #bytes: Uint8Array
  readonly #name: string

  constructor(bytes: Uint8Array, name: string) {
    this.#bytes = bytes
    this.#name = name
  }

  number(size: 2 | 4, what: string): number {
    const at = this.#skip(size, what)
    return this.#bytes.subarray(at, at + size).reduce((value, byte) => value * 256 + byte, 0)
  }

  /** Bytes with their size before them. */
  sized(what: string, isSize: (size: number) => boolean, expected: string): void {
    const size = this.number(2, `the size of ${what}`)
    if (!isSize(size)) this.refuse(2, `size of ${what} is ${size}, expected ${expected}`)
    this.#skip(size, what)
  }

  /** @param size how many bytes before here are meant */
  refuse(size: number, why: string): never {
    throw new BadBytes(`${this.#name}: bytes ${hex(this.at - size)} to ${hex(this.at - 1)}: ${why}`)
  }

  end(): void {
    const { length } = this.#bytes
    if (this.at === length) return
    const range = `bytes ${hex(this.at)} to ${hex(length - 1)}`
    throw new BadBytes(`${this.#name}: ${range} are too many, expected a TPMT_PUBLIC of ${hex(this.at)} bytes`)
  }

  #skip(size: number, what: string): number {
    const { at } = this
    if (at + size > this.#bytes.length) {
      throw new BadBytes(`${this.#name}: ends at byte ${hex(this.#bytes.length)}, expected ${what} there`)
    }
    this.at += size
    return at
  }
}

/** An algorithm, and what belongs to it unless it is none. */
const algorithm = (fields: Fields, what: string, belonging: ReadonlyArray<string>): void => {
  if (fields.number(2, what) === ALG_NULL) return
  for (const one of belonging) fields.number(2, one)
}

/**
 * Refuses what is not the TPMT_PUBLIC of an RSA or ECC key, such as the TPM2B_PUBLIC that `tpm2_createek -u` writes.
 * @spec TPM2-PART2 12.2.4
 */
export const expectPublicArea = (name: string, bytes: Uint8Array): void => {
  const fields = new Fields(bytes, name)
  const type = fields.number(2, "a type")
  if (type !== ALG.RSA && type !== ALG.ECC) {
    const boxed = type === bytes.length - 2 ? "; this is a TPM2B_PUBLIC, which has its size before it" : ""
    fields.refuse(2, `type is ${hex(type)}, expected that of a TPMT_PUBLIC, RSA 0x1 or ECC 0x23${boxed}`)
  }
  fields.number(2, "the name's algorithm")
  const attributes = fields.number(4, "attributes")
  if ((attributes & ATTRIBUTES_RESERVED) !== 0) {
    fields.refuse(
      4,
      `attributes are ${hex(attributes)}, expected zeros in the reserved bits ${hex(ATTRIBUTES_RESERVED)}`
    )
  }
  fields.sized("the policy", (size) => DIGESTS.includes(size), `one of ${DIGESTS.join(", ")}`)
  algorithm(fields, "the symmetric algorithm", ["its key bits", "its mode"])
  algorithm(fields, "the scheme", ["its hash"])
  const upTo = (most: number) => (size: number) => size > 0 && size <= most
  if (type === ALG.RSA) {
    const bits = fields.number(2, "the key bits")
    fields.number(4, "the exponent")
    fields.sized("the modulus", (size) => size === bits / 8 && size <= UNIQUE_MAX, `${bits / 8}, of ${bits} key bits`)
  } else {
    fields.number(2, "the curve")
    algorithm(fields, "the KDF", ["its hash"])
    for (const part of ["x", "y"]) fields.sized(part, upTo(66), "1 to 66")
  }
  fields.end()
}
