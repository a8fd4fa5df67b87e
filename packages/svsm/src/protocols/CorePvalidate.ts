import { PVALIDATE_LIST_HEADER, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, pvalidate, read, write, zeroPage } from "@vmpl-lab/vmpl"
import { isValidated, validRegion } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { rescindRegion, validateRegion } from "./CorePvalidate2m.ts"
import { grant, revoke } from "./Permissions.ts"
import { gpaOf, instructionResult, RESULT_UNCHANGED, type SvsmRequest } from "./Request.ts"

const ENTRY = { SIZE: 0x3, VALIDATE: 0x4, IGNORE_CF: 0x8, RESERVED: 0xff0 } as const
const SIZE_2M = 0x20_0000

/**
 * PVALIDATE: validates or rescinds the pages of a list, stopping at the first failure, or after so many that the caller
 * should be heard again; `next` tells how far it came.
 * @spec SVSM 6.2 table 6
 */
export function* pvalidateCall(state: SvsmState, request: SvsmRequest): Program<number> {
  const list = gpaOf(request.rcxLo, request.rcxHi)
  if (list % 8 !== 0) return SVSM_RESULT.INVALID_PARAMETER
  if (!guestMay(state, list, PVALIDATE_LIST_HEADER)) return SVSM_RESULT.INVALID_ADDRESS
  yield* state.lock.read()
  try {
    const header = (yield read(list, 4)).lo
    const count = header & 0xffff
    let next = header >>> 16
    const room = Math.floor((PAGE_SIZE - (list % PAGE_SIZE) - PVALIDATE_LIST_HEADER) / 8)
    if (count === 0 || count > room || next >= count) return SVSM_RESULT.INVALID_PARAMETER
    let result: number = SVSM_RESULT.SUCCESS
    const { entriesPerCall } = state.parameters
    const last = entriesPerCall === 0 ? count : Math.min(count, next + entriesPerCall)
    while (next < last && result === SVSM_RESULT.SUCCESS) {
      const { lo, hi } = yield read(list + PVALIDATE_LIST_HEADER + 8 * next, 8)
      result = yield* entry(state, request.vmpl, list, lo, hi)
      if (result === SVSM_RESULT.SUCCESS) next++
    }
    if (result === SVSM_RESULT.SUCCESS && next < count) result = SVSM_RESULT.INCOMPLETE
    // The list's own page may just have been rescinded: then there is nothing left to write to.
    if (guestMay(state, list, PVALIDATE_LIST_HEADER)) yield write(list + 2, 2, next)
    return result
  } finally {
    state.lock.release()
  }
}

const guestMay = (state: SvsmState, gpa: number, size: number): boolean =>
  validRegion(state, gpa, size) && isValidated(state, gpa, size)

function* entry(state: SvsmState, vmpl: number, list: number, lo: number, hi: number): Program<number> {
  if ((lo & ENTRY.RESERVED) !== 0) return SVSM_RESULT.INVALID_PARAMETER
  const size = lo & ENTRY.SIZE
  const gpa = gpaOf((lo & ~0xfff) >>> 0, hi)
  if (size > 1 || (size === 1 && gpa % SIZE_2M !== 0)) return SVSM_RESULT.INVALID_PARAMETER
  const bytes = size === 1 ? SIZE_2M : PAGE_SIZE
  if (!validRegion(state, gpa, bytes)) return SVSM_RESULT.INVALID_ADDRESS
  // A list that rescinds its own page could not report how far it came.
  const rescindsItself = (lo & ENTRY.VALIDATE) === 0 && gpa === list - (list % bytes)
  if (rescindsItself) return SVSM_RESULT.INVALID_ADDRESS
  const unchanged = (lo & ENTRY.IGNORE_CF) !== 0 ? SVSM_RESULT.SUCCESS : RESULT_UNCHANGED
  if (size === 1) {
    return (lo & ENTRY.VALIDATE) !== 0
      ? yield* validateRegion(state, gpa, vmpl, unchanged)
      : yield* rescindRegion(state, gpa, unchanged)
  }
  return (lo & ENTRY.VALIDATE) !== 0
    ? yield* validate(state, gpa, vmpl, unchanged)
    : yield* rescind(state, gpa, unchanged)
}

/**
 * Validates a page, clears it before anybody below sees it (the host may have put an SVSM page there), and grants it
 * to the caller's level and the more privileged ones but 0.
 */
function* validate(state: SvsmState, gpa: number, vmpl: number, unchanged: number): Program<number> {
  const gfn = gpa / PAGE_SIZE
  // Never validate a GPA twice: the second time the host may have put another page behind it.
  if (state.validated.has(gfn) || state.validating.has(gfn)) return unchanged
  // Another CPU may ask for the same page while this one is stopped in the middle.
  state.validating.add(gfn)
  const { lo, carry } = yield pvalidate(gpa, true)
  state.validating.delete(gfn)
  if (lo !== 0) return instructionResult(lo)
  if (carry) return unchanged
  state.validated.add(gfn)
  yield zeroPage(gpa)
  return yield* grant(gpa, vmpl)
}

/** Takes a page from every level below, then rescinds it. */
function* rescind(state: SvsmState, gpa: number, unchanged: number): Program<number> {
  const gfn = gpa / PAGE_SIZE
  if (!state.validated.has(gfn)) return unchanged
  const revoked = yield* revoke(gpa)
  if (revoked !== SVSM_RESULT.SUCCESS) return revoked
  const { lo, carry } = yield pvalidate(gpa, false)
  if (lo !== 0) return instructionResult(lo)
  state.validated.delete(gfn)
  return carry ? unchanged : SVSM_RESULT.SUCCESS
}
