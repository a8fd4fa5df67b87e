import { createCipheriv, createDecipheriv } from "node:crypto"
import { layout, offsetsOf } from "./Layout.ts"

/**
 * Header of a guest message; the payload follows at 0x60. The tag and the sequence number are outside of what the tag
 * authenticates: a wrong sequence number is found because the IV is made from it.
 * @spec SNP-ABI "guest message header"
 */
export const GUEST_MESSAGE_FIELDS = layout([
  ["auth_tag", 0x00, 32],
  ["msg_seqno", 0x20, 8],
  ["reserved1", 0x28, 8],
  ["algo", 0x30, 1],
  ["hdr_version", 0x31, 1],
  ["hdr_size", 0x32, 2],
  ["msg_type", 0x34, 1],
  ["msg_version", 0x35, 1],
  ["msg_size", 0x36, 2],
  ["reserved2", 0x38, 4],
  ["msg_vmpck", 0x3c, 1],
  ["reserved3", 0x3d, 35]
])

/** Byte offsets of the header's fields by name. */
export const GUEST_MESSAGE = offsetsOf(GUEST_MESSAGE_FIELDS)

/** Bytes of the header, which is also the offset of the payload. */
export const GUEST_MESSAGE_HEADER_SIZE = 0x60

/** Only encoding of `algo` that is in use: AES-256-GCM. */
export const AEAD_AES_256_GCM = 1

export const GUEST_MESSAGE_HEADER_VERSION = 1

/** Requests are odd, and the reply's type is one more. @spec SNP-ABI "message type encodings" */
export const MESSAGE_TYPE = {
  CPUID_REQ: 1,
  CPUID_RSP: 2,
  KEY_REQ: 3,
  KEY_RSP: 4,
  REPORT_REQ: 5,
  REPORT_RSP: 6,
  EXPORT_REQ: 7,
  EXPORT_RSP: 8,
  IMPORT_REQ: 9,
  IMPORT_RSP: 0xa,
  ABSORB_REQ: 0xb,
  ABSORB_RSP: 0xc,
  VMRK_REQ: 0xd,
  VMRK_RSP: 0xe,
  ABSORB_NOMA_REQ: 0xf,
  ABSORB_NOMA_RSP: 0x10,
  TSC_INFO_REQ: 0x11,
  TSC_INFO_RSP: 0x12
} as const

/** The header as read; nothing of it has been checked. */
export interface GuestMessageHeader {
  readonly sequence: bigint
  readonly algorithm: number
  readonly headerVersion: number
  readonly headerSize: number
  readonly type: number
  readonly version: number
  /** Bytes of the payload. */
  readonly size: number
  /** Which VMPCK protects the message. */
  readonly vmpck: number
}

const TAG_SIZE = 16
const IV_SIZE = 12

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The header in the first 0x60 bytes. */
export const readMessageHeader = (bytes: Uint8Array): GuestMessageHeader => {
  const view = viewOf(bytes)
  return {
    sequence: view.getBigUint64(GUEST_MESSAGE.msg_seqno, true),
    algorithm: view.getUint8(GUEST_MESSAGE.algo),
    headerVersion: view.getUint8(GUEST_MESSAGE.hdr_version),
    headerSize: view.getUint16(GUEST_MESSAGE.hdr_size, true),
    type: view.getUint8(GUEST_MESSAGE.msg_type),
    version: view.getUint8(GUEST_MESSAGE.msg_version),
    size: view.getUint16(GUEST_MESSAGE.msg_size, true),
    vmpck: view.getUint8(GUEST_MESSAGE.msg_vmpck)
  }
}

/** The sequence number in the low eight of twelve bytes. @spec SNP-ABI "guest message encryption" */
const ivOf = (sequence: bigint): Uint8Array => {
  const iv = new Uint8Array(IV_SIZE)
  viewOf(iv).setBigUint64(0, sequence, true)
  return iv
}

/** What the tag authenticates beside the payload: the header from `algo` on. */
const authenticated = (frame: Uint8Array): Uint8Array => frame.subarray(GUEST_MESSAGE.algo, GUEST_MESSAGE_HEADER_SIZE)

/** What the sender decides of a header. */
export type MessageLabel = Pick<GuestMessageHeader, "sequence" | "type" | "version" | "vmpck">

/**
 * The frame of a message: header with tag, then the encrypted payload.
 * @spec-silent the upper half of the tag and the reserved fields: here zero, as requests must have them
 */
export const sealMessage = (key: Uint8Array, label: MessageLabel, payload: Uint8Array): Uint8Array => {
  const frame = new Uint8Array(GUEST_MESSAGE_HEADER_SIZE + payload.length)
  const view = viewOf(frame)
  view.setBigUint64(GUEST_MESSAGE.msg_seqno, label.sequence, true)
  view.setUint8(GUEST_MESSAGE.algo, AEAD_AES_256_GCM)
  view.setUint8(GUEST_MESSAGE.hdr_version, GUEST_MESSAGE_HEADER_VERSION)
  view.setUint16(GUEST_MESSAGE.hdr_size, GUEST_MESSAGE_HEADER_SIZE, true)
  view.setUint8(GUEST_MESSAGE.msg_type, label.type)
  view.setUint8(GUEST_MESSAGE.msg_version, label.version)
  view.setUint16(GUEST_MESSAGE.msg_size, payload.length, true)
  view.setUint8(GUEST_MESSAGE.msg_vmpck, label.vmpck)
  const cipher = createCipheriv("aes-256-gcm", key, ivOf(label.sequence), { authTagLength: TAG_SIZE })
  cipher.setAAD(authenticated(frame))
  frame.set(cipher.update(payload), GUEST_MESSAGE_HEADER_SIZE)
  cipher.final()
  frame.set(cipher.getAuthTag(), GUEST_MESSAGE.auth_tag)
  return frame
}

/** The payload of a frame; null when the tag's first 16 bytes are not those of key, sequence number and contents. */
export const openMessage = (key: Uint8Array, frame: Uint8Array): Uint8Array | null => {
  const { sequence } = readMessageHeader(frame)
  const decipher = createDecipheriv("aes-256-gcm", key, ivOf(sequence), { authTagLength: TAG_SIZE })
  decipher.setAAD(authenticated(frame))
  decipher.setAuthTag(frame.subarray(GUEST_MESSAGE.auth_tag, GUEST_MESSAGE.auth_tag + TAG_SIZE))
  const payload = new Uint8Array(decipher.update(frame.subarray(GUEST_MESSAGE_HEADER_SIZE)))
  try {
    decipher.final()
    return payload
  } catch {
    return null
  }
}
