import { createHmac } from "node:crypto"

const BLOCK_SIZE = 32

const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

/**
 * The firmware's key derivation: counter mode of NIST SP 800-108 with HMAC-SHA-256. Counter and length are 32 bits,
 * little-endian; between label and context is a zero byte. No published vector exists for what comes of it.
 * @spec SNP-ABI "key derivation"
 */
export const firmwareKdf = (key: Uint8Array, label: string, context: Uint8Array, size: number): Uint8Array => {
  const out = new Uint8Array(size)
  for (let block = 0; block * BLOCK_SIZE < size; block++) {
    const mac = createHmac("sha256", key)
    mac
      .update(u32(block + 1))
      .update(label, "latin1")
      .update(Uint8Array.of(0))
      .update(context)
      .update(u32(size * 8))
    out.set(mac.digest().subarray(0, size - block * BLOCK_SIZE), block * BLOCK_SIZE)
  }
  return out
}
