import { hkdfSync } from "node:crypto"
import type { IdBinding } from "./IdBlock.ts"
import { LaunchDigest } from "./LaunchDigest.ts"

/** States of a guest in its context page. @spec SNP-ABI "guest state machine" */
export type GuestState = "INIT" | "LAUNCH" | "RUNNING"

/** What the AMD-SP keeps of one guest, in a page that only the AMD-SP can read. @spec SNP-ABI "guest context" */
export interface GuestContext {
  state: GuestState
  /** The ASID given by ACTIVATE; 0 while the guest is inactive. */
  asid: number
  /** The platform's committed TCB at GCTX_CREATE, 8 bytes, and its mitigations then. */
  readonly launchTcb: Uint8Array
  readonly launchMitigations: bigint
  /** Guest policy of LAUNCH_START, all 64 bits. */
  policy: bigint
  /** LD until LAUNCH_FINISH, the report's MEASUREMENT from then on. */
  readonly digest: LaunchDigest
  /** Frame of the migration agent's context, or null. */
  migrationAgent: number | null
  desiredTscKhz: number
  /** IMI_EN of LAUNCH_START: the launch is that of a migration image, and ends with another guest's state. */
  imiEn: boolean
  /** IMD: the digest of IMI pages alone. */
  readonly imd: LaunchDigest
  /** Guest OS visible workarounds, 16 bytes. */
  gosvw: Uint8Array
  /** Host data of LAUNCH_FINISH, 32 bytes. */
  hostData: Uint8Array
  /** The guest asked for reports without the VCEK. */
  vcekDis: boolean
  /** What the ID block of LAUNCH_FINISH bound; null without one. */
  idBinding: IdBinding | null
  /** AUTH_KEY_EN of LAUNCH_FINISH, which counts with or without an ID block. */
  authorKeyEn: boolean
  /** Memory key, 32 bytes. */
  readonly memoryKey: Uint8Array
  /** VMPCK0 to VMPCK3, 32 bytes each: the keys of guest messages. */
  readonly vmpck: readonly [Uint8Array, Uint8Array, Uint8Array, Uint8Array]
  /** Guest message counters, one per VMPCK. */
  readonly messageCount: [bigint, bigint, bigint, bigint]
  /** Offline encryption key, 32 bytes: pages that leave memory are wrapped with it. */
  readonly oek: Uint8Array
  /** VM root key, 32 bytes. */
  readonly vmrk: Uint8Array
  /** Identity of this guest in reports, 32 bytes. */
  readonly reportId: Uint8Array
  /** A random number for the registers of the next VMSA. */
  readonly nextNonce: () => bigint
  /** Identity of the migration agent, 32 bytes of 0xFF without one. */
  reportIdMa: Uint8Array
}

const KEY_SIZE = 32
const HOST_DATA_SIZE = 32
const GOSVW_SIZE = 16

/**
 * A context in state INIT. Real firmware draws its keys from a random source; this one derives them from the seed and
 * the number of the guest with HKDF-SHA-256, so that a run can be repeated and no two guests share a key.
 */
export const makeGuestContext = (
  seed: number,
  guestNumber: number,
  { launchTcb, launchMitigations }: Pick<GuestContext, "launchTcb" | "launchMitigations">
): GuestContext => {
  const derive = (label: string): Uint8Array =>
    new Uint8Array(hkdfSync("sha256", `seed ${seed}`, "vmpl-lab psp", `guest ${guestNumber} ${label}`, KEY_SIZE))
  let vmsas = 0
  return {
    state: "INIT",
    launchTcb,
    launchMitigations,
    asid: 0,
    policy: 0n,
    digest: new LaunchDigest(),
    migrationAgent: null,
    desiredTscKhz: 0,
    imiEn: false,
    imd: new LaunchDigest(),
    gosvw: new Uint8Array(GOSVW_SIZE),
    hostData: new Uint8Array(HOST_DATA_SIZE),
    vcekDis: false,
    idBinding: null,
    authorKeyEn: false,
    memoryKey: derive("memory"),
    vmpck: [derive("vmpck0"), derive("vmpck1"), derive("vmpck2"), derive("vmpck3")],
    messageCount: [0n, 0n, 0n, 0n],
    oek: derive("oek"),
    vmrk: derive("vmrk"),
    reportId: derive("report_id"),
    nextNonce: () => Buffer.from(derive(`vmsa nonce ${vmsas++}`)).readBigUInt64LE(),
    reportIdMa: new Uint8Array(KEY_SIZE).fill(0xff)
  }
}
