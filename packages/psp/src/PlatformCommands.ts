import { layout, offsetsOf, PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { GuestContext, GuestState } from "./GuestContext.ts"
import { isOwnFrame } from "./PageChecks.ts"
import type { PlatformIdentity } from "./PlatformIdentity.ts"
import type { PspMemory, PspRmp } from "./Ports.ts"
import type { Status } from "./Status.ts"
import { isTcbWithin, TCB_SIZE } from "./Tcb.ts"
import { unwrapVlek, VLEK_BLOB, VLEK_BLOB_SIZE } from "./VlekBlob.ts"

/** SNP_CONFIG. */
export interface PlatformConfig {
  /** TCB_VERSION, 8 bytes: which VCEK signs; zeros: that of the committed TCB. */
  readonly reportedTcb: Uint8Array
  readonly maskChipId?: boolean
  readonly maskChipKey?: boolean
  /** What stands in the reserved bits of the command's buffer. */
  readonly reserved?: number
}

/** VLEK_LOAD. `length` and `version` are those of the command's buffer. */
export interface VlekLoad {
  /** 0x1b0 bytes. */
  readonly wrapped: Uint8Array
  readonly length?: number
  readonly version?: number
  readonly reserved?: number
}

/** Bytes of the buffers of VLEK_LOAD and COMMIT, which their first word must say. */
export const VLEK_LOAD_SIZE = 0x10
export const COMMIT_SIZE = 4

/** Where a command writes what it was asked for: a frame and an offset in it. */
export interface StatusAddress {
  readonly statusPfn: number
  readonly statusOffset?: number
}

/** @spec SNP-ABI SNP_GUEST_STATUS */
export const GUEST_STATUS_FIELDS = layout([
  ["policy", 0x00, 8],
  ["asid", 0x08, 4],
  ["state", 0x0c, 1],
  ["vcek_dis", 0x10, 4],
  ["reserved", 0x14, 12]
])
export const GUEST_STATUS = offsetsOf(GUEST_STATUS_FIELDS)
export const GUEST_STATUS_SIZE = 0x20

/** @spec SNP-ABI SNP_PLATFORM_STATUS */
export const PLATFORM_STATUS_FIELDS = layout([
  ["api_major", 0x00, 1],
  ["api_minor", 0x01, 1],
  ["state", 0x02, 1],
  ["is_rmp_init", 0x03, 1],
  ["build", 0x04, 4],
  ["flags", 0x08, 4],
  ["guest_count", 0x0c, 4],
  ["current_tcb", 0x10, 8],
  ["reported_tcb", 0x18, 8]
])
export const PLATFORM_STATUS = offsetsOf(PLATFORM_STATUS_FIELDS)
export const PLATFORM_STATUS_SIZE = 0x20
const PLATFORM_FLAGS = { MASK_CHIP_ID: 1, MASK_CHIP_KEY: 2, VLEK_EN: 4, FEATURE_INFO: 8 } as const
const PLATFORM_INIT = 1

/** Numbers of the states, as GUEST_STATUS tells them. */
const STATE_NUMBER: { readonly [S in GuestState]: number } = { INIT: 0, LAUNCH: 1, RUNNING: 2 }

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer)

/** What GUEST_STATUS tells of a guest. */
export const guestStatus = ({ policy, asid, state, vcekDis }: GuestContext): Uint8Array => {
  const bytes = new Uint8Array(GUEST_STATUS_SIZE)
  view(bytes).setBigUint64(GUEST_STATUS.policy, policy, true)
  view(bytes).setUint32(GUEST_STATUS.asid, asid, true)
  bytes[GUEST_STATUS.state] = STATE_NUMBER[state]
  view(bytes).setUint32(GUEST_STATUS.vcek_dis, vcekDis ? 1 : 0, true)
  return bytes
}

/** What PLATFORM_STATUS tells; `guests` is the number of those that LAUNCH_START was done for. */
export const platformStatus = (identity: PlatformIdentity, initialised: boolean, guests: number): Uint8Array => {
  const bytes = new Uint8Array(PLATFORM_STATUS_SIZE)
  const { current, maskChipId, maskChipKey, vlekLoaded } = identity
  const state = initialised ? PLATFORM_INIT : 0
  bytes.set([current.major, current.minor, state, initialised ? 1 : 0], PLATFORM_STATUS.api_major)
  view(bytes).setUint32(PLATFORM_STATUS.build, current.build, true)
  const flags =
    (maskChipId ? PLATFORM_FLAGS.MASK_CHIP_ID : 0) |
    (maskChipKey ? PLATFORM_FLAGS.MASK_CHIP_KEY : 0) |
    (vlekLoaded ? PLATFORM_FLAGS.VLEK_EN : 0) |
    PLATFORM_FLAGS.FEATURE_INFO
  view(bytes).setUint32(PLATFORM_STATUS.flags, flags, true)
  view(bytes).setUint32(PLATFORM_STATUS.guest_count, guests, true)
  bytes.set(identity.tcbBytes(identity.currentTcb), PLATFORM_STATUS.current_tcb)
  bytes.set(identity.tcbBytes(identity.reportedTcb), PLATFORM_STATUS.reported_tcb)
  return bytes
}

/** Whether `size` bytes from an address on lie in one page: no command crosses one. */
export const isInPage = ({ statusOffset = 0 }: StatusAddress, size: number): boolean =>
  statusOffset >= 0 && statusOffset + size <= PAGE_SIZE

/** The status that refuses a page as a place to write to: Firmware's own pages and pages without an RMP entry will do. */
export const outputRefusal = (rmp: PspRmp, { statusPfn }: StatusAddress): Status | null => {
  const state = rmp.stateOf(statusPfn)
  if (isOwnFrame(rmp, statusPfn) || (state !== "Firmware" && state !== "Default")) return "INVALID_PAGE_STATE"
  return null
}

export const writeStatus = (memory: PspMemory, address: StatusAddress, bytes: Uint8Array): void => {
  const page = memory.readPlain(address.statusPfn).slice()
  page.set(bytes, address.statusOffset ?? 0)
  memory.writePlain(address.statusPfn, page)
}

/** It asks for nothing of the platform's state: a TCB can be configured before SNP_INIT. @spec SNP-ABI SNP_CONFIG */
export const configure = (identity: PlatformIdentity, command: PlatformConfig): Status => {
  const { reportedTcb, reserved = 0, maskChipId = false, maskChipKey = false } = command
  if (reserved !== 0) return "INVALID_PARAM"
  const isZero = reportedTcb.every((byte) => byte === 0)
  if (!isZero && !isTcbWithin(reportedTcb, identity.tcbBytes(identity.committedTcb))) return "INVALID_PARAM"
  const tcb = isZero ? identity.committedTcb : identity.tcbOf(reportedTcb)
  identity.configure(tcb, { chipId: maskChipId, chipKey: maskChipKey })
  return "SUCCESS"
}

/** @spec SNP-ABI SNP_COMMIT */
export const commit = (identity: PlatformIdentity, length: number): Status => {
  if (length !== COMMIT_SIZE) return "INVALID_PARAM"
  identity.commit()
  return "SUCCESS"
}

/** @spec SNP-ABI SNP_VLEK_LOAD */
export const loadVlek = (identity: PlatformIdentity, command: VlekLoad): Status => {
  const { wrapped, length = VLEK_LOAD_SIZE, version = 0, reserved = 0 } = command
  if (length !== VLEK_LOAD_SIZE || version !== 0 || reserved !== 0) return "INVALID_PARAM"
  if (wrapped.length !== VLEK_BLOB_SIZE) return "INVALID_PARAM"
  const reported = identity.tcbBytes(identity.reportedTcb)
  const tcb = wrapped.subarray(VLEK_BLOB.tcb_version, VLEK_BLOB.tcb_version + TCB_SIZE)
  if (!tcb.every((byte, i) => byte === reported[i])) return "BAD_SVN"
  const root = unwrapVlek(identity.root("VCEK", reported), wrapped)
  if (root === null) return "BAD_MEASUREMENT"
  identity.loadVlek(root)
  return "SUCCESS"
}
