import {
  type ApCreateRequest,
  ERRNO,
  HANDLED,
  initProtectedGuestState,
  loadSlot,
  REQUEST,
  type Vcpu,
  type VmplOperations,
  wakesNobody
} from "@vmpl-lab/hypervisor"
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import type { HostThread } from "@vmpl-lab/sim"
import { createInKernel } from "./ApCreation.ts"
import { createBootVm, neverInUserSpace } from "./BootVm.ts"
import type { Strategy } from "./Strategy.ts"
import { INJECTION_MODE } from "./StrategyDesign.ts"

/** AP creation inside KVM: the level's slot of the target vCPU. */
const apCreate = (vcpu: Vcpu, thread: HostThread, request: ApCreateRequest): number => {
  if (request.vmpl >= NUM_VMPLS) return ERRNO.EINVAL
  const target = vcpu.vm.vcpus.get(request.apicId)
  if (target === undefined) return ERRNO.EINVAL
  const slot = target.slot(request.vmpl)!
  return createInKernel(target, slot, thread, request, () => {
    target.target = slot
  })
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

const kernel: VmplOperations = {
  apCreate,
  runVmpl,
  runVmplReason: 0,
  runVmplMsr: "response",
  wakeLevel: wakesNobody
}

/**
 * One VM object; each vCPU holds four VMSAs, GHCBs and tracking registers and swaps them in its one VMCB. User space
 * knows nothing of levels. After the series "KVM: SEV-SNP support for running an SVSM" (Lendacky, 2024).
 */
export const multiVmplVcpu: Strategy = {
  key: "multi-vmpl-vcpu",
  variant: null,
  summary: "one VM, a vCPU holds all VMPLs, KVM switches",
  design: {
    status: "published",
    source: "S1: KVM: SEV-SNP support for running an SVSM (Lendacky, 2024)",
    switchedIn: "KVM's exit handler",
    perLevel: "VMSA, GHCB and its registration, GHCB MSR, switch save area",
    shared: "vCPU, VMCB, local APIC, event queue, nested page table",
    saved:
      "int_state, exit_int_info, its error code, GHCB MSR in the VMCB; CR0, CR4, CR8, EFER as KVM knows them; CR2 is the VMSA's",
    missingOnCreate: "the level's slot is always there",
    features: INJECTION_MODE,
    wakes: "nobody: whoever runs takes it, from the one local APIC",
    tlb: "the VMCB stays: none; all its groups are dirty",
    unconfirmed: ["whether hardware tags TLB entries by VMPL, without which no flush would be too few"]
  },
  operations: {
    kernel,
    createGuest: createBootVm({ vmpls: [0, 1, 2, 3], descriptor: -1, threadPerLevel: false }),
    serve: neverInUserSpace
  }
}
