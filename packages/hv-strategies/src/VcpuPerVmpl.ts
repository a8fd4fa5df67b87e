import type { Strategy } from "./Strategy.ts"
import { INJECTION_MODE, OTHER_VMCB, type StrategyDesign } from "./StrategyDesign.ts"
import { type CreateVcpuAt, userSpaceSwitch } from "./UserSpaceSwitch.ts"

/** Where the VMPL stands in a vCPU id: above the APIC ID, as the VSM series put the VTL. */
export const VMPL_SHIFT = 9

const createVcpuAt: CreateVcpuAt = (vmm, { apicId }, vmpl, thread) =>
  vmm.owner.createVcpu(thread, (vmpl << VMPL_SHIFT) | apicId, apicId, [vmpl])

const DESIGN: Omit<StrategyDesign, "switchedIn" | "saved"> = {
  status: "derived",
  source: "a vCPU per VTL: KVM: x86: hyperv: Introduce VSM support (Saenz, 2023)",
  perLevel: "vCPU and its descriptor, VMCB, local APIC, event queue, kvm_run",
  shared: "VM, memory slots, nested page table",
  missingOnCreate: "the VMM creates the vCPU",
  features: INJECTION_MODE,
  wakes: "nobody: the event waits until its level runs",
  tlb: OTHER_VMCB,
  unconfirmed: ["the exits for run VMPL and AP creation, which no series has"]
}

/** One VM object; each guest vCPU has a kvm_vcpu, a VMCB and a thread per VMPL, and the VMM decides which one runs. */
export const vcpuPerVmplThreads: Strategy = {
  key: "vcpu-per-vmpl",
  variant: "vmm-threads",
  summary: "one VM, a vCPU and a thread per VMPL, the VMM switches",
  design: { ...DESIGN, switchedIn: "the VMM, from thread to thread", saved: "nothing: the thread changes" },
  operations: userSpaceSwitch({ createVcpuAt, threadPerLevel: true, wakesLevels: false })
}

/** The same objects, but one thread of the VMM runs all of a guest vCPU, one KVM_RUN after the other. */
export const vcpuPerVmplOneThread: Strategy = {
  key: "vcpu-per-vmpl",
  variant: "vmm-one-thread",
  summary: "one VM, a vCPU per VMPL, one thread of the VMM runs them in turn",
  design: { ...DESIGN, switchedIn: "the VMM, on one thread", saved: "vcpu_put and vcpu_load within KVM_RUN" },
  operations: userSpaceSwitch({ createVcpuAt, threadPerLevel: false, wakesLevels: false })
}
