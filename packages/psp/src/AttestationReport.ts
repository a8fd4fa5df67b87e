import { layout, offsetsOf } from "@vmpl-lab/sev-es"
import type { GuestContext } from "./GuestContext.ts"
import type { EndorsementKey, PlatformIdentity } from "./PlatformIdentity.ts"
import { tcbBytes } from "./Tcb.ts"

/**
 * ATTESTATION_REPORT. Version 3 adds family, model and stepping at 0x188; version 5 mitigation vectors at 0x1F8.
 * @spec SNP-ABI "ATTESTATION_REPORT structure"
 */
export const REPORT_FIELDS = layout([
  ["version", 0x000, 4],
  ["guest_svn", 0x004, 4],
  ["policy", 0x008, 8],
  ["family_id", 0x010, 16],
  ["image_id", 0x020, 16],
  ["vmpl", 0x030, 4],
  ["signature_algo", 0x034, 4],
  ["current_tcb", 0x038, 8],
  ["platform_info", 0x040, 8],
  ["key_info", 0x048, 4],
  ["report_data", 0x050, 64],
  ["measurement", 0x090, 48],
  ["host_data", 0x0c0, 32],
  ["id_key_digest", 0x0e0, 48],
  ["author_key_digest", 0x110, 48],
  ["report_id", 0x140, 32],
  ["report_id_ma", 0x160, 32],
  ["reported_tcb", 0x180, 8],
  ["chip_id", 0x1a0, 64],
  ["committed_tcb", 0x1e0, 8],
  ["current_build", 0x1e8, 1],
  ["current_minor", 0x1e9, 1],
  ["current_major", 0x1ea, 1],
  ["committed_build", 0x1ec, 1],
  ["committed_minor", 0x1ed, 1],
  ["committed_major", 0x1ee, 1],
  ["launch_tcb", 0x1f0, 8],
  ["signature", 0x2a0, 512]
])

/** Byte offsets of the report's fields by name. The signature covers what is before it. */
export const REPORT = offsetsOf(REPORT_FIELDS)

export const REPORT_SIZE = 0x4a0

/** Version of reports by firmware 1.55. */
const REPORT_VERSION = 2

/** ECDSA P-384 with SHA-384. */
const SIGNATURE_ALGORITHM = 1

/** Of `platform_info`. */
const PLATFORM_INFO = { SMT: 1, TSME: 2 } as const

/** Of `key_info`: bit 1, and the signing key in bits 4 to 2. */
const KEY_INFO = { MASK_CHIP_KEY: 2, SIGNING_KEY_SHIFT: 2 } as const
const SIGNING_KEY = { VCEK: 0, VLEK: 1, NONE: 7 } as const

/** Whom a report is about, and what was asked for. */
export interface ReportSubject {
  readonly guest: GuestContext
  readonly vmpl: number
  /** 64 bytes. */
  readonly reportData: Uint8Array
  readonly smtEnabled: boolean
  /** Null: the report is not signed, because the chip's key is masked. */
  readonly signer: EndorsementKey | null
}

/**
 * A report. What an ID block would bind is zero: SVN, family, image, both key digests, and the author's bit.
 * @spec-silent the chip id of a report that the VLEK signs: published firmware leaves it in, newer reports have zeros;
 * SNP_CONFIG's mask takes it out of any
 */
export const attestationReport = (platform: PlatformIdentity, subject: ReportSubject): Uint8Array => {
  const { guest, signer } = subject
  const report = new Uint8Array(REPORT_SIZE)
  const view = new DataView(report.buffer)
  view.setUint32(REPORT.version, REPORT_VERSION, true)
  view.setBigUint64(REPORT.policy, guest.policy, true)
  view.setUint32(REPORT.vmpl, subject.vmpl, true)
  view.setUint32(REPORT.signature_algo, SIGNATURE_ALGORITHM, true)
  report.set(tcbBytes(platform.currentTcb), REPORT.current_tcb)
  const platformInfo = (subject.smtEnabled ? PLATFORM_INFO.SMT : 0) | (platform.tsmeEnabled ? PLATFORM_INFO.TSME : 0)
  view.setUint32(REPORT.platform_info, platformInfo, true)
  const signingKey = signer === null ? SIGNING_KEY.NONE : SIGNING_KEY[signer]
  const mask = platform.maskChipKey ? KEY_INFO.MASK_CHIP_KEY : 0
  view.setUint32(REPORT.key_info, mask | (signingKey << KEY_INFO.SIGNING_KEY_SHIFT), true)
  report.set(subject.reportData, REPORT.report_data)
  report.set(guest.digest.value, REPORT.measurement)
  report.set(guest.hostData, REPORT.host_data)
  report.set(guest.reportId, REPORT.report_id)
  report.set(guest.reportIdMa, REPORT.report_id_ma)
  report.set(tcbBytes(platform.reportedTcb), REPORT.reported_tcb)
  if (!platform.maskChipId) report.set(platform.chipId, REPORT.chip_id)
  report.set(tcbBytes(platform.committedTcb), REPORT.committed_tcb)
  const { current, committed } = platform
  report.set([current.build, current.minor, current.major], REPORT.current_build)
  report.set([committed.build, committed.minor, committed.major], REPORT.committed_build)
  // The TCB at GCTX_CREATE: this platform's does not change while it runs.
  report.set(tcbBytes(platform.committedTcb), REPORT.launch_tcb)
  if (signer !== null) report.set(platform.sign(signer, report.subarray(0, REPORT.signature)), REPORT.signature)
  return report
}
