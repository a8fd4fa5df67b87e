// @ghcb 0x80000004, 0x80000005, 0x80000013, 0x80000017
import {
  AP_CREATION,
  AP_JUMP_TABLE,
  apCreationInfo1Lo,
  NAE,
  PAGE_SIZE,
  toNumber,
  type U64,
  u64
} from "@vmpl-lab/sev-es"
import { OP, type Program } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import { type Outcome, vmmError } from "./Exchange.ts"
import { copyBytes } from "./SharedMemory.ts"

/** A GPA of the hypervisor's: whole pages, below 2^52. */
export const pageOf = ({ lo, hi }: U64): number | null =>
  lo % PAGE_SIZE === 0 && hi < 0x10_0000 ? toNumber(lo, hi) : null

/** AP reset hold, event 0x80000004: waits until a SIPI came, however often the hypervisor lets go without one. */
export function* apResetHold(ghcb: Ghcb): Program<Outcome<null>> {
  for (;;) {
    const reply = yield* ghcb.request(NAE.AP_RESET_HOLD, {}, ["info2"])
    if (!reply.ok) return reply
    if (reply.value.info2.lo !== 0 || reply.value.info2.hi !== 0) return { ok: true, value: null }
  }
}

/** Tells where the AP jump table is, event 0x80000005. */
export function* setApJumpTable(ghcb: Ghcb, gpa: number): Program<Outcome<null>> {
  const reply = yield* ghcb.request(NAE.AP_JUMP_TABLE, { info1: u64(AP_JUMP_TABLE.SET), info2: u64(gpa) })
  return reply.ok ? { ok: true, value: null } : reply
}

/** Asks where it is, event 0x80000005: whole pages; null when nobody has told. */
export function* getApJumpTable(ghcb: Ghcb): Program<Outcome<number | null>> {
  const reply = yield* ghcb.request(NAE.AP_JUMP_TABLE, { info1: u64(AP_JUMP_TABLE.GET) }, ["info2"])
  if (!reply.ok) return reply
  const gpa = pageOf(reply.value.info2)
  if (gpa === null) return vmmError
  return { ok: true, value: gpa === 0 ? null : gpa }
}

/** A vCPU's level, as AP creation names it. */
export interface ApTarget {
  readonly vmpl: number
  readonly apicId: number
}

function* apRequest(
  ghcb: Ghcb,
  request: number,
  { vmpl, apicId }: ApTarget,
  vmsa: { readonly gpa: number; readonly sevFeatures: U64 } | null
): Program<Outcome<null>> {
  const info1 = { lo: apCreationInfo1Lo(request, vmpl), hi: apicId }
  const fields = vmsa === null ? { info1 } : { info1, info2: u64(vmsa.gpa), rax: vmsa.sevFeatures }
  const reply = yield* ghcb.request(NAE.SNP_AP_CREATION, fields)
  return reply.ok ? { ok: true, value: null } : reply
}

/** AP creation, event 0x80000013: the vCPU runs this VMSA from now on. */
export const createAp = (ghcb: Ghcb, target: ApTarget, vmsaGpa: number, sevFeatures: U64): Program<Outcome<null>> =>
  apRequest(ghcb, AP_CREATION.CREATE, target, { gpa: vmsaGpa, sevFeatures })

/** AP creation, event 0x80000013: the vCPU runs this VMSA once it gets an INIT. */
export const createApOnInit = (
  ghcb: Ghcb,
  target: ApTarget,
  vmsaGpa: number,
  sevFeatures: U64
): Program<Outcome<null>> => apRequest(ghcb, AP_CREATION.CREATE_ON_INIT, target, { gpa: vmsaGpa, sevFeatures })

/** AP creation, event 0x80000013: the vCPU's VMSA is not run any more. */
export const destroyAp = (ghcb: Ghcb, target: ApTarget): Program<Outcome<null>> =>
  apRequest(ghcb, AP_CREATION.DESTROY, target, null)

/** Pages that a list may ask for: 2^20 vCPUs. */
const LIST_PAGES_MAX = 1025

/** APIC ID list, event 0x80000017 without a buffer: pages that the list needs. */
export function* apicIdListSize(ghcb: Ghcb): Program<Outcome<number>> {
  const reply = yield* ghcb.request(NAE.APIC_ID_LIST, { rax: u64(0) }, ["rax"])
  if (!reply.ok) return reply
  const { lo, hi } = reply.value.rax
  return hi === 0 && lo > 0 && lo <= LIST_PAGES_MAX ? { ok: true, value: lo } : vmmError
}

/**
 * APIC ID list, event 0x80000017: into shared pages. A vCPU is there once.
 * @returns null when by now the list needs more pages than these
 */
export function* apicIdList(
  ghcb: Ghcb,
  bufferGpa: number,
  pages: number
): Program<Outcome<ReadonlyArray<number> | null>> {
  const reply = yield* ghcb.request(NAE.APIC_ID_LIST, { info1: u64(bufferGpa), rax: u64(pages) }, ["rax"])
  if (!reply.ok) return reply
  const { lo, hi } = reply.value.rax
  if (hi !== 0 || lo > LIST_PAGES_MAX) return vmmError
  if (lo > pages) return { ok: true, value: null }
  const bytes = new Uint8Array(pages * PAGE_SIZE)
  yield* copyBytes(OP.READ_BYTES, bufferGpa, bytes, false)
  const view = new DataView(bytes.buffer)
  const count = view.getUint32(0, true)
  if (count === 0 || 4 + 4 * count > bytes.length) return vmmError
  const ids = Array.from({ length: count }, (_, i) => view.getUint32(4 + 4 * i, true))
  return new Set(ids).size === count ? { ok: true, value: ids } : vmmError
}
