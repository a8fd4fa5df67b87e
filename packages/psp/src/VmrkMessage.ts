import { layout, offsetsOf } from "@vmpl-lab/sev-es"
import { isZero, type MessageAnswer, replyOf, viewOf } from "./MessageScene.ts"
import { hasAgent, isPageAddress } from "./MigrationMessages.ts"

/** @spec SNP-ABI MSG_VMRK_REQ */
export const VMRK_REQUEST_FIELDS = layout([
  ["gctx_paddr", 0x00, 8],
  ["reserved", 0x08, 24],
  ["vmrk", 0x20, 32]
])
export const VMRK_REQUEST = offsetsOf(VMRK_REQUEST_FIELDS)
export const VMRK_REQUEST_SIZE = 0x40
export const VMRK_REPLY_SIZE = 0x10

/**
 * MSG_VMRK_REQ: a migration agent gives a guest that is being launched its root key. Only the agent's VMPCK0 may ask,
 * and only for guests that are bound to it. @spec SNP-ABI MSG_VMRK_REQ
 */
export const answerVmrk: MessageAnswer = (scene, payload) => {
  const address = viewOf(payload).getBigUint64(VMRK_REQUEST.gctx_paddr, true)
  const isReservedZero = isPageAddress(address) && isZero(payload, VMRK_REQUEST.reserved, VMRK_REQUEST.vmrk)
  if (scene.vmpck !== 0 || !isReservedZero) return replyOf("INVALID_PARAM", VMRK_REPLY_SIZE)
  const guest = scene.contextAt(address)
  if (typeof guest === "string") return replyOf(guest, VMRK_REPLY_SIZE)
  if (guest.state !== "LAUNCH") return replyOf("INVALID_GUEST_STATE", VMRK_REPLY_SIZE)
  if (!hasAgent(guest, scene)) return replyOf("INVALID_GUEST", VMRK_REPLY_SIZE)
  guest.vmrk.set(payload.subarray(VMRK_REQUEST.vmrk, VMRK_REQUEST_SIZE))
  return replyOf("SUCCESS", VMRK_REPLY_SIZE)
}
