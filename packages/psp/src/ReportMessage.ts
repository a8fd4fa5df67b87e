import { layout, offsetsOf } from "@vmpl-lab/sev-es"
import { attestationReport, REPORT_SIZE } from "./AttestationReport.ts"
import { selectedKey } from "./KeySelect.ts"
import { isZero, type MessageAnswer, replyOf, viewOf } from "./MessageScene.ts"
import type { Status } from "./Status.ts"

/** @spec SNP-ABI MSG_REPORT_REQ */
export const REPORT_REQUEST_FIELDS = layout([
  ["report_data", 0x00, 64],
  ["vmpl", 0x40, 4],
  ["key_select", 0x44, 4],
  ["reserved", 0x48, 24]
])
export const REPORT_REQUEST = offsetsOf(REPORT_REQUEST_FIELDS)
export const REPORT_REQUEST_SIZE = 0x60

/** @spec SNP-ABI MSG_REPORT_RSP */
export const REPORT_REPLY_FIELDS = layout([
  ["status", 0x00, 4],
  ["report_size", 0x04, 4],
  ["report", 0x20, REPORT_SIZE]
])
export const REPORT_REPLY = offsetsOf(REPORT_REPLY_FIELDS)
export const REPORT_REPLY_SIZE = 0x20 + REPORT_SIZE

const KEY_SELECT_MASK = 3

const reply = (status: Status): Uint8Array => {
  const bytes = replyOf(status, REPORT_REPLY_SIZE)
  viewOf(bytes).setUint32(REPORT_REPLY.report_size, REPORT_SIZE, true)
  return bytes
}

/**
 * MSG_REPORT_REQ: an attestation report for a VMPL that is not more privileged than the VMPCK's. It has no upper bound.
 * A masked chip key is no refusal: the report is then not signed.
 * @spec SNP-ABI MSG_REPORT_REQ
 */
export const answerReport: MessageAnswer = (scene, payload) => {
  const view = viewOf(payload)
  const select = view.getUint32(REPORT_REQUEST.key_select, true)
  const vmpl = view.getUint32(REPORT_REQUEST.vmpl, true)
  if (select > KEY_SELECT_MASK || !isZero(payload, REPORT_REQUEST.reserved, REPORT_REQUEST_SIZE))
    return reply("INVALID_PARAM")
  const key = selectedKey(scene, select)
  if (key === null) return reply("INVALID_KEY")
  if (vmpl < scene.vmpck) return reply("INVALID_PARAM")
  const bytes = reply("SUCCESS")
  const report = attestationReport(scene.platform, {
    guest: scene.guest,
    vmpl,
    reportData: payload.subarray(REPORT_REQUEST.report_data, REPORT_REQUEST.vmpl),
    smtEnabled: scene.smtEnabled,
    signer: key === "VCEK" && scene.platform.maskChipKey ? null : key
  })
  bytes.set(report, REPORT_REPLY.report)
  return bytes
}
