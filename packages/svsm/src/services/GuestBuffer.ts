import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Operation, type Program, readBytes, work, writeBytes } from "@vmpl-lab/vmpl"
import { isGuestBuffer, mayWrite } from "../GuestAddress.ts"
import type { GuestVmsa, SvsmState } from "../State.ts"

/**
 * What a service's access to guest memory costs beyond the switch, virtual ns. Both are assumed: a page table entry of
 * the SVSM's own is written and its translation dropped for each guest page, and bytes are copied at 40 GB/s out of a
 * cache. Both are guesses without a source.
 */
export const GUEST_BUFFER_COST = { MAP_PAGE: 200, COPY_KIB: 25 } as const

/** On whose behalf memory is touched, and which CPU does it. */
export type Caller = Pick<GuestVmsa, "apicId" | "vmpl">

/**
 * Goes through a range page by page, as long as each is memory that the caller may write itself. A page is looked at
 * right before it is touched, and no other CPU may rescind it, take it or make a VMSA of it in between: a store after
 * the look would end the guest, or reach the registers of a vCPU.
 * @param touch what is done to so many bytes of a page from an offset of the range on; null: nothing
 * @returns false at the first page that is not, and then those before it have been touched
 */
export function* eachCallersPage(
  state: SvsmState,
  { apicId, vmpl }: Caller,
  gpa: number,
  size: number,
  touch: ((offset: number, length: number) => Operation) | null
): Program<boolean> {
  for (let offset = 0; offset < size; ) {
    const length = Math.min(size - offset, PAGE_SIZE - ((gpa + offset) % PAGE_SIZE))
    yield* state.lock.read()
    try {
      if (!isGuestBuffer(state, gpa + offset, length)) return false
      state.held[apicId] = Math.floor((gpa + offset) / PAGE_SIZE)
      if (!(yield* mayWrite(state, vmpl, gpa + offset, length))) return false
      if (touch !== null) yield touch(offset, length)
    } finally {
      state.held[apicId] = undefined
      state.lock.release()
    }
    offset += length
  }
  return true
}

/** True when a range is the guest's to name, can be touched, and the calling level has the right to write all of it. */
export function* isCallersBuffer(state: SvsmState, caller: Caller, gpa: number, size: number): Program<boolean> {
  return isGuestBuffer(state, gpa, size) && (yield* eachCallersPage(state, caller, gpa, size, null))
}

/**
 * Copies between the SVSM and memory of the caller's, page by page.
 * @returns false where the guest has taken the memory away, and then nothing more was copied
 */
function* copy(
  state: SvsmState,
  caller: Caller,
  gpa: number,
  bytes: Uint8Array,
  operation: typeof readBytes | typeof writeBytes
): Program<boolean> {
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(bytes.length - at, PAGE_SIZE - ((gpa + at) % PAGE_SIZE))
    yield work(GUEST_BUFFER_COST.MAP_PAGE + Math.ceil((length * GUEST_BUFFER_COST.COPY_KIB) / 1024))
    const part = bytes.subarray(at, at + length)
    if (!(yield* eachCallersPage(state, caller, gpa + at, length, () => operation(gpa + at, part)))) return false
    at += length
  }
  return true
}

/** Fills `into` from guest memory. */
export const readGuest = (state: SvsmState, caller: Caller, gpa: number, into: Uint8Array): Program<boolean> =>
  copy(state, caller, gpa, into, readBytes)

/** Stores `from` in guest memory. */
export const writeGuest = (state: SvsmState, caller: Caller, gpa: number, from: Uint8Array): Program<boolean> =>
  copy(state, caller, gpa, from, writeBytes)
