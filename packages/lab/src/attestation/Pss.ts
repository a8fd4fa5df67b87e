import { constants, createHash, createHmac, type KeyObject, privateEncrypt } from "node:crypto"

const HASH = "sha384"
const HASH_SIZE = 48
/** As long as the hash, which is what AMD's certificates have. */
export const SALT_SIZE = HASH_SIZE

const digestOf = (...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const hash = createHash(HASH)
  for (const part of parts) hash.update(part)
  return hash.digest()
}

/** MGF1. @spec RFC8017 B.2.1 */
const mask = (seed: Uint8Array, size: number): Buffer => {
  const blocks: Array<Buffer> = []
  for (let counter = 0; blocks.length * HASH_SIZE < size; counter++) {
    blocks.push(digestOf(seed, Uint8Array.of(counter >>> 24, counter >>> 16, counter >>> 8, counter)))
  }
  return Buffer.concat(blocks).subarray(0, size)
}

/**
 * RSASSA-PSS with SHA-384. The salt comes from key and message, where node draws it at random: the same certificate has
 * the same bytes in every run. To a verifier it is as any other.
 * @spec RFC8017 9.1.1
 */
export const signPss = (key: KeyObject, message: Uint8Array): Uint8Array => {
  const size = (key.asymmetricKeyDetails?.modulusLength ?? 0) / 8
  const messageHash = digestOf(message)
  const secret = key.export({ format: "der", type: "pkcs1" })
  const salt = createHmac(HASH, secret).update(messageHash).digest()
  const hash = digestOf(new Uint8Array(8), messageHash, salt)
  const data = Buffer.alloc(size - HASH_SIZE - 1)
  data[data.length - SALT_SIZE - 1] = 1
  data.set(salt, data.length - SALT_SIZE)
  const masked = mask(hash, data.length)
  const block = Buffer.concat([data.map((byte, i) => byte ^ masked[i]!), hash, Uint8Array.of(0xbc)])
  // One bit less than the modulus has.
  block[0]! &= 0x7f
  return new Uint8Array(privateEncrypt({ key, padding: constants.RSA_NO_PADDING }, block))
}
