import { PVALIDATE_LIST_HEADER, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Operation, type Program, read, write } from "@vmpl-lab/vmpl"
import { COCONUT_PANIC } from "../CoconutPanic.ts"
import { isGuestBuffer, mayWrite, SIZE_2M, validRegion } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { gpaOf, type SvsmRequest } from "./Request.ts"

/** An entry's page and its low bits. */
export interface ListEntry {
  readonly gpa: number
  /** Bits 11:0 as they stand. */
  readonly bits: number
  /** 4 KiB or 2 MiB. */
  readonly bytes: number
}

/** Bits 1:0 of an entry. */
const SIZE = 0x3
const ADDRESS_LO = 0xffff_f000

/**
 * PVALIDATE's and DEPOSIT_MEM's argument: u16 count, u16 next, u32 reserved, then entries. Serves one after the other
 * from `next` on, stopping at the first failure, or after so many that the caller should be heard again; `next` tells
 * how far it came.
 * @param reserved bits of an entry that must be zero
 * @param last what is done before other calls may go on
 * @spec SVSM 6.2 table 6, 6.5
 */
export function* serveList(
  state: SvsmState,
  request: SvsmRequest,
  reserved: number,
  serve: (entry: ListEntry) => Program<number>,
  last: (() => Program) | null = null
): Program<number> {
  const list = gpaOf(request.rcxLo, request.rcxHi)
  const { apicId } = request.caller
  if (list % 8 !== 0) return SVSM_RESULT.INVALID_PARAMETER
  yield* state.lock.read()
  try {
    if (!(yield* holdList(state, request, list))) return SVSM_RESULT.INVALID_ADDRESS
    const header = (yield read(list, 4)).lo
    const count = header & 0xffff
    let next = header >>> 16
    const room = listRoom(list)
    if (count === 0 || count > room || next >= count) return SVSM_RESULT.INVALID_PARAMETER
    let result: number = SVSM_RESULT.SUCCESS
    const { entriesPerCall } = state.parameters
    const isWhole = entriesPerCall === 0 || !state.behaviour.servesListsInParts
    const end = isWhole ? count : Math.min(count, next + entriesPerCall)
    while (next < end && result === SVSM_RESULT.SUCCESS) {
      const { lo, hi } = yield read(list + PVALIDATE_LIST_HEADER + 8 * next, 8)
      const entry = entryOf(lo, hi, reserved)
      if (entry === null) result = SVSM_RESULT.INVALID_PARAMETER
      else if (!validRegion(state, entry.gpa, entry.bytes)) result = SVSM_RESULT.INVALID_ADDRESS
      else result = yield* serve(entry)
      if (result === SVSM_RESULT.SUCCESS) next++
    }
    if (result === SVSM_RESULT.SUCCESS && next < count) result = SVSM_RESULT.INCOMPLETE
    if (!(yield* writeList(state, request.vmpl, write(list + 2, 2, next)))) result = SVSM_RESULT.INVALID_ADDRESS
    if (last !== null) yield* last()
    return result
  } finally {
    state.held[apicId] = undefined
    state.lock.release()
  }
}

/**
 * A store into a caller's list. Its level's right to write may have gone since the call began.
 * @returns false where it has, and then nothing was stored
 */
export function* writeList(state: SvsmState, vmpl: number, store: Operation): Program<boolean> {
  if (!(yield* mayWrite(state, vmpl, store.address, store.size))) return false
  yield store
  return true
}

/** Entries between a list's header and the end of its page. */
export const listRoom = (list: number): number =>
  Math.floor((PAGE_SIZE - (list % PAGE_SIZE) - PVALIDATE_LIST_HEADER) / 8)

/**
 * Begins to work with a caller's list, which then stays what it is until `held` is cleared: guest memory that the caller
 * may write, as how far the SVSM came is written there.
 * @returns false where it is none
 */
export function* holdList(state: SvsmState, { caller, vmpl }: SvsmRequest, list: number): Program<boolean> {
  if (!isGuestBuffer(state, list, PVALIDATE_LIST_HEADER)) return false
  state.held[caller.apicId] = Math.floor(list / PAGE_SIZE)
  return yield* mayWrite(state, vmpl, list, PVALIDATE_LIST_HEADER)
}

/** Null where the specification says INVALID_PARAMETER. */
const entryOf = (lo: number, hi: number, reserved: number): ListEntry | null => {
  const size = lo & SIZE
  const gpa = gpaOf((lo & ADDRESS_LO) >>> 0, hi)
  if ((lo & reserved) !== 0 || size > 1 || (size === 1 && gpa % SIZE_2M !== 0)) return null
  return { gpa, bits: lo & ~ADDRESS_LO, bytes: size === 1 ? SIZE_2M : PAGE_SIZE }
}

/**
 * Why a page may not be taken away at this moment, or null: the list that is being served could not report how far it
 * came, and what another CPU works on or copies must stay. That one is done soon, so the caller may ask again.
 * @spec-silent what a list is that takes its own page
 */
export const whyKept = (state: SvsmState, { caller }: SvsmRequest, { gpa, bytes }: ListEntry): number | null => {
  const first = gpa / PAGE_SIZE
  const isIn = (gfn: number): boolean => gfn >= first && gfn * PAGE_SIZE < gpa + bytes
  const cpu = state.held.findIndex((gfn) => gfn !== undefined && isIn(gfn))
  if (cpu >= 0) {
    state.wouldPanic(COCONUT_PANIC.UNVALIDATED_PAGE)
    const own = state.held[caller.apicId]
    return own !== undefined && isIn(own) ? SVSM_RESULT.INVALID_ADDRESS : SVSM_RESULT.BUSY
  }
  const isBusy = [state.changing, state.kept].some((pages) =>
    bytes === PAGE_SIZE ? pages.has(first) : pages.touchesRegion(first)
  )
  return isBusy ? SVSM_RESULT.BUSY : null
}
