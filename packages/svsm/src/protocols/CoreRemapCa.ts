import { CALLING_AREA, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, write } from "@vmpl-lab/vmpl"
import { isGuestBuffer, mayWrite } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { gpaOf, type SvsmRequest } from "./Request.ts"

/**
 * REMAP_CA: moves the calling vCPU's calling area. The old one's call_pending is cleared (its call is done), the new
 * one's too, and the old one is not touched again.
 * @spec SVSM 6.1
 */
export function* remapCa(state: SvsmState, request: SvsmRequest): Program<number> {
  const gpa = gpaOf(request.rcxLo, request.rcxHi)
  if (gpa % PAGE_SIZE !== 0) return SVSM_RESULT.INVALID_PARAMETER
  yield* state.lock.write()
  try {
    const served = request.caller
    if (gpa === served.caGpa && state.behaviour.remapsToSameArea) return SVSM_RESULT.SUCCESS
    if (!isGuestBuffer(state, gpa, CALLING_AREA.SIZE)) return SVSM_RESULT.INVALID_ADDRESS
    if (!(yield* mayWrite(state, request.vmpl, gpa, CALLING_AREA.SIZE))) return SVSM_RESULT.INVALID_ADDRESS
    const isAvailable = !served.guestOwned && state.deposited.size > 0
    yield write(gpa, CALLING_AREA.SIZE, isAvailable ? 1 << (8 * CALLING_AREA.mem_available) : 0)
    if (state.behaviour.clearsPendingAfterRax) yield write(served.caGpa + CALLING_AREA.call_pending, 1, 0)
    served.caGpa = gpa
    return SVSM_RESULT.SUCCESS
  } finally {
    state.lock.release()
  }
}
