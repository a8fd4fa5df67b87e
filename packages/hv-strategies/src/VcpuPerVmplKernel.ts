import {
  checkApCreation,
  ERRNO,
  type Vcpu,
  type VmmOperations,
  type VmplOperations,
  wakesNobody
} from "@vmpl-lab/hypervisor"
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import { AP_CREATION } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { createBootVm, neverInUserSpace } from "./BootVm.ts"
import { type KernelSwitch, kernelSwitch } from "./KernelSwitch.ts"
import type { Strategy } from "./Strategy.ts"
import { INJECTION_MODE, OTHER_VMCB } from "./StrategyDesign.ts"
import { VMPL_SHIFT } from "./VcpuPerVmpl.ts"

const allocateLevel = (parent: Vcpu, thread: HostThread, vmpl: number): Vcpu | number => {
  const { vm, id, apicId } = parent
  const vcpu = vm.allocateVcpu(thread, (vmpl << VMPL_SHIFT) | apicId, id, apicId, [vmpl])
  if (typeof vcpu !== "number") vcpu.joinDescriptor(parent)
  return vcpu
}

/**
 * A level's kvm_vcpu is allocated by the first AP creation for it. When the series allocates it is unconfirmed: the
 * option `levelVcpus` has it made with the vCPU instead.
 */
const missing: KernelSwitch["missing"] = (_vcpu, parent, thread, request) => {
  if (checkApCreation(parent.vm, request) < 0 || request.request === AP_CREATION.DESTROY) return ERRNO.EINVAL
  return allocateLevel(parent, thread, request.vmpl)
}

const createBoot = createBootVm({ vmpls: [0], descriptor: -1, threadPerLevel: false })

const createGuest: VmmOperations["createGuest"] = (vmm, thread, vcpus) => {
  createBoot(vmm, thread, vcpus)
  if (vmm.kvm.options.levelVcpus === "first-create") return
  for (const { active } of vmm.groups.slice(0, vcpus)) {
    for (let vmpl = 1; vmpl < NUM_VMPLS; vmpl++) allocateLevel(active!.vcpu, thread, vmpl)
  }
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
      "when the level's vCPU is allocated: by the first AP creation for it (option levelVcpus)",
      "whose request carries out an AP creation: the level's own (option updateRequest)",
      "that run VMPL makes a level run that has halted"
    ]
  },
  operations: {
    kernel: { ...kernelSwitch({ missing, enter, wakeLevel: wakesNobody, runningLevelUpdates: true }), outsideVmpl },
    createGuest,
    serve: neverInUserSpace
  }
}
