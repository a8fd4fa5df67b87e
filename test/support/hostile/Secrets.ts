import { RandomStream } from "@vmpl-lab/sim"

/** A word that every secret page holds again and again, whatever the filling. */
export const MARKER = 0x5ec2_e75e
const MARKED_EVERY = 64

/** Where VMPL0's secrets come from: each draw gives new ones. */
export interface Secrets {
  readonly bytes: (length: number) => Uint8Array
}

/** Secrets of one filling: two fillings have nothing in common but their lengths. */
export const secretsOf = (filling: number): Secrets => {
  const random = new RandomStream(filling, "secrets")
  let state = random.int(1, 0x7fff_ffff)
  return {
    bytes: (length) => {
      const bytes = new Uint8Array(length)
      for (let i = 0; i < length; i++) {
        // Xorshift: as many bytes as pages have are drawn by the thousand.
        state ^= state << 13
        state ^= state >>> 17
        state ^= state << 5
        bytes[i] = state >>> 11
      }
      const view = new DataView(bytes.buffer)
      for (let i = MARKED_EVERY; i + 4 <= length; i += MARKED_EVERY) view.setUint32(i, MARKER, true)
      return bytes
    }
  }
}
