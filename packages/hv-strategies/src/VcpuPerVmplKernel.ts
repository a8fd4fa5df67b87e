import { checkApCreation, ERRNO, type Vcpu, type VmplOperations, wakesNobody } from "@vmpl-lab/hypervisor"
import { AP_CREATION } from "@vmpl-lab/sev-es"
import { createBootVm, neverInUserSpace } from "./BootVm.ts"
import { type KernelSwitch, kernelSwitch } from "./KernelSwitch.ts"
import type { Strategy } from "./Strategy.ts"
import { INJECTION_MODE, OTHER_VMCB } from "./StrategyDesign.ts"
import { VMPL_SHIFT } from "./VcpuPerVmpl.ts"

/**
 * A level's kvm_vcpu is allocated by the first AP creation for it. When the series allocates it is unconfirmed; this
 * choice makes the first use of a level create its objects, as with every other strategy.
 */
const missing: KernelSwitch["missing"] = (_vcpu, parent, thread, request) => {
  const { vm, apicId } = parent
  if (checkApCreation(vm, request) < 0) return ERRNO.EINVAL
  if (request.request === AP_CREATION.DESTROY) return ERRNO.EINVAL
  const key = (request.vmpl << VMPL_SHIFT) | apicId
  const vcpu = vm.allocateVcpu(thread, key, parent.id, apicId, [request.vmpl])
  if (typeof vcpu !== "number") vcpu.joinDescriptor(parent)
  return vcpu
}

/** default_irq_vmpl: an MSI or an I/O APIC's interrupt is for the highest level created so far, whoever it is meant for. */
const outsideVmpl: VmplOperations["outsideVmpl"] = ({ vmsaFeatures }) =>
  Math.max(
    0,
    vmsaFeatures.findLastIndex((features) => features >= 0)
  )

/** The parent's descriptor runs whichever level is current. */
const enter = ({ common }: Vcpu): Vcpu => common.current

/**
 * One VM object; KVM keeps a kvm_vcpu per VMPL under the one that user space created, and KVM_RUN's outer loop goes from
 * one to the other. After the series "Extend SEV-SNP SVSM support with a kvm_vcpu per VMPL" (Hopkins, 2024).
 */
export const vcpuPerVmplKernel: Strategy = {
  key: "vcpu-per-vmpl",
  variant: "kernel",
  summary: "one VM, a vCPU per VMPL under one descriptor, KVM_RUN's loop switches",
  design: {
    status: "published",
    source: "S2: Extend SEV-SNP SVSM support with a kvm_vcpu per VMPL (Hopkins, 2024)",
    switchedIn: "KVM_RUN's loop",
    perLevel: "kvm_vcpu, VMCB, local APIC, event queue",
    shared: "VM, descriptor, kvm_run, mutex, memory slots, nested page table",
    saved: "vcpu_put and vcpu_load",
    missingOnCreate: "KVM allocates the level's vCPU",
    features: INJECTION_MODE,
    wakes: "nobody: the event waits in its level's local APIC",
    tlb: OTHER_VMCB,
    unconfirmed: [
      "when the level's vCPU is allocated: here by the first AP creation for it",
      "whose request carries out an AP creation, the level's own (here) or the running level's",
      "that run VMPL makes a level run that has halted"
    ]
  },
  operations: {
    kernel: { ...kernelSwitch({ missing, enter, wakeLevel: wakesNobody }), outsideVmpl },
    createGuest: createBootVm({ vmpls: [0], descriptor: -1, threadPerLevel: false }),
    serve: neverInUserSpace
  }
}
