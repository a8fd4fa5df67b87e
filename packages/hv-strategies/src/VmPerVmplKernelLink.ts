import {
  checkApCreation,
  ERRNO,
  EXIT_REASON,
  HANDLED,
  kick,
  kickFromInterrupt,
  type Vcpu,
  type Vmm,
  type VmmVcpu,
  type VmplOperations,
  vcpuIoctl
} from "@vmpl-lab/hypervisor"
import { AP_CREATION, EXIT } from "@vmpl-lab/sev-es"
import { createBootVm } from "./BootVm.ts"
import { type KernelSwitch, kernelSwitch } from "./KernelSwitch.ts"
import type { Strategy } from "./Strategy.ts"
import { VM_PER_VMPL, vcpuInVmOfLevel } from "./VmPerVmpl.ts"

/** KVM has no link to a level's vCPU: the VMM creates the VM object and the vCPU, links them, and KVM looks again. */
const missing: KernelSwitch["missing"] = (vcpu, parent, _thread, request) => {
  if (checkApCreation(vcpu.vm, request) < 0 || request.request === AP_CREATION.DESTROY) return ERRNO.EINVAL
  const { run } = vcpu
  run.exitReason = EXIT_REASON.LINK_VCPU
  run.vmpl = request.vmpl
  run.apicId = parent.apicId
  return HANDLED.EXIT_TO_USER
}

/** The token "may run": a second thread in KVM_RUN of any linked object would run one guest vCPU at two levels. */
const enter = ({ common }: Vcpu): Vcpu | number => (common.inRun ? ERRNO.EBUSY : common.current)

/** The kick goes through the link to the object that runs; a more privileged level takes over. */
const wakeLevel: VmplOperations["wakeLevel"] = (waiting, vmpl, by) => {
  const { common } = waiting
  const { current } = common
  if (vmpl >= current.current.vmpl || common.target !== current) return
  waiting.setRunnable()
  common.target = waiting
  if (by === null) kickFromInterrupt(current, waiting.vm.kvm.host.now, EXIT.INTR)
  else kick(current, by, null)
}

/** The VMM's answer to LINK_VCPU: the level's objects, and the ioctl that ties the vCPU to the others by APIC ID. */
const linkVcpu = (vmm: Vmm, { vcpu, thread }: VmmVcpu): number => {
  const { apicId, vmpl } = vcpu.run
  const group = vmm.groups[apicId]!
  const created = vcpuInVmOfLevel(vmm, group, vmpl, thread)
  if (typeof created === "number") return created
  vcpuIoctl(thread)
  created.joinDescriptor(group.active!.vcpu)
  return 0
}

/**
 * A VM object per VMPL with the same ASID and guest memory; KVM knows which vCPUs are one guest vCPU, and the thread that
 * runs one goes on with the other. No published series does this: the steps are derived.
 */
export const vmPerVmplKernelLink: Strategy = {
  key: "vm-per-vmpl",
  variant: "kernel-link",
  summary: "a VM per VMPL, vCPUs linked by APIC ID, KVM_RUN's loop switches",
  design: {
    ...VM_PER_VMPL,
    switchedIn: "KVM_RUN's loop, over a link between VM objects",
    saved: "vcpu_put and vcpu_load",
    missingOnCreate: "exit to the VMM, which creates VM and vCPU and links them; the event is served anew",
    wakes: "a kick through the link, if the level that runs is less privileged",
    unconfirmed: [
      ...VM_PER_VMPL.unconfirmed,
      "AP creation and run VMPL themselves as in the S1 series",
      "a second thread in KVM_RUN of a linked vCPU gets EBUSY",
      "linked vCPUs have one kvm_run"
    ]
  },
  operations: {
    kernel: kernelSwitch({ missing, enter, wakeLevel, runningLevelUpdates: false }),
    createGuest: createBootVm({ vmpls: [0], descriptor: -1, threadPerLevel: false }),
    serve: linkVcpu
  }
}
