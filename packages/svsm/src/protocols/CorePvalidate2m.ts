import { SVSM_RESULT } from "@vmpl-lab/guest"
import { RETURN_CODE } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, pvalidate, zeroRegion } from "@vmpl-lab/vmpl"
import { COCONUT_PANIC } from "../CoconutPanic.ts"
import { mayWrite, SIZE_2M } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { FLUSH_TLBS, grantRegion, revokeRegion } from "./Permissions.ts"
import { instructionResult, KNOWN_STATUS } from "./Request.ts"

export const SIZE_MISMATCH = SVSM_RESULT.FAIL_BASE + RETURN_CODE.FAIL_SIZEMISMATCH

/**
 * Validates a 2 MiB region, clears it, and grants it. Where the RMP has 4 KiB entries the instruction says
 * FAIL_SIZEMISMATCH and changes nothing: the guest asks again, page by page.
 * @spec SVSM 6.2, APM2 15.36.6
 */
export function* validateRegion(state: SvsmState, gpa: number, vmpl: number, unchanged: number): Program<number> {
  const gfn = gpa / PAGE_SIZE
  if (state.validated.hasRegion(gfn)) return unchanged
  // Some of its pages have been validated one by one, or are about to be: they have entries of their own.
  if (state.validated.touchesRegion(gfn) || state.changing.touchesRegion(gfn)) return SIZE_MISMATCH
  state.changing.addRegion(gfn)
  try {
    return yield* validateKeptRegion(state, gpa, vmpl, unchanged)
  } finally {
    state.changing.deleteRegion(gfn)
  }
}

/** The same for a region of which nothing is validated, and that its caller keeps from all others by `state.changing`. */
export function* validateKeptRegion(state: SvsmState, gpa: number, vmpl: number, unchanged: number): Program<number> {
  const { lo, carry } = yield pvalidate(gpa, true, 1)
  if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.PVALIDATE)
  if (carry) return unchanged
  state.validated.addRegion(gpa / PAGE_SIZE)
  yield zeroRegion(gpa)
  return yield* grantRegion(state, gpa, vmpl)
}

/** Takes a 2 MiB region from every level below, then rescinds it. */
export function* rescindRegion(state: SvsmState, gpa: number, vmpl: number, unchanged: number): Program<number> {
  const gfn = gpa / PAGE_SIZE
  if (!state.validated.touchesRegion(gfn)) {
    state.wouldPanic(COCONUT_PANIC.UNVALIDATED_PAGE)
    return unchanged
  }
  if (!state.validated.hasRegion(gfn)) return SIZE_MISMATCH
  state.changing.addRegion(gfn)
  try {
    if (!(yield* mayWrite(state, vmpl, gpa, SIZE_2M))) return SVSM_RESULT.INVALID_ADDRESS
    const revoked = yield* revokeRegion(state, gpa)
    if (revoked !== SVSM_RESULT.SUCCESS) return revoked
    const { lo, carry } = yield pvalidate(gpa, false, 1)
    yield FLUSH_TLBS
    if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.PVALIDATE)
    state.validated.deleteRegion(gfn)
    return carry ? unchanged : SVSM_RESULT.SUCCESS
  } finally {
    state.changing.deleteRegion(gfn)
  }
}
