import { createCipheriv, createDecipheriv } from "node:crypto"
import { layout, offsetsOf } from "@vmpl-lab/sev-es"
import { firmwareKdf } from "./FirmwareKdf.ts"

/** A VLEK's hash sticks as the operator gets them from AMD, for one chip and TCB. @spec SNP-ABI VLEK_LOAD */
export const VLEK_BLOB_FIELDS = layout([
  ["iv", 0x000, 12],
  ["vlek_wrapped", 0x010, 0x180],
  ["tcb_version", 0x190, 8],
  ["reserved", 0x198, 8],
  ["vlek_auth_tag", 0x1a0, 16]
])
export const VLEK_BLOB = offsetsOf(VLEK_BLOB_FIELDS)
export const VLEK_BLOB_SIZE = 0x1b0

/** Eight hash sticks of 48 bytes, of which the last one is the key's root. */
export const VLEK_STICKS_SIZE = 0x180
const STICK_SIZE = 48
const IV_SIZE = 12
const TAG_SIZE = 16
const WRAPPING_LABEL = "vlek-wrapping-key"
const NO_CONTEXT = new Uint8Array(0)

/** Only the chip and AMD know its VCEK's root, so nobody else can wrap or unwrap. */
const wrappingKey = (vcekRoot: Uint8Array): Uint8Array => firmwareKdf(vcekRoot, WRAPPING_LABEL, NO_CONTEXT, 32)

const authenticated = (blob: Uint8Array): Uint8Array => blob.subarray(VLEK_BLOB.tcb_version, VLEK_BLOB.vlek_auth_tag)

/** What AMD's key service makes for a chip: `sticks` of 0x180 bytes under the root of the VCEK of that TCB. */
export const wrapVlek = (vcekRoot: Uint8Array, tcb: Uint8Array, sticks: Uint8Array, iv: Uint8Array): Uint8Array => {
  const blob = new Uint8Array(VLEK_BLOB_SIZE)
  blob.set(iv, VLEK_BLOB.iv)
  blob.set(tcb, VLEK_BLOB.tcb_version)
  const cipher = createCipheriv("aes-256-gcm", wrappingKey(vcekRoot), iv)
  cipher.setAAD(authenticated(blob))
  blob.set(cipher.update(sticks), VLEK_BLOB.vlek_wrapped)
  cipher.final()
  blob.set(cipher.getAuthTag(), VLEK_BLOB.vlek_auth_tag)
  return blob
}

/** The root of the VLEK in a blob, 48 bytes; null where it was not made for this chip and TCB, or was changed. */
export const unwrapVlek = (vcekRoot: Uint8Array, blob: Uint8Array): Uint8Array | null => {
  const decipher = createDecipheriv("aes-256-gcm", wrappingKey(vcekRoot), blob.subarray(0, IV_SIZE))
  decipher.setAAD(authenticated(blob))
  decipher.setAuthTag(blob.subarray(VLEK_BLOB.vlek_auth_tag, VLEK_BLOB.vlek_auth_tag + TAG_SIZE))
  const sticks = decipher.update(blob.subarray(VLEK_BLOB.vlek_wrapped, VLEK_BLOB.tcb_version))
  try {
    decipher.final()
    return new Uint8Array(sticks.subarray(VLEK_STICKS_SIZE - STICK_SIZE))
  } catch {
    return null
  }
}
