import { layout, offsetsOf } from "@vmpl-lab/sev-es"
import { TSC_FACTOR } from "./LaunchPages.ts"
import { isZero, type MessageAnswer, replyOf, viewOf } from "./MessageScene.ts"

/** Bytes of the request, all zero, and of the reply. */
export const TSC_INFO_SIZE = 0x80

/** @spec SNP-ABI MSG_TSC_INFO_RSP */
export const TSC_INFO_REPLY_FIELDS = layout([
  ["status", 0x00, 4],
  ["guest_tsc_scale", 0x08, 8],
  ["guest_tsc_offset", 0x10, 8],
  ["tsc_factor", 0x18, 4]
])
export const TSC_INFO_REPLY = offsetsOf(TSC_INFO_REPLY_FIELDS)

/** Genoa's reference clock: 100 MHz less 0.2 %. */
const REFERENCE_KHZ = 99_800n
const FRACTION_BITS = 32n

/** GUEST_TSC_SCALE: ratio of two frequencies in kHz, with 8 bits before the point and 32 after it, rounded up. */
export const tscScale = (desiredKhz: number): bigint => {
  const desired = BigInt.asUintN(32, BigInt(desiredKhz))
  const whole = desired / REFERENCE_KHZ
  const fraction = (((desired % REFERENCE_KHZ) << FRACTION_BITS) + REFERENCE_KHZ - 1n) / REFERENCE_KHZ
  return (BigInt.asUintN(8, whole) << FRACTION_BITS) | BigInt.asUintN(32, fraction)
}

/**
 * MSG_TSC_INFO_REQ: what VMSAs that the guest makes itself need for SecureTSC. The offset is zero until a guest moves to
 * another platform. @spec SNP-ABI MSG_TSC_INFO_REQ
 */
export const answerTscInfo: MessageAnswer = ({ guest }, payload) => {
  if (!isZero(payload, 0, TSC_INFO_SIZE)) return replyOf("INVALID_PARAM", TSC_INFO_SIZE)
  const reply = replyOf("SUCCESS", TSC_INFO_SIZE)
  const view = viewOf(reply)
  view.setBigUint64(TSC_INFO_REPLY.guest_tsc_scale, tscScale(guest.desiredTscKhz), true)
  view.setUint32(TSC_INFO_REPLY.tsc_factor, TSC_FACTOR, true)
  return reply
}
