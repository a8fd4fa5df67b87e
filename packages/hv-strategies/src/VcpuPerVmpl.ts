import type { Strategy } from "./Strategy.ts"
import { type CreateVcpuAt, userSpaceSwitch } from "./UserSpaceSwitch.ts"

/** Where the VMPL stands in a vCPU id: above the APIC ID, as the VSM series put the VTL. */
export const VMPL_SHIFT = 9

const createVcpuAt: CreateVcpuAt = (vmm, { apicId }, vmpl, thread) =>
  vmm.owner.createVcpu(thread, (vmpl << VMPL_SHIFT) | apicId, apicId, [vmpl])

/** One VM object; each guest vCPU has a kvm_vcpu, a VMCB and a thread per VMPL, and the VMM decides which one runs. */
export const vcpuPerVmplThreads: Strategy = {
  key: "vcpu-per-vmpl",
  variant: "vmm-threads",
  summary: "one VM, a vCPU and a thread per VMPL, the VMM switches",
  operations: userSpaceSwitch({ createVcpuAt, threadPerLevel: true, wakesLevels: false })
}

/** The same objects, but one thread of the VMM runs all of a guest vCPU, one KVM_RUN after the other. */
export const vcpuPerVmplOneThread: Strategy = {
  key: "vcpu-per-vmpl",
  variant: "vmm-one-thread",
  summary: "one VM, a vCPU per VMPL, one thread of the VMM runs them in turn",
  operations: userSpaceSwitch({ createVcpuAt, threadPerLevel: false, wakesLevels: false })
}
