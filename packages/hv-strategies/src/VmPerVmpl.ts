import type { Vm, Vmm } from "@vmpl-lab/hypervisor"
import type { HostThread } from "@vmpl-lab/sim"
import type { Strategy } from "./Strategy.ts"
import { type CreateVcpuAt, userSpaceSwitch } from "./UserSpaceSwitch.ts"

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

/** The vCPU of a level is matched by APIC ID: the same vCPU id in the level's VM object. */
export const vcpuInVmOfLevel: CreateVcpuAt = (vmm, { apicId }, vmpl, thread) =>
  vmAt(vmm, vmpl, thread).createVcpu(thread, apicId, apicId, [vmpl])

/**
 * A VM object per VMPL with the same ASID and guest memory; the vCPUs of one guest vCPU have the same id in each, and
 * the VMM decides which one runs. No published series does this for SNP: the steps are derived.
 */
export const vmPerVmplThreads: Strategy = {
  key: "vm-per-vmpl",
  variant: "vmm-threads",
  summary: "a VM per VMPL, a vCPU and a thread in each, the VMM switches",
  operations: userSpaceSwitch({ createVcpuAt: vcpuInVmOfLevel, threadPerLevel: true, wakesLevels: true })
}

/** The same objects, but one thread of the VMM runs all of a guest vCPU, one KVM_RUN after the other. */
export const vmPerVmplOneThread: Strategy = {
  key: "vm-per-vmpl",
  variant: "vmm-one-thread",
  summary: "a VM per VMPL with a vCPU in each, one thread of the VMM runs them in turn",
  operations: userSpaceSwitch({ createVcpuAt: vcpuInVmOfLevel, threadPerLevel: false, wakesLevels: true })
}
