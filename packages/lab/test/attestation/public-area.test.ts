import { describe, expect, it } from "vitest"
import { testEndorsementPublic } from "../../src/attestation/EndorsementPublic.ts"
import { expectPublicArea } from "../../src/attestation/PublicArea.ts"

const u16 = (value: number) => [value >> 8, value & 0xff]
const sized = (bytes: ReadonlyArray<number>) => [...u16(bytes.length), ...bytes]
/** An ECC signing key on P-256 without a policy: ECDSA with SHA-256, no symmetric algorithm and no KDF. */
const ecc = Uint8Array.from([
  ...u16(0x23),
  ...u16(0x0b),
  ...[0, 4, 0, 0x72],
  ...sized([]),
  ...u16(0x10),
  ...[...u16(0x18), ...u16(0x0b)],
  ...u16(3),
  ...u16(0x10),
  ...sized(Array<number>(32).fill(1)),
  ...sized(Array<number>(32).fill(2))
])
const rsa = testEndorsementPublic()
const check = (bytes: Uint8Array) => () => expectPublicArea("k", bytes)
const changed = (bytes: Uint8Array, at: number, ...values: ReadonlyArray<number>) => {
  const copy = bytes.slice()
  copy.set(values, at)
  return copy
}

describe("a TPMT_PUBLIC", () => {
  it.each([
    ["RSA", rsa],
    ["ECC", ecc]
  ])("of %s is taken whole, and at no other length", (_, bytes) => {
    check(bytes)()
    for (let length = 0; length < bytes.length; length++) {
      expect(check(bytes.subarray(0, length)), `${length}`).toThrow(
        `k: ends at byte 0x${length.toString(16)}, expected`
      )
    }
    const end = `0x${bytes.length.toString(16)}`
    expect(check(Uint8Array.from([...bytes, 0]))).toThrow(`k: bytes ${end} to ${end} are too many`)
  })

  it.each([
    ["another type", changed(rsa, 0, 0, 8), "k: bytes 0x0 to 0x1: type is 0x8, expected"],
    ["a TPM2B_PUBLIC", Uint8Array.from(sized([...rsa])), "this is a TPM2B_PUBLIC"],
    ["reserved attributes", changed(rsa, 4, 0x80), "k: bytes 0x4 to 0x7: attributes are 0x800300b2, expected zeros"],
    ["a policy of no digest's size", changed(rsa, 8, 0, 31), "k: bytes 0x8 to 0x9: size of the policy is 31"],
    ["a modulus that is not of the key's bits", changed(rsa, 50, 8, 8), "size of the modulus is 256, expected 257"],
    ["an empty coordinate", changed(ecc, 20, 0, 0), "size of x is 0, expected 1 to 66"]
  ])("is not %s", (_, bytes, line) => {
    expect(check(bytes)).toThrow(line)
  })
})
