import { createCipheriv, createDecipheriv } from "node:crypto"
import { getU64, setU64 } from "@vmpl-lab/sev-es"

/** Kinds of records. */
export const RECORD = { PAGE: 1, VMSA: 2, STATE: 3 } as const

/**
 * A record's header, which is authenticated and not secret: u32 magic, u8 kind, u8 rights of VMPL1 to VMPL3, u64 sequence
 * number, u64 GPA, u32 bytes of the payload, u32 zero. Ciphertext and tag follow.
 */
const HEADER = { MAGIC: 0, KIND: 4, RIGHTS: 5, SEQUENCE: 8, GPA: 16, LENGTH: 24, SIZE: 32 } as const
const MAGIC = 0x5252_474d
const TAG_SIZE = 16
const IV_SIZE = 12

/** Bytes of a record with a payload of so many. */
export const recordSize = (length: number): number => HEADER.SIZE + length + TAG_SIZE

/** What a record says, beside its number. */
export interface MigrationRecord {
  readonly kind: number
  readonly rights: number
  readonly gpa: number
  readonly payload: Uint8Array
}

/** The number makes the IV, and a number is used once under a key. */
const ivOf = (sequence: number): Uint8Array => {
  const iv = new Uint8Array(IV_SIZE)
  setU64(new DataView(iv.buffer), 4, sequence)
  return iv
}

/** AES-256-GCM over the payload; the header is additional data. @param key 32 bytes */
export const sealRecord = (key: Uint8Array, sequence: number, record: MigrationRecord): Uint8Array => {
  const { kind, rights, gpa, payload } = record
  const bytes = new Uint8Array(recordSize(payload.length))
  const view = new DataView(bytes.buffer)
  view.setUint32(HEADER.MAGIC, MAGIC, true)
  view.setUint8(HEADER.KIND, kind)
  for (let level = 0; level < 3; level++) view.setUint8(HEADER.RIGHTS + level, (rights >>> (8 * level)) & 0xff)
  setU64(view, HEADER.SEQUENCE, sequence)
  setU64(view, HEADER.GPA, gpa)
  view.setUint32(HEADER.LENGTH, payload.length, true)
  const cipher = createCipheriv("aes-256-gcm", key, ivOf(sequence))
  cipher.setAAD(bytes.subarray(0, HEADER.SIZE))
  bytes.set(cipher.update(payload), HEADER.SIZE)
  cipher.final()
  bytes.set(cipher.getAuthTag(), HEADER.SIZE + payload.length)
  return bytes
}

/** What became of bytes that should begin with a record: it and its size, or why there is none. */
export type Opened =
  | { readonly ok: true; readonly record: MigrationRecord; readonly size: number }
  | { readonly ok: false; readonly why: "malformed" | "sequence" | "authenticity" }

/** Opens the record that stands at the beginning, which must have the number given. Nothing is believed before the tag. */
export const openRecord = (key: Uint8Array, sequence: number, bytes: Uint8Array): Opened => {
  if (bytes.length < recordSize(0)) return { ok: false, why: "malformed" }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const length = view.getUint32(HEADER.LENGTH, true)
  const size = recordSize(length)
  if (view.getUint32(HEADER.MAGIC, true) !== MAGIC || size > bytes.length) return { ok: false, why: "malformed" }
  if (getU64(view, HEADER.SEQUENCE) !== sequence) return { ok: false, why: "sequence" }
  const decipher = createDecipheriv("aes-256-gcm", key, ivOf(sequence))
  decipher.setAAD(bytes.subarray(0, HEADER.SIZE))
  decipher.setAuthTag(bytes.subarray(size - TAG_SIZE, size))
  const payload = new Uint8Array(decipher.update(bytes.subarray(HEADER.SIZE, size - TAG_SIZE)))
  try {
    decipher.final()
  } catch {
    return { ok: false, why: "authenticity" }
  }
  const right = (level: number): number => view.getUint8(HEADER.RIGHTS + level) << (8 * level)
  const rights = right(0) | right(1) | right(2)
  return {
    ok: true,
    record: { kind: view.getUint8(HEADER.KIND), rights, gpa: getU64(view, HEADER.GPA), payload },
    size
  }
}
