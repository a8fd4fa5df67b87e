import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, readBytes, work, writeBytes } from "@vmpl-lab/vmpl"
import { isValidated, mayWrite, validRegion } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"

/**
 * What a service's access to guest memory costs beyond the switch, virtual ns. Both are assumed: a page table entry of
 * the SVSM's own is written and its translation dropped for each guest page, and bytes are copied at 40 GB/s out of a
 * cache. Both are guesses without a source.
 */
export const GUEST_BUFFER_COST = { MAP_PAGE: 200, COPY_KIB: 25 } as const

/** True when a range is the guest's to name and every page of it can be touched. */
export const isGuestBuffer = (state: SvsmState, gpa: number, size: number): boolean =>
  validRegion(state, gpa, size) && isValidated(state, gpa, size)

/** The same, and the calling level has itself the right to write all of it. */
export function* isCallersBuffer(state: SvsmState, vmpl: number, gpa: number, size: number): Program<boolean> {
  return isGuestBuffer(state, gpa, size) && (yield* mayWrite(state, vmpl, gpa, size))
}

/**
 * Copies between the SVSM and guest memory, page by page; each page is looked at again right before it is touched, as
 * another vCPU may rescind it meanwhile.
 * @returns false where the guest has taken the memory away, and then nothing more was copied
 */
function* copy(
  state: SvsmState,
  gpa: number,
  bytes: Uint8Array,
  operation: typeof readBytes | typeof writeBytes
): Program<boolean> {
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(bytes.length - at, PAGE_SIZE - ((gpa + at) % PAGE_SIZE))
    yield work(GUEST_BUFFER_COST.MAP_PAGE + Math.ceil((length * GUEST_BUFFER_COST.COPY_KIB) / 1024))
    if (!isGuestBuffer(state, gpa + at, length)) return false
    yield operation(gpa + at, bytes.subarray(at, at + length))
    at += length
  }
  return true
}

/** Fills `into` from guest memory. */
export const readGuest = (state: SvsmState, gpa: number, into: Uint8Array): Program<boolean> =>
  copy(state, gpa, into, readBytes)

/** Stores `from` in guest memory. */
export const writeGuest = (state: SvsmState, gpa: number, from: Uint8Array): Program<boolean> =>
  copy(state, gpa, from, writeBytes)
