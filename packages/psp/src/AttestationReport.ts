import { layout, offsetsOf } from "@vmpl-lab/sev-es"
import type { GuestContext } from "./GuestContext.ts"
import type { EndorsementKey, PlatformIdentity } from "./PlatformIdentity.ts"
import { familyOf } from "./Tcb.ts"

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
  ["cpuid_fam_id", 0x188, 1],
  ["cpuid_mod_id", 0x189, 1],
  ["cpuid_step", 0x18a, 1],
  ["chip_id", 0x1a0, 64],
  ["committed_tcb", 0x1e0, 8],
  ["current_build", 0x1e8, 1],
  ["current_minor", 0x1e9, 1],
  ["current_major", 0x1ea, 1],
  ["committed_build", 0x1ec, 1],
  ["committed_minor", 0x1ed, 1],
  ["committed_major", 0x1ee, 1],
  ["launch_tcb", 0x1f0, 8],
  ["launch_mit_vector", 0x1f8, 8],
  ["current_mit_vector", 0x200, 8],
  ["signature", 0x2a0, 512]
])

/** Byte offsets of the report's fields by name. The signature covers what is before it. */
export const REPORT = offsetsOf(REPORT_FIELDS)

export const REPORT_SIZE = 0x4a0

/** Versions of the report: 2 of firmware 1.55, 3 with the processor's identity, 5 with mitigation vectors too. */
export const REPORT_VERSIONS = [2, 3, 5] as const
export type ReportVersion = (typeof REPORT_VERSIONS)[number]

/** ECDSA P-384 with SHA-384. */
const SIGNATURE_ALGORITHM = 1

/** Of `platform_info`. */
const PLATFORM_INFO = {
  SMT: 1,
  TSME: 2,
  ECC: 1 << 2,
  RAPL_DIS: 1 << 3,
  CIPHERTEXT_HIDING: 1 << 4,
  ALIAS_CHECK_COMPLETE: 1 << 5,
  TIO: 1 << 7
} as const

/** Of `key_info`: bit 1, and the signing key in bits 4 to 2. */
const KEY_INFO = { AUTHOR_KEY_EN: 1, MASK_CHIP_KEY: 2, SIGNING_KEY_SHIFT: 2 } as const
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

const platformInfo = (platform: PlatformIdentity, smtEnabled: boolean): number => {
  const { reportVersion } = platform
  const bits: ReadonlyArray<readonly [bit: number, isSet: boolean]> = [
    [PLATFORM_INFO.SMT, smtEnabled],
    [PLATFORM_INFO.TSME, platform.tsmeEnabled],
    [PLATFORM_INFO.ECC, platform.eccEnabled],
    [PLATFORM_INFO.RAPL_DIS, platform.raplDisabled],
    [PLATFORM_INFO.CIPHERTEXT_HIDING, platform.ciphertextHiding],
    // Bits that a version does not have are zero in it.
    [PLATFORM_INFO.ALIAS_CHECK_COMPLETE, platform.aliasCheckComplete && reportVersion >= 3],
    [PLATFORM_INFO.TIO, platform.tioEnabled && reportVersion >= 5]
  ]
  return bits.reduce((sum, [bit, isSet]) => sum | (isSet ? bit : 0), 0)
}

/**
 * A report. Without an ID block what one binds is zero: SVN, family, image and both key digests.
 * @spec-silent the chip id of a report that the VLEK signs: published firmware, which writes version 2, leaves it in;
 * newer reports have zeros. SNP_CONFIG's mask takes it out of any.
 */
export const attestationReport = (platform: PlatformIdentity, subject: ReportSubject): Uint8Array => {
  const { guest, signer } = subject
  const report = new Uint8Array(REPORT_SIZE)
  const view = new DataView(report.buffer)
  const { idBinding } = guest
  view.setUint32(REPORT.version, platform.reportVersion, true)
  if (idBinding !== null) {
    view.setUint32(REPORT.guest_svn, idBinding.svn, true)
    report.set(idBinding.familyId, REPORT.family_id)
    report.set(idBinding.imageId, REPORT.image_id)
    report.set(idBinding.idKeyDigest, REPORT.id_key_digest)
    report.set(idBinding.authorKeyDigest, REPORT.author_key_digest)
  }
  view.setBigUint64(REPORT.policy, guest.policy, true)
  view.setUint32(REPORT.vmpl, subject.vmpl, true)
  view.setUint32(REPORT.signature_algo, SIGNATURE_ALGORITHM, true)
  report.set(platform.tcbBytes(platform.currentTcb), REPORT.current_tcb)
  view.setUint32(REPORT.platform_info, platformInfo(platform, subject.smtEnabled), true)
  const signingKey = signer === null ? SIGNING_KEY.NONE : SIGNING_KEY[signer]
  const mask = platform.maskChipKey ? KEY_INFO.MASK_CHIP_KEY : 0
  const author = guest.authorKeyEn ? KEY_INFO.AUTHOR_KEY_EN : 0
  view.setUint32(REPORT.key_info, author | mask | (signingKey << KEY_INFO.SIGNING_KEY_SHIFT), true)
  report.set(subject.reportData, REPORT.report_data)
  report.set(guest.digest.value, REPORT.measurement)
  report.set(guest.hostData, REPORT.host_data)
  report.set(guest.reportId, REPORT.report_id)
  report.set(guest.reportIdMa, REPORT.report_id_ma)
  report.set(platform.tcbBytes(platform.reportedTcb), REPORT.reported_tcb)
  const isOperators = signer === "VLEK" && platform.reportVersion >= 3
  if (!platform.maskChipId && !isOperators) report.set(platform.chipId, REPORT.chip_id)
  report.set(platform.tcbBytes(platform.committedTcb), REPORT.committed_tcb)
  const { current, committed } = platform
  report.set([current.build, current.minor, current.major], REPORT.current_build)
  report.set([committed.build, committed.minor, committed.major], REPORT.committed_build)
  report.set(guest.launchTcb, REPORT.launch_tcb)
  if (platform.reportVersion >= 3) {
    const { family, model, stepping } = familyOf(platform.fms)
    report.set([family, model, stepping], REPORT.cpuid_fam_id)
  }
  if (platform.reportVersion >= 5) {
    view.setBigUint64(REPORT.launch_mit_vector, guest.launchMitigations, true)
    view.setBigUint64(REPORT.current_mit_vector, platform.mitigationVector, true)
  }
  if (signer !== null) report.set(platform.sign(signer, report.subarray(0, REPORT.signature)), REPORT.signature)
  return report
}
