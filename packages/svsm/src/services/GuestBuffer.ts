import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Operation, type Program, readBytes, work, writeBytes } from "@vmpl-lab/vmpl"
import { isGuestBuffer, mayWrite } from "../GuestAddress.ts"
import type { GuestVmsa, SvsmState } from "../State.ts"

/**
 * What a copy from or to guest memory costs beyond the switch, virtual ns. Both are assumed: a page table entry of the
 * SVSM's own is written and its translation dropped for each guest page, and bytes are copied at 40 GB/s out of a cache.
 * Both are guesses without a source. Lists and VMSAs, which the core protocol works on where they are, are not copied:
 * there each load and store has its own price.
 */
export const GUEST_BUFFER_COST = { MAP_PAGE: 200, COPY_KIB: 25 } as const

/** On whose behalf memory is touched, and which CPU does it. */
export type Caller = Pick<GuestVmsa, "apicId" | "vmpl">

/** What a copy of so many bytes within one page costs. */
export const copyNs = (length: number): number =>
  GUEST_BUFFER_COST.MAP_PAGE + Math.ceil((length * GUEST_BUFFER_COST.COPY_KIB) / 1024)

/** Bytes of a range that lie in the page of its offset. */
export const lengthInPage = (gpa: number, size: number, offset: number): number =>
  Math.min(size - offset, PAGE_SIZE - ((gpa + offset) % PAGE_SIZE))

/**
 * Goes through a range page by page, as long as each is memory that the caller may write itself. A page is looked at
 * right before it is touched, and no other CPU may rescind it, take it or make a VMSA of it in between: a store after
 * the look would end the guest, or reach the registers of a vCPU.
 * @param copy what is done to so many bytes of a page from an offset of the range on, at the price of a copy; null:
 * nothing
 * @returns false at the first page that is not, and then those before it have been copied
 */
function* eachCallersPage(
  state: SvsmState,
  { apicId, vmpl }: Caller,
  gpa: number,
  size: number,
  copy: ((offset: number, length: number) => Operation) | null
): Program<boolean> {
  for (let offset = 0; offset < size; ) {
    const length = lengthInPage(gpa, size, offset)
    if (copy !== null) yield work(copyNs(length))
    yield* state.lock.read()
    try {
      if (!isGuestBuffer(state, gpa + offset, length)) return false
      state.held[apicId] = Math.floor((gpa + offset) / PAGE_SIZE)
      if (!(yield* mayWrite(state, vmpl, gpa + offset, length))) return false
      if (copy !== null) yield copy(offset, length)
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

/** Fills `into` from guest memory. @returns false where the guest has taken it away, and then no more was copied */
export const readGuest = (state: SvsmState, caller: Caller, gpa: number, into: Uint8Array): Program<boolean> =>
  eachCallersPage(state, caller, gpa, into.length, (offset, length) =>
    readBytes(gpa + offset, into.subarray(offset, offset + length))
  )

/** Stores `from` in guest memory. @returns false where the guest has taken it away, and then no more was copied */
export const writeGuest = (state: SvsmState, caller: Caller, gpa: number, from: Uint8Array): Program<boolean> =>
  eachCallersPage(state, caller, gpa, from.length, (offset, length) =>
    writeBytes(gpa + offset, from.subarray(offset, offset + length))
  )
