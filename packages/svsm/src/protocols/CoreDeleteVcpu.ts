import { SVSM_RESULT } from "@vmpl-lab/guest"
import { RETURN_CODE } from "@vmpl-lab/rmp"
import { EFER_SVME, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { type Program, read, rmpadjust, write } from "@vmpl-lab/vmpl"
import { COCONUT_PANIC } from "../CoconutPanic.ts"
import type { GuestVmsa, SvsmState } from "../State.ts"
import { FLUSH_TLBS, grant, revoke } from "./Permissions.ts"
import { NO_RETURN } from "./Protocol.ts"
import { gpaOf, instructionResult, KNOWN_STATUS, type SvsmRequest } from "./Request.ts"

/** The VMSA belongs to a vCPU that runs, or that an SVSM CPU is serving. @spec SVSM 6.4 */
const RESULT_IN_USE = SVSM_RESULT.FAIL_BASE + RETURN_CODE.FAIL_INUSE

/**
 * DELETE_VCPU: a VMSA becomes memory of the caller's again. That of the start-up vCPU stays, and one that is in use. A
 * vCPU that deletes itself does not hear of it.
 * @spec SVSM 6.4
 */
export function* deleteVcpu(state: SvsmState, request: SvsmRequest): Program<number> {
  const vmsaGpa = gpaOf(request.rcxLo, request.rcxHi)
  if (vmsaGpa % PAGE_SIZE !== 0) return SVSM_RESULT.INVALID_PARAMETER
  yield* state.lock.write()
  try {
    const vmsa = state.registry.find((one) => one.vmsaGpa === vmsaGpa)
    if (vmsa === undefined || !vmsa.guestOwned) return SVSM_RESULT.INVALID_PARAMETER
    if (state.behaviour.guardsPrivilegedVmsas && vmsa.vmpl < request.vmpl) return SVSM_RESULT.INVALID_PARAMETER
    return yield* takeBack(state, request, vmsa)
  } finally {
    state.lock.release()
  }
}

function* takeBack(state: SvsmState, request: SvsmRequest, vmsa: GuestVmsa): Program<number> {
  const { vmsaGpa, apicId } = vmsa
  const isOwn = vmsa === request.caller
  // Its SVSM CPU would write the result of a call into what is a page of the guest's by then.
  if (!isOwn && state.serving[apicId] === vmsa) return inUse(state)
  // From here on its CPU does not look at it any more.
  const levels = state.served[apicId]!
  const wasServed = levels[vmsa.vmpl] === vmsa
  if (wasServed) levels[vmsa.vmpl] = undefined
  const efer = (yield read(vmsaGpa + VMSA.efer, 4)).lo
  yield write(vmsaGpa + VMSA.efer, 4, efer & ~EFER_SVME)
  // With the VMSA bit cleared the hardware runs it no more; a VMSA that it runs cannot lose the bit.
  const { lo: eax } = yield rmpadjust(vmsaGpa, state.behaviour.revokedLevels[0]!, 0, false)
  if (eax !== 0) {
    yield write(vmsaGpa + VMSA.efer, 4, efer)
    if (wasServed) levels[vmsa.vmpl] = vmsa
    return eax === RETURN_CODE.FAIL_INUSE
      ? inUse(state)
      : (state.behaviour.failedDelete ?? instructionResult(state, eax, KNOWN_STATUS.RMPADJUST))
  }
  yield* revoke(state, vmsaGpa)
  state.unregister(vmsa)
  const granted = yield* grant(state, vmsaGpa, request.vmpl)
  yield FLUSH_TLBS
  return isOwn ? NO_RETURN : granted
}

const inUse = (state: SvsmState): number => {
  if (!state.behaviour.knowsRunningVmsas) state.wouldPanic(COCONUT_PANIC.VMSA_IN_USE)
  return RESULT_IN_USE
}
