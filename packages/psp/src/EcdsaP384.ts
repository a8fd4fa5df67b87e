import { createECDH, createHash, createHmac, createPublicKey, type KeyObject } from "node:crypto"

/** Order of the group of P-384. */
const N = 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n
const SCALAR_SIZE = 48

/** Bytes of r and of s in AMD's signature, and of the whole signature. @spec SNP-ABI "signature format" */
const COMPONENT_SIZE = 72
export const SIGNATURE_SIZE = 512

/** A signature of ECDSA P-384 with SHA-384. */
export interface EcdsaSignature {
  readonly r: bigint
  readonly s: bigint
}

const fromBigEndian = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString("hex")}`)

const toBigEndian = (value: bigint, size: number): Uint8Array =>
  new Uint8Array(Buffer.from(value.toString(16).padStart(2 * size, "0"), "hex"))

/** The point k * G without its 0x04: X, then Y. */
const pointOf = (scalar: bigint): { readonly x: Uint8Array; readonly y: Uint8Array } => {
  const ecdh = createECDH("secp384r1")
  ecdh.setPrivateKey(toBigEndian(scalar, SCALAR_SIZE))
  const point = new Uint8Array(ecdh.getPublicKey())
  return { x: point.slice(1, 1 + SCALAR_SIZE), y: point.slice(1 + SCALAR_SIZE) }
}

/** A private key from bytes that are at least 8 longer than the order: (c mod (n - 1)) + 1, c little-endian. */
export const scalarFromExtraBits = (bytes: Uint8Array): bigint =>
  (fromBigEndian(bytes.slice().reverse()) % (N - 1n)) + 1n

/** The public key of a private one. */
export const publicKeyOf = (scalar: bigint): KeyObject => {
  const { x, y } = pointOf(scalar)
  const encoded = (part: Uint8Array): string => Buffer.from(part).toString("base64url")
  return createPublicKey({ key: { kty: "EC", crv: "P-384", x: encoded(x), y: encoded(y) }, format: "jwk" })
}

/** Inverse modulo N by Fermat. */
const inverse = (value: bigint): bigint => {
  let result = 1n
  let base = value % N
  for (let exponent = N - 2n; exponent > 0n; exponent >>= 1n) {
    if ((exponent & 1n) === 1n) result = (result * base) % N
    base = (base * base) % N
  }
  return result
}

const hmac = (key: Uint8Array, ...parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const mac = createHmac("sha384", key)
  for (const part of parts) mac.update(part)
  return new Uint8Array(mac.digest())
}

/** Candidates for the secret number of a signature, drawn from key and digest as RFC 6979 section 3.2 says. */
function* nonces(scalar: bigint, digest: bigint): Generator<bigint, never> {
  const seed = [toBigEndian(scalar, SCALAR_SIZE), toBigEndian(digest % N, SCALAR_SIZE)]
  let key: Uint8Array = new Uint8Array(SCALAR_SIZE)
  let value: Uint8Array = new Uint8Array(SCALAR_SIZE).fill(1)
  for (const round of [0, 1]) {
    key = hmac(key, value, Uint8Array.of(round), ...seed)
    value = hmac(key, value)
  }
  for (;;) {
    value = hmac(key, value)
    const candidate = fromBigEndian(value)
    if (candidate > 0n && candidate < N) yield candidate
    key = hmac(key, value, Uint8Array.of(0))
    value = hmac(key, value)
  }
}

/**
 * Signs with ECDSA P-384 and SHA-384. The secret number comes from key and message, so that a run can be repeated byte
 * by byte; node's own signatures draw it at random. It is as good a signature: a verifier cannot tell.
 * @spec-silent how the firmware draws it
 */
export const signP384 = (scalar: bigint, message: Uint8Array): EcdsaSignature => {
  const digest = fromBigEndian(createHash("sha384").update(message).digest())
  for (const nonce of nonces(scalar, digest)) {
    const r = fromBigEndian(pointOf(nonce).x) % N
    const s = (inverse(nonce) * (digest + r * scalar)) % N
    if (r !== 0n && s !== 0n) return { r, s }
  }
  throw new Error("signP384: the source of nonces has ended")
}

/** AMD's form: r and s little-endian in 72 bytes each, the rest zero. @spec SNP-ABI "signature format" */
export const signatureBytes = ({ r, s }: EcdsaSignature): Uint8Array => {
  const bytes = new Uint8Array(SIGNATURE_SIZE)
  bytes.set(toBigEndian(r, COMPONENT_SIZE).reverse(), 0)
  bytes.set(toBigEndian(s, COMPONENT_SIZE).reverse(), COMPONENT_SIZE)
  return bytes
}
