import { AP_CREATION, PAGE_SIZE, SEV_FEATURES, VMCB } from "@vmpl-lab/sev-es"
import { assert, type HostThread, PRIMITIVE, type Span } from "@vmpl-lab/sim"
import { type ApCreateRequest, creates } from "./ApCreateRequest.ts"
import { ERRNO } from "./Errno.ts"
import { MP_STATE, REQUEST, type Vcpu, type VmplSlot } from "./Vcpu.ts"
import { markAllDirty, type Vm } from "./Vm.ts"

const INJECTION_MODE = SEV_FEATURES.RestrictedInjection | SEV_FEATURES.AlternateInjection

/**
 * What sev_snp_ap_creation checks of a request before it looks at the VM's features: who asks, for what, and whether
 * the page can be a VMSA.
 * @returns 0 or EINVAL
 */
export const checkApCreation = (vm: Vm, request: ApCreateRequest): number => {
  // VMPL0 may only be set by another vCPU that is itself at VMPL0.
  if (request.vmpl === 0 && (request.fromVmpl !== 0 || request.fromApicId === request.apicId)) return ERRNO.EINVAL
  if (!creates(request.request)) return request.request === AP_CREATION.DESTROY ? 0 : ERRNO.EINVAL
  const gfn = request.vmsaGpa / PAGE_SIZE
  const usable = Number.isInteger(gfn) && gfn % 512 !== 0 && vm.inMemorySlot(gfn) && !vm.isShared(gfn)
  return usable ? 0 : ERRNO.EINVAL
}

/**
 * The part of sev_snp_ap_creation that is the same wherever VMPLs live: checks the request against the target and
 * notes the VMSA. An error leaves the level asked for without a VMSA that may run; the other levels are untouched.
 * @returns 0 or EINVAL
 */
export const noteVmsa = (target: Vcpu, slot: VmplSlot, request: ApCreateRequest): number => {
  const { vm } = target
  slot.vmsaGpa = -1
  slot.waitingForReset = true
  const checked = checkApCreation(vm, request)
  if (checked < 0 || !creates(request.request)) return checked
  const known = vm.vmsaFeatures[request.vmpl]!
  if (known < 0) vm.vmsaFeatures[request.vmpl] = (request.sevFeatures | SEV_FEATURES.SNPActive) >>> 0
  else if (((known ^ request.sevFeatures) & INJECTION_MODE) !== 0) return ERRNO.EINVAL
  slot.vmsaGpa = request.vmsaGpa
  slot.sevFeatures = request.sevFeatures
  return 0
}

/**
 * What follows noteVmsa for every request but CREATE_ON_INIT, also when it failed. The caller kicks. `span` is the path
 * of the operation behind it, if it is measured.
 */
export const requestUpdate = (target: Vcpu, span: Span | null): void => {
  target.requests |= REQUEST.UPDATE_PROTECTED_GUEST_STATE
  target.updateSpan = span
  if (target.mpState === MP_STATE.UNINITIALIZED) target.mpState = MP_STATE.RUNNABLE
}

/**
 * KVM_REQ_UPDATE_PROTECTED_GUEST_STATE, on the target's own thread: the VMSA that AP creation named goes into the
 * VMCB. Without one the vCPU stays halted. A request about a level that does not run here changes nothing.
 */
export const updateProtectedGuestState = (vcpu: Vcpu, thread: HostThread): void => {
  const slot = vcpu.target
  if (slot === vcpu.current && !slot.waitingForReset) return
  vcpu.mpState = MP_STATE.HALTED
  if (resolveVmsa(vcpu, slot, thread)) {
    loadSlot(vcpu, slot, thread)
    vcpu.mpState = vcpu.apRunnable ? MP_STATE.RUNNABLE : MP_STATE.UNINITIALIZED
  }
}

/**
 * sev_snp_init_protected_guest_state: carries out a creation that waits at this level.
 * @returns true when one was waiting and its VMSA is now usable
 */
export const initProtectedGuestState = (vcpu: Vcpu, slot: VmplSlot, thread: HostThread): boolean =>
  slot.waitingForReset && resolveVmsa(vcpu, slot, thread)

const resolveVmsa = (vcpu: Vcpu, slot: VmplSlot, thread: HostThread): boolean => {
  slot.waitingForReset = false
  slot.vmsaPfn = -1
  if (slot.vmsaGpa < 0) return false
  thread.charge(PRIMITIVE.gpa_translate_vmsa)
  slot.vmsaPfn = vcpu.vm.memory.privateFrame(slot.vmsaGpa / PAGE_SIZE)
  return true
}

/** Puts a slot's VMSA into the VMCB: the other one's GHCB MSR is kept, this one's comes back, nothing cached survives. */
export const loadSlot = (vcpu: Vcpu, slot: VmplSlot, thread: HostThread): void => {
  const { vm, vmcb } = vcpu
  const { host } = vm.kvm.hardware
  const old = vcpu.current
  if (old !== slot) thread.charge(PRIMITIVE.vmcb_swap_fields)
  old.ghcbLo = host.read32(vmcb + VMCB.ghcb_gpa)
  old.ghcbHi = host.read32(vmcb + VMCB.ghcb_gpa + 4)
  old.intState = host.read32(vmcb + VMCB.int_state)
  old.exitIntInfo = host.read32(vmcb + VMCB.exit_int_info)
  old.exitIntInfoErr = host.read32(vmcb + VMCB.exit_int_info_err)
  const stored =
    host.write64(vmcb + VMCB.ghcb_gpa, slot.ghcbLo, slot.ghcbHi) |
    host.write32(vmcb + VMCB.int_state, slot.intState) |
    host.write32(vmcb + VMCB.exit_int_info, slot.exitIntInfo) |
    host.write32(vmcb + VMCB.exit_int_info_err, slot.exitIntInfoErr) |
    vm.writeAddress(vmcb + VMCB.vmsa_pa, slot.vmsaPfn * PAGE_SIZE)
  assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
  vcpu.current = slot
  markAllDirty(vcpu)
}
