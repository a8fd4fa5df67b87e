import type { Vm, Vmm } from "@vmpl-lab/hypervisor"
import type { HostThread } from "@vmpl-lab/sim"
import type { Strategy } from "./Strategy.ts"
import type { CreateVcpuAt } from "./UserSpaceSwitch.ts"
import { userSpaceSwitch } from "./UserSpaceSwitch.ts"

/**
 * The VM object of a level, created on first use: the guest's memory slots over the linked guest_memfd, the launching
 * VM's encryption context, and the attribute of every page that the guest has made shared so far.
 */
const vmAt = (vmm: Vmm, vmpl: number, thread: HostThread): Vm => {
  const known = vmm.vms[vmpl]
  if (known !== null && known !== undefined) return known
  const vm = vmm.createVm(thread)
  vm.copyEncContextFrom(thread, vmm.owner)
  for (const gfn of vmm.sharedGfns) vm.setMemoryAttributes(thread, gfn, false)
  vmm.vms[vmpl] = vm
  return vm
}

const createVcpuAt: CreateVcpuAt = (vmm, group, vmpl, thread) => {
  const vcpu = vmAt(vmm, vmpl, thread).createVcpu(thread, group.apicId, group.apicId, [vmpl])
  return typeof vcpu === "number" ? vcpu : vmm.spawnVcpu(group, vcpu, vmpl, thread)
}

/**
 * A VM object per VMPL with the same ASID and guest memory; the vCPUs of one guest vCPU have the same id in each, and
 * the VMM decides which one runs. No published series does this for SNP: the steps are derived.
 */
export const vmPerVmpl: Strategy = {
  key: "vm-per-vmpl",
  variant: "vmm-threads",
  summary: "a VM per VMPL, a vCPU and a thread in each, the VMM switches",
  operations: userSpaceSwitch(createVcpuAt)
}
