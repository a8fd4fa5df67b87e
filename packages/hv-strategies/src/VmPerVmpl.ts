import type { Vm, Vmm } from "@vmpl-lab/hypervisor"
import type { HostThread } from "@vmpl-lab/sim"
import type { Strategy } from "./Strategy.ts"
import { INJECTION_MODE, OTHER_VMCB, type StrategyDesign } from "./StrategyDesign.ts"
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

/** What all three variants have in common. */
export const VM_PER_VMPL: Omit<StrategyDesign, "switchedIn" | "saved" | "missingOnCreate" | "wakes"> = {
  status: "derived",
  source: "the discussion of VSM (Christopherson, 2023), guest_memfd links (Tng, 2023; Afranji, 2025)",
  perLevel: "VM, memory slots, attributes, nested page table, vCPU, VMCB, local APIC, event queue",
  shared: "ASID, RMP, guest_memfd pages",
  features: `${INJECTION_MODE}; each VM object keeps them`,
  tlb: OTHER_VMCB,
  unconfirmed: ["every step: no published series does this for SNP"]
}

const IN_VMM = {
  missingOnCreate: "the VMM creates VM and vCPU",
  wakes: "a signal of the VMM to the thread that runs a less privileged level"
}

/**
 * A VM object per VMPL with the same ASID and guest memory; the vCPUs of one guest vCPU have the same id in each, and
 * the VMM decides which one runs. No published series does this for SNP: the steps are derived.
 */
export const vmPerVmplThreads: Strategy = {
  key: "vm-per-vmpl",
  variant: "vmm-threads",
  summary: "a VM per VMPL, a vCPU and a thread in each, the VMM switches",
  design: {
    ...VM_PER_VMPL,
    ...IN_VMM,
    switchedIn: "the VMM, from thread to thread",
    saved: "nothing: the thread changes"
  },
  operations: userSpaceSwitch({ createVcpuAt: vcpuInVmOfLevel, threadPerLevel: true, wakesLevels: true })
}

/** The same objects, but one thread of the VMM runs all of a guest vCPU, one KVM_RUN after the other. */
export const vmPerVmplOneThread: Strategy = {
  key: "vm-per-vmpl",
  variant: "vmm-one-thread",
  summary: "a VM per VMPL with a vCPU in each, one thread of the VMM runs them in turn",
  design: {
    ...VM_PER_VMPL,
    ...IN_VMM,
    switchedIn: "the VMM, on one thread",
    saved: "vcpu_put and vcpu_load within KVM_RUN"
  },
  operations: userSpaceSwitch({ createVcpuAt: vcpuInVmOfLevel, threadPerLevel: false, wakesLevels: true })
}
