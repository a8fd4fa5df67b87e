import type { Strategy } from "./Strategy.ts"
import type { CreateVcpuAt } from "./UserSpaceSwitch.ts"
import { userSpaceSwitch } from "./UserSpaceSwitch.ts"

/** Where the VMPL stands in a vCPU id: above the APIC ID, as the VSM series put the VTL. */
const VMPL_SHIFT = 9

const createVcpuAt: CreateVcpuAt = (vmm, group, vmpl, thread) => {
  const id = (vmpl << VMPL_SHIFT) | group.apicId
  const vcpu = vmm.owner.createVcpu(thread, id, group.apicId, [vmpl])
  return typeof vcpu === "number" ? vcpu : vmm.spawnVcpu(group, vcpu, vmpl, thread)
}

/** One VM object; each guest vCPU has a kvm_vcpu, a VMCB and a thread per VMPL, and the VMM decides which one runs. */
export const vcpuPerVmpl: Strategy = {
  key: "vcpu-per-vmpl",
  variant: "vmm-threads",
  summary: "one VM, a vCPU and a thread per VMPL, the VMM switches",
  operations: userSpaceSwitch(createVcpuAt)
}
