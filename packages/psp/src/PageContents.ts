import { createCipheriv, createDecipheriv } from "node:crypto"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { PspMemory } from "./Ports.ts"

const ivBytes = (iv: bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(iv)
  return bytes
}

/** A guest as the commands that move its contents need it. */
export interface ContentsOwner {
  readonly asid: number
  /** Offline encryption key, 32 bytes. */
  readonly offlineKey: Uint8Array
}

/** Copies what the guest has in its pages from one place to another, under its memory key. @spec SNP-ABI PAGE_MOVE */
export const moveContents = (memory: PspMemory, from: number, to: number, pages: number, asid: number): void => {
  for (let i = 0; i < pages; i++) memory.writeEncrypted(to + i, asid, memory.readEncrypted(from + i, asid))
}

/**
 * Reads `pages` pages of the guest, wraps them with its offline key by AES-256-GCM and writes the image.
 * @returns the authentication tag
 * @spec SNP-ABI SWAP_OUT
 */
export const wrapContents = (
  memory: PspMemory,
  from: number,
  to: number,
  pages: number,
  owner: ContentsOwner,
  iv: bigint
): Uint8Array => {
  const cipher = createCipheriv("aes-256-gcm", owner.offlineKey, ivBytes(iv))
  for (let i = 0; i < pages; i++) memory.writePlain(to + i, cipher.update(memory.readEncrypted(from + i, owner.asid)))
  cipher.final()
  return cipher.getAuthTag()
}

/**
 * Unwraps an image; null when its tag is not the one given, and then nothing may be used of it.
 * @spec SNP-ABI SWAP_IN
 */
export const unwrapContents = (
  memory: PspMemory,
  from: number,
  pages: number,
  owner: ContentsOwner,
  iv: bigint,
  tag: Uint8Array
): Uint8Array | null => {
  const decipher = createDecipheriv("aes-256-gcm", owner.offlineKey, ivBytes(iv))
  decipher.setAuthTag(tag)
  const contents = new Uint8Array(pages * PAGE_SIZE)
  for (let i = 0; i < pages; i++) contents.set(decipher.update(memory.readPlain(from + i)), i * PAGE_SIZE)
  try {
    decipher.final()
    return contents
  } catch {
    return null
  }
}
