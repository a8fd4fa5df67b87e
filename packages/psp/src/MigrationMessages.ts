import { GUEST_MESSAGE_HEADER_SIZE, layout, offsetsOf, PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { GuestContext } from "./GuestContext.ts"
import { isZero, type MessageAnswer, type MessageScene, replyOf, viewOf } from "./MessageScene.ts"
import type { Status } from "./Status.ts"

/** @spec SNP-ABI MSG_EXPORT_REQ */
export const EXPORT_REQUEST_FIELDS = layout([
  ["gctx_paddr", 0x00, 8],
  ["flags", 0x08, 4],
  ["reserved", 0x0c, 4]
])
export const EXPORT_REQUEST = offsetsOf(EXPORT_REQUEST_FIELDS)

/** The reply fills the page, header and all. @spec SNP-ABI MSG_EXPORT_RSP */
export const EXPORT_REPLY_FIELDS = layout([
  ["status", 0x00, 4],
  ["gctx_size", 0x04, 4],
  ["gctx_version", 0x08, 4]
])
export const EXPORT_REPLY = offsetsOf(EXPORT_REPLY_FIELDS)
export const EXPORT_REPLY_SIZE = PAGE_SIZE - GUEST_MESSAGE_HEADER_SIZE

/** Requests that bring a guest; MSG_ABSORB_NOMA_REQ has no address. @spec SNP-ABI MSG_IMPORT_REQ, MSG_ABSORB_REQ */
export const INCOMING_REQUEST_FIELDS = layout([
  ["gctx_paddr", 0x00, 8],
  ["in_gctx_size", 0x08, 4],
  ["in_gctx_version", 0x0c, 4],
  ["reserved", 0x10, 16],
  ["incoming_gctx", 0x20, 0x300]
])
export const INCOMING_REQUEST = offsetsOf(INCOMING_REQUEST_FIELDS)
export const INCOMING_REPLY_SIZE = 0x10

/** Size and version of a guest context outside of the AMD-SP, and what of it decides here. */
export const OUTSIDE_CONTEXT = { SIZE: 0x300, VERSION: 3, imd: 0x190, root_md_entry: 0x1e0 } as const
/** Of a metadata entry: its flags, whose bit 0 is VALID. */
const METADATA_FLAGS = 0x20
const METADATA_VALID = 1

const IMI_EN = 1

/** Addresses of pages have zeros in their low 12 bits. */
export const isPageAddress = (address: bigint): boolean => (address & 0xfffn) === 0n

/** Whether the sender of a message is the guest's migration agent. */
export const hasAgent = (guest: GuestContext, { gctx, guest: sender }: MessageScene): boolean =>
  guest.migrationAgent === gctx && Buffer.compare(guest.reportIdMa, sender.reportId) === 0

/**
 * What comes after the last check. Limitation: guests do not leave and do not arrive, so where published firmware would
 * begin to move one, the reply says UNSUPPORTED, and nothing has changed.
 */
const NOT_MODELLED: Status = "UNSUPPORTED"

const exportStatus = (scene: MessageScene, payload: Uint8Array): Status => {
  const view = viewOf(payload)
  const address = view.getBigUint64(EXPORT_REQUEST.gctx_paddr, true)
  const flags = view.getUint32(EXPORT_REQUEST.flags, true)
  if (!isPageAddress(address) || flags > IMI_EN || view.getUint32(EXPORT_REQUEST.reserved, true) !== 0)
    return "INVALID_PARAM"
  const guest = scene.contextAt(address)
  if (typeof guest === "string") return guest
  if (guest.state !== "RUNNING") return "INVALID_GUEST_STATE"
  const isSelf = guest === scene.guest && guest.migrationAgent === null
  if (!isSelf && !hasAgent(guest, scene)) return "INVALID_GUEST"
  if (isSelf && scene.vmpck !== 0) return "INVALID_GUEST"
  return NOT_MODELLED
}

/** MSG_EXPORT_REQ: of the guest itself by VMPCK0, or by its migration agent. @spec SNP-ABI MSG_EXPORT_REQ */
export const answerExport: MessageAnswer = (scene, payload) => {
  const reply = replyOf(exportStatus(scene, payload), EXPORT_REPLY_SIZE)
  const view = viewOf(reply)
  view.setUint32(EXPORT_REPLY.gctx_size, OUTSIDE_CONTEXT.SIZE, true)
  view.setUint32(EXPORT_REPLY.gctx_version, OUTSIDE_CONTEXT.VERSION, true)
  return reply
}

const hasKnownContext = (payload: Uint8Array): boolean => {
  const view = viewOf(payload)
  const size = view.getUint32(INCOMING_REQUEST.in_gctx_size, true)
  return (
    size === OUTSIDE_CONTEXT.SIZE && view.getUint32(INCOMING_REQUEST.in_gctx_version, true) === OUTSIDE_CONTEXT.VERSION
  )
}

const isReservedZero = (payload: Uint8Array): boolean =>
  isPageAddress(viewOf(payload).getBigUint64(INCOMING_REQUEST.gctx_paddr, true)) &&
  isZero(payload, INCOMING_REQUEST.reserved, INCOMING_REQUEST.incoming_gctx)

const importStatus = (scene: MessageScene, payload: Uint8Array): Status => {
  if (!isReservedZero(payload) || !hasKnownContext(payload)) return "INVALID_PARAM"
  const guest = scene.contextAt(viewOf(payload).getBigUint64(INCOMING_REQUEST.gctx_paddr, true))
  if (typeof guest === "string") return guest
  if (guest.state !== "INIT") return "INVALID_GUEST_STATE"
  const flags = INCOMING_REQUEST.incoming_gctx + OUTSIDE_CONTEXT.root_md_entry + METADATA_FLAGS
  return ((payload[flags] ?? 0) & METADATA_VALID) === 0 ? "INVALID_MDATA_ENTRY" : NOT_MODELLED
}

/** MSG_IMPORT_REQ: an agent brings a guest that was swapped out whole. @spec SNP-ABI MSG_IMPORT_REQ */
export const answerImport: MessageAnswer = (scene, payload) =>
  replyOf(importStatus(scene, payload), INCOMING_REPLY_SIZE)

const absorbStatus = (scene: MessageScene, payload: Uint8Array): Status => {
  if (!isReservedZero(payload)) return "INVALID_PARAM"
  const guest = scene.contextAt(viewOf(payload).getBigUint64(INCOMING_REQUEST.gctx_paddr, true))
  if (typeof guest === "string") return guest
  // Only a launch from an IMI is replaced by a guest that runs elsewhere.
  if (guest.state !== "LAUNCH" || !guest.imiEn) return "INVALID_GUEST_STATE"
  const imd = INCOMING_REQUEST.incoming_gctx + OUTSIDE_CONTEXT.imd
  if (!guest.digest.value.every((byte, i) => byte === payload[imd + i])) return "BAD_MEASUREMENT"
  return hasKnownContext(payload) ? NOT_MODELLED : "INVALID_PARAM"
}

/** MSG_ABSORB_REQ: an agent puts a guest in place of an IMI launch. @spec SNP-ABI MSG_ABSORB_REQ */
export const answerAbsorb: MessageAnswer = (scene, payload) =>
  replyOf(absorbStatus(scene, payload), INCOMING_REPLY_SIZE)

const absorbNomaStatus = ({ guest }: MessageScene, payload: Uint8Array): Status => {
  if (!isZero(payload, 0, INCOMING_REQUEST.in_gctx_size)) return "INVALID_PARAM"
  if (!isZero(payload, INCOMING_REQUEST.reserved, INCOMING_REQUEST.incoming_gctx)) return "INVALID_PARAM"
  if (guest.migrationAgent !== null) return "INVALID_GUEST"
  const start = INCOMING_REQUEST.incoming_gctx + OUTSIDE_CONTEXT.imd
  const digests = [guest.digest.value, guest.imd.value]
  const isSame = (digest: Uint8Array): boolean => digest.every((byte, i) => byte === payload[start + i])
  // The whole image must have been IMI pages, and the incoming guest must name it.
  if (!digests.every(isSame)) return "BAD_MEASUREMENT"
  return hasKnownContext(payload) ? NOT_MODELLED : "INVALID_PARAM"
}

/** MSG_ABSORB_NOMA_REQ: an IMI takes in the guest that it was launched for. @spec SNP-ABI MSG_ABSORB_NOMA_REQ */
export const answerAbsorbNoma: MessageAnswer = (scene, payload) =>
  replyOf(absorbNomaStatus(scene, payload), INCOMING_REPLY_SIZE)
