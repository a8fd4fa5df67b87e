import { CALLING_AREA, SVSM_RESULT } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { EFER_SVME, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { type Program, read, rmpadjust, write } from "@vmpl-lab/vmpl"
import { isValidated, mayWrite, SIZE_2M, validRegion } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { FLUSH_TLBS, grant, revoke } from "./Permissions.ts"
import { gpaOf, instructionResult, KNOWN_STATUS, type SvsmRequest } from "./Request.ts"

/**
 * CREATE_VCPU: turns a page into a VMSA for a vCPU at the caller's level or a less privileged one. Rights are revoked
 * before the page is looked at, so that the guest cannot change what was checked.
 * @spec SVSM 6.3
 */
export function* createVcpu(state: SvsmState, request: SvsmRequest): Program<number> {
  const { behaviour } = state
  const vmsaGpa = gpaOf(request.rcxLo, request.rcxHi)
  const caGpa = gpaOf(request.rdxLo, request.rdxHi)
  const apicId = request.r8Lo
  if (vmsaGpa % PAGE_SIZE !== 0 || caGpa % PAGE_SIZE !== 0) return behaviour.misalignedVcpu
  if (vmsaGpa === caGpa) return SVSM_RESULT.INVALID_ADDRESS
  yield* state.lock.write()
  try {
    const ranges = [
      [vmsaGpa, PAGE_SIZE],
      [caGpa, CALLING_AREA.SIZE]
    ] as const
    if (!ranges.every(([gpa, size]) => validRegion(state, gpa, size))) return SVSM_RESULT.INVALID_ADDRESS
    if (apicId >= state.parameters.vcpus) return SVSM_RESULT.INVALID_PARAMETER
    for (const [gpa, size] of ranges) {
      if (!isValidated(state, gpa, size)) return SVSM_RESULT.INVALID_ADDRESS
      if (!(yield* mayWrite(state, request.vmpl, gpa, size))) return SVSM_RESULT.INVALID_ADDRESS
    }
    // A VMSA that starts a 2 MiB region runs into the false RMP faults of an erratum, and KVM refuses it.
    if (behaviour.refusesAlignedVmsa && vmsaGpa % SIZE_2M === 0) return SVSM_RESULT.INVALID_PARAMETER
    const revoked = yield* revoke(state, vmsaGpa)
    if (revoked !== SVSM_RESULT.SUCCESS) return revoked
    yield FLUSH_TLBS
    const vmpl = yield* acceptableLevel(state, request, vmsaGpa)
    if (vmpl === null) {
      yield* grant(state, vmsaGpa, request.vmpl)
      return SVSM_RESULT.INVALID_PARAMETER
    }
    const { lo: eax } = yield rmpadjust(vmsaGpa, vmpl, PERMISSION.READ, true)
    if (eax !== 0) {
      yield* grant(state, vmsaGpa, request.vmpl)
      return instructionResult(state, eax, KNOWN_STATUS.RMPADJUST)
    }
    if (behaviour.clearsNewArea) yield write(caGpa, CALLING_AREA.SIZE, 0)
    state.register({ vmsaGpa, caGpa, apicId, vmpl, guestOwned: true })
    return SVSM_RESULT.SUCCESS
  } finally {
    state.lock.release()
  }
}

/** The VMPL of a VMSA that a caller may have, or null. */
function* acceptableLevel(state: SvsmState, request: SvsmRequest, vmsaGpa: number): Program<number | null> {
  const { vcpuLevel, comparesStartUpFeatures } = state.behaviour
  const vmpl = (yield read(vmsaGpa + VMSA.vmpl, 1)).lo
  const efer = (yield read(vmsaGpa + VMSA.efer, 4)).lo
  const features = yield read(vmsaGpa + VMSA.sev_features, 8)
  const hasLevel = vcpuLevel === null ? vmpl >= request.vmpl && vmpl !== 0 : vmpl === vcpuLevel
  const expected = comparesStartUpFeatures ? state.startUpFeatures : request.sevFeatures
  return hasLevel && (efer & EFER_SVME) !== 0 && features.lo === expected && features.hi === 0 ? vmpl : null
}
