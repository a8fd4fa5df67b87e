import { SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, pvalidate, zeroPage } from "@vmpl-lab/vmpl"
import { COCONUT_PANIC } from "../CoconutPanic.ts"
import { mayWrite } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { rescindRegion, validateRegion } from "./CorePvalidate2m.ts"
import { type ListEntry, serveList, whyKept } from "./PageList.ts"
import { FLUSH_TLBS, grant, revoke } from "./Permissions.ts"
import { instructionResult, KNOWN_STATUS, RESULT_UNCHANGED, type SvsmRequest } from "./Request.ts"

const ENTRY = { VALIDATE: 0x4, IGNORE_CF: 0x8, RESERVED: 0xff0 } as const

/**
 * PVALIDATE: validates or rescinds the pages of a list.
 * @spec SVSM 6.2 table 6
 */
export const pvalidateCall = (state: SvsmState, request: SvsmRequest): Program<number> =>
  serveList(state, request, ENTRY.RESERVED, (entry) => serveEntry(state, request, entry))

function* serveEntry(state: SvsmState, request: SvsmRequest, entry: ListEntry): Program<number> {
  const { gpa, bits, bytes } = entry
  const unchanged = (bits & ENTRY.IGNORE_CF) !== 0 ? SVSM_RESULT.SUCCESS : RESULT_UNCHANGED
  const isPage = bytes === PAGE_SIZE
  if ((bits & ENTRY.VALIDATE) !== 0) {
    return isPage
      ? yield* validate(state, gpa, request.vmpl, unchanged)
      : yield* validateRegion(state, gpa, request.vmpl, unchanged)
  }
  const kept = whyKept(state, request, entry)
  if (kept !== null) return kept
  return isPage
    ? yield* rescind(state, gpa, request.vmpl, unchanged)
    : yield* rescindRegion(state, gpa, request.vmpl, unchanged)
}

/**
 * Validates a page, clears it before anybody below sees it (the host may have put an SVSM page there), and grants it
 * to the caller's level and the more privileged ones but 0.
 */
function* validate(state: SvsmState, gpa: number, vmpl: number, unchanged: number): Program<number> {
  const { behaviour } = state
  const gfn = gpa / PAGE_SIZE
  // Never validate a GPA twice: the second time the host may have put another page behind it.
  if (behaviour.refusesDoubleValidation && state.validated.has(gfn)) return unchanged
  // Another CPU may ask for the same page while this one is stopped in the middle.
  if (state.changing.has(gfn)) return unchanged
  state.changing.add(gfn)
  try {
    return yield* validateKept(state, gpa, vmpl, unchanged)
  } finally {
    state.changing.delete(gfn)
  }
}

/** The same for a page that is not validated, and that its caller keeps from all others by `state.changing`. */
export function* validateKept(state: SvsmState, gpa: number, vmpl: number, unchanged: number): Program<number> {
  const { behaviour } = state
  const { lo, carry } = yield pvalidate(gpa, true)
  if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.PVALIDATE)
  if (carry && (behaviour.refusesDoubleValidation || unchanged !== SVSM_RESULT.SUCCESS)) return unchanged
  state.validated.add(gpa / PAGE_SIZE)
  const { gpa: hole, size } = behaviour.notCleared
  if (gpa < hole || gpa >= hole + size) yield zeroPage(gpa)
  return yield* grant(state, gpa, vmpl)
}

/** Takes a page from every level below, then rescinds it. */
function* rescind(state: SvsmState, gpa: number, vmpl: number, unchanged: number): Program<number> {
  const gfn = gpa / PAGE_SIZE
  if (!state.validated.has(gfn)) {
    state.wouldPanic(COCONUT_PANIC.UNVALIDATED_PAGE)
    return unchanged
  }
  state.changing.add(gfn)
  try {
    if (!(yield* mayWrite(state, vmpl, gpa, PAGE_SIZE))) return SVSM_RESULT.INVALID_ADDRESS
    const revoked = yield* revoke(state, gpa)
    if (revoked !== SVSM_RESULT.SUCCESS) return revoked
    const { lo, carry } = yield pvalidate(gpa, false)
    yield FLUSH_TLBS
    if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.PVALIDATE)
    state.validated.delete(gfn)
    return carry ? unchanged : SVSM_RESULT.SUCCESS
  } finally {
    state.changing.delete(gfn)
  }
}
