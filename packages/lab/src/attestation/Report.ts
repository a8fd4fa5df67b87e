import { REPORT, REPORT_SIZE } from "@vmpl-lab/psp"
import { BadBytes, expectSize, expectZeros, hex } from "./BadBytes.ts"
import { type Generation, generationOf } from "./Tcb.ts"

/** Which key a report says that it is signed with. */
export type ReportSigner = "VCEK" | "VLEK" | "none"

/** An attestation report as read; byte strings are views into the report. */
export interface Report {
  readonly bytes: Uint8Array
  readonly version: number
  readonly guestSvn: number
  readonly policy: bigint
  readonly familyId: Uint8Array
  readonly imageId: Uint8Array
  readonly vmpl: number
  readonly currentTcb: Uint8Array
  readonly platformInfo: bigint
  readonly authorKeyEn: boolean
  readonly maskChipKey: boolean
  readonly signer: ReportSigner
  readonly reportData: Uint8Array
  readonly measurement: Uint8Array
  readonly hostData: Uint8Array
  readonly idKeyDigest: Uint8Array
  readonly authorKeyDigest: Uint8Array
  readonly reportId: Uint8Array
  readonly reportIdMa: Uint8Array
  readonly reportedTcb: Uint8Array
  /** From the processor's identity; null in version 2, which has none, and for a processor that is not known. */
  readonly generation: Generation | null
  readonly chipId: Uint8Array
  readonly committedTcb: Uint8Array
  readonly launchTcb: Uint8Array
  /** Launch and current mitigation vector; null before version 5. */
  readonly mitigations: readonly [launch: bigint, current: bigint] | null
  /** What the signature covers. */
  readonly signed: Uint8Array
  /** r, then s, big-endian: 96 bytes. */
  readonly signature: Uint8Array
}

const VERSION_MIN = 2
const VERSION_MAX = 5
const SIGNATURE_ALGORITHM = 1
const SIGNERS: { readonly [code: number]: ReportSigner } = { 0: "VCEK", 1: "VLEK", 7: "none" }

/** Reserved bytes of every version. */
const RESERVED: ReadonlyArray<readonly [start: number, end: number]> = [
  [0x04c, 0x050],
  [0x18b, 0x1a0],
  [0x1eb, 0x1ec],
  [0x1ef, 0x1f0],
  [0x208, 0x2a0],
  // Each of r and s has 48 significant bytes of 72.
  [0x2d0, 0x2e8],
  [0x318, 0x330],
  [0x330, REPORT_SIZE]
]

/** More of them before the version that gave them a meaning. */
const RESERVED_BEFORE: ReadonlyArray<readonly [version: number, start: number, end: number]> = [
  [3, 0x188, 0x18b],
  [5, 0x1f8, 0x208]
]

/**
 * Reads a report. Every byte is taken as hostile: what is short, oversized, of another version or algorithm, or has
 * reserved bytes that are not zero throws BadBytes, and nothing else is thrown. `name` is used in messages only.
 * @spec SNP-ABI "ATTESTATION_REPORT structure"
 */
export const parseReport = (bytes: Uint8Array, name: string): Report => {
  expectSize(name, bytes, REPORT_SIZE, "an attestation report")
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const u32 = (at: number): number => view.getUint32(at, true)
  const u64 = (at: number): bigint => view.getBigUint64(at, true)
  const part = (at: number, size: number): Uint8Array => bytes.subarray(at, at + size)
  const version = u32(REPORT.version)
  if (version < VERSION_MIN || version > VERSION_MAX) {
    throw new BadBytes(`${name}: version at bytes 0x0 to 0x3 is ${version}, expected ${VERSION_MIN} to ${VERSION_MAX}`)
  }
  const algorithm = u32(REPORT.signature_algo)
  if (algorithm !== SIGNATURE_ALGORITHM) {
    throw new BadBytes(`${name}: signature algorithm at bytes 0x34 to 0x37 is ${algorithm}, expected 1, ECDSA P-384`)
  }
  const keyInfo = u32(REPORT.key_info)
  const signer = SIGNERS[(keyInfo >> 2) & 7]
  if (signer === undefined || keyInfo >>> 5 !== 0) {
    throw new BadBytes(
      `${name}: key information at bytes 0x48 to 0x4b is ${hex(keyInfo)}, expected a known signing key`
    )
  }
  for (const [start, end] of RESERVED) expectZeros(name, bytes, start, end)
  for (const [since, start, end] of RESERVED_BEFORE) if (version < since) expectZeros(name, bytes, start, end)
  const component = (at: number): Uint8Array => Uint8Array.from(bytes.subarray(at, at + 48)).reverse()
  return {
    bytes,
    version,
    guestSvn: u32(REPORT.guest_svn),
    policy: u64(REPORT.policy),
    familyId: part(REPORT.family_id, 16),
    imageId: part(REPORT.image_id, 16),
    vmpl: u32(REPORT.vmpl),
    currentTcb: part(REPORT.current_tcb, 8),
    platformInfo: u64(REPORT.platform_info),
    authorKeyEn: (keyInfo & 1) !== 0,
    maskChipKey: (keyInfo & 2) !== 0,
    signer,
    reportData: part(REPORT.report_data, 64),
    measurement: part(REPORT.measurement, 48),
    hostData: part(REPORT.host_data, 32),
    idKeyDigest: part(REPORT.id_key_digest, 48),
    authorKeyDigest: part(REPORT.author_key_digest, 48),
    reportId: part(REPORT.report_id, 32),
    reportIdMa: part(REPORT.report_id_ma, 32),
    reportedTcb: part(REPORT.reported_tcb, 8),
    generation: version < 3 ? null : generationOf(bytes[REPORT.cpuid_fam_id]!, bytes[REPORT.cpuid_mod_id]!),
    chipId: part(REPORT.chip_id, 64),
    committedTcb: part(REPORT.committed_tcb, 8),
    launchTcb: part(REPORT.launch_tcb, 8),
    mitigations: version < 5 ? null : [u64(REPORT.launch_mit_vector), u64(REPORT.current_mit_vector)],
    signed: bytes.subarray(0, REPORT.signature),
    signature: Buffer.concat([component(REPORT.signature), component(REPORT.signature + 72)])
  }
}
