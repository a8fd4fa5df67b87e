import {
  type ApCreateRequest,
  ERRNO,
  HANDLED,
  initProtectedGuestState,
  kick,
  loadSlot,
  noteVmsa,
  REQUEST,
  requestUpdate,
  type Vcpu,
  type VmmOperations,
  type VmplOperations,
  wakesNobody
} from "@vmpl-lab/hypervisor"
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import { AP_CREATION } from "@vmpl-lab/sev-es"
import { assert, type HostThread } from "@vmpl-lab/sim"
import { createBootVm } from "./BootVm.ts"
import type { Strategy } from "./Strategy.ts"

const ALL_VMPLS = [0, 1, 2, 3]

/** AP creation inside KVM: notes the VMSA in the target's slot and lets the target's own thread put it into its VMCB. */
const apCreate = (vcpu: Vcpu, thread: HostThread, request: ApCreateRequest): number => {
  if (request.vmpl >= NUM_VMPLS) return ERRNO.EINVAL
  const target = vcpu.vm.vcpus.get(request.apicId)
  if (target === undefined) return ERRNO.EINVAL
  const slot = target.slot(request.vmpl)!
  const noted = noteVmsa(target, slot, request)
  const starts = noted === 0 && request.request === AP_CREATION.CREATE
  // What starts nothing stops the vCPU if the level that has lost its VMSA is the one that runs. No other is disturbed.
  if (starts || (request.request !== AP_CREATION.CREATE_ON_INIT && target.current === slot)) {
    target.target = slot
    const path = starts ? thread.span : null
    requestUpdate(target, path)
    kick(target, thread, path)
  }
  return noted < 0 ? noted : HANDLED.RESUME_GUEST
}

/** Run VMPL inside KVM: the handler swaps the VMSA and what goes with it in the one VMCB, and re-enters. */
const runVmpl = (vcpu: Vcpu, thread: HostThread, vmpl: number): number => {
  if (vmpl >= NUM_VMPLS) return ERRNO.EINVAL
  const slot = vcpu.slot(vmpl)!
  if (slot === vcpu.current) return HANDLED.RESUME_GUEST
  if (!initProtectedGuestState(vcpu, slot, thread) && slot.vmsaPfn < 0) return ERRNO.EINVAL
  // A creation that waits for this vCPU goes ahead: it is carried out before the next VMRUN.
  if ((vcpu.requests & REQUEST.UPDATE_PROTECTED_GUEST_STATE) === 0) vcpu.target = slot
  loadSlot(vcpu, slot, thread)
  thread.note("vmsa-swap", vmpl)
  return HANDLED.RESUME_GUEST
}

const kernel: VmplOperations = { apCreate, runVmpl, wakeLevel: wakesNobody }

const neverInUserSpace = (): never => {
  assert(false, "KVM serves AP creation and run VMPL itself")
}

const operations: VmmOperations = {
  kernel,
  createGuest: (vmm, thread, vcpus) => createBootVm(vmm, thread, vcpus, ALL_VMPLS),
  runVmpl: neverInUserSpace,
  apCreate: neverInUserSpace
}

/**
 * One VM object; each vCPU holds four VMSAs, GHCBs and tracking registers and swaps them in its one VMCB. User space
 * knows nothing of levels. After the series "KVM: SEV-SNP support for running an SVSM" (Lendacky, 2024).
 */
export const multiVmplVcpu: Strategy = {
  key: "multi-vmpl-vcpu",
  variant: null,
  summary: "one VM, a vCPU holds all VMPLs, KVM switches",
  operations
}
