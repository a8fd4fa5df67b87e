import { createPrivateKey, hkdfSync, type KeyObject } from "node:crypto"

/**
 * The RSA keys of the project's own test root. They are no secret: each prime is the first one from a start that a seed
 * gives, so that everybody has the same keys and no private key needs to be kept. The distances from start to prime save
 * the search; a test makes it again.
 */
export const TEST_KEYS = {
  ARK: { bits: 4096, distances: [274, 470] },
  ASK: { bits: 4096, distances: [180, 920] },
  ASVK: { bits: 4096, distances: [796, 1192] },
  EK: { bits: 2048, distances: [88, 94] }
} as const satisfies {
  readonly [name: string]: { readonly bits: number; readonly distances: readonly [number, number] }
}

export type TestKeyName = keyof typeof TEST_KEYS

const PUBLIC_EXPONENT = 0x1_0001n

/** Where the search for a prime begins: both top bits set, so that a product of two has its full length; odd. */
export const primeStart = (name: TestKeyName, which: 0 | 1): bigint => {
  const bits = TEST_KEYS[name].bits / 2
  const bytes = new Uint8Array(hkdfSync("sha512", "vmpl-lab test root", name, `prime ${which}`, bits / 8))
  const top = 3n << BigInt(bits - 2)
  return BigInt(`0x${Buffer.from(bytes).toString("hex")}`) | top | 1n
}

/** Inverse by Euclid's algorithm. */
const inverse = (value: bigint, modulus: bigint): bigint => {
  let [r, nextR, t, nextT] = [modulus, value % modulus, 0n, 1n]
  while (nextR !== 0n) {
    const quotient = r / nextR
    ;[r, nextR, t, nextT] = [nextR, r - quotient * nextR, nextT, t - quotient * nextT]
  }
  return ((t % modulus) + modulus) % modulus
}

const bytesOf = (value: bigint): Buffer => {
  const digits = value.toString(16)
  return Buffer.from(digits.padStart(digits.length + (digits.length % 2), "0"), "hex")
}

const base64 = (value: bigint): string => bytesOf(value).toString("base64url")

const keys = new Map<TestKeyName, KeyObject>()

/** A private key of the test root. */
export const testKey = (name: TestKeyName): KeyObject => {
  const known = keys.get(name)
  if (known !== undefined) return known
  const [first, second] = TEST_KEYS[name].distances
  const p = primeStart(name, 0) + BigInt(first)
  const q = primeStart(name, 1) + BigInt(second)
  const d = inverse(PUBLIC_EXPONENT, (p - 1n) * (q - 1n))
  const parts = { n: p * q, e: PUBLIC_EXPONENT, d, p, q, dp: d % (p - 1n), dq: d % (q - 1n), qi: inverse(q, p) }
  const jwk = Object.fromEntries(Object.entries(parts).map(([part, value]) => [part, base64(value)]))
  const key = createPrivateKey({ key: { kty: "RSA", ...jwk }, format: "jwk" })
  keys.set(name, key)
  return key
}

/** Modulus of a public key, big-endian, without leading zeros. */
export const modulusOf = (key: KeyObject): Uint8Array =>
  new Uint8Array(Buffer.from(key.export({ format: "jwk" }).n ?? "", "base64url"))
