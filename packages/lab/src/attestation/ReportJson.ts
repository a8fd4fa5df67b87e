import { hex, hexOf } from "./BadBytes.ts"
import type { Report } from "./Report.ts"

/** A report as JSON shows it: bytes and 64-bit fields in hexadecimal. */
export const reportJson = (report: Report) => ({
  version: report.version,
  vmpl: report.vmpl,
  guestSvn: report.guestSvn,
  policy: hex(report.policy),
  platformInfo: hex(report.platformInfo),
  signer: report.signer,
  authorKeyEn: report.authorKeyEn,
  maskChipKey: report.maskChipKey,
  generation: report.generation,
  measurement: hexOf(report.measurement),
  reportData: hexOf(report.reportData),
  hostData: hexOf(report.hostData),
  familyId: hexOf(report.familyId),
  imageId: hexOf(report.imageId),
  idKeyDigest: hexOf(report.idKeyDigest),
  authorKeyDigest: hexOf(report.authorKeyDigest),
  reportId: hexOf(report.reportId),
  reportIdMa: hexOf(report.reportIdMa),
  chipId: hexOf(report.chipId),
  currentTcb: hexOf(report.currentTcb),
  committedTcb: hexOf(report.committedTcb),
  reportedTcb: hexOf(report.reportedTcb),
  launchTcb: hexOf(report.launchTcb),
  mitigations:
    report.mitigations === null ? null : { launch: hex(report.mitigations[0]), current: hex(report.mitigations[1]) }
})
