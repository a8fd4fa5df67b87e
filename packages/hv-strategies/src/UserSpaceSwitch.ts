import {
  type ApCreateRequest,
  checkApCreation,
  ERRNO,
  EXIT_REASON,
  HANDLED,
  handOver,
  kick,
  noteVmsa,
  requestUpdate,
  signalVcpu,
  type Vcpu,
  type VcpuGroup,
  type Vmm,
  type VmmOperations,
  type VmmVcpu,
  type VmplOperations,
  vcpuIoctl
} from "@vmpl-lab/hypervisor"
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import { AP_CREATION } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { createBootVm } from "./BootVm.ts"

/** How the vCPU object of a level comes into being when the guest first asks for that level. */
export type CreateVcpuAt = (vmm: Vmm, group: VcpuGroup, vmpl: number, thread: HostThread) => Vcpu | number

/** What strategies with a vCPU object per VMPL that the VMM switches differ in. */
export interface UserSpaceSwitch {
  readonly createVcpuAt: CreateVcpuAt
  /** Each vCPU object has a thread of its own, or one thread runs all objects of a guest vCPU. */
  readonly threadPerLevel: boolean
  /** An event for a more privileged level interrupts the one that runs: a signal by the VMM. Otherwise it waits. */
  readonly wakesLevels: boolean
}

/** KVM's half: both requests go to user space, decoded. What no VMM could serve is refused here, without effect. */
const kernel: VmplOperations = {
  apCreate: (vcpu, _thread, request) => {
    if (request.vmpl >= NUM_VMPLS || checkApCreation(vcpu.vm, request) < 0) return ERRNO.EINVAL
    vcpu.run.exitReason = EXIT_REASON.AP_CREATE
    vcpu.run.apCreate = request
    return HANDLED.EXIT_TO_USER
  },
  runVmpl: (vcpu, _thread, vmpl) => {
    if (vmpl >= NUM_VMPLS) return ERRNO.EINVAL
    if (vmpl === vcpu.current.vmpl) return HANDLED.RESUME_GUEST
    vcpu.run.exitReason = EXIT_REASON.RUN_VMPL
    vcpu.run.vmpl = vmpl
    return HANDLED.EXIT_TO_USER
  },
  runVmplReason: 0,
  runVmplMsr: "response",
  wakeLevel: ({ onUnheardEvent }, vmpl, by) => onUnheardEvent?.(vmpl, by)
}

/** The ioctl that gives a vCPU its VMSA; KVM makes the same checks as when it decodes the request itself. */
const setVmsa = (target: Vcpu, thread: HostThread, request: ApCreateRequest): number => {
  vcpuIoctl(thread)
  const noted = noteVmsa(target, target.current, request)
  const path = noted === 0 && request.request === AP_CREATION.CREATE ? thread.span : null
  if (request.request !== AP_CREATION.CREATE_ON_INIT) requestUpdate(target, path)
  return noted
}

/**
 * KVM_SET_MP_STATE: a vCPU that waits for INIT takes up the VMSA it was given, one that was interrupted while halted
 * runs on.
 */
const makeRunnable = (target: VmmVcpu, thread: HostThread): void => {
  const { vcpu } = target
  if (!target.interrupted && !vcpu.current.waitingForReset) return
  vcpuIoctl(thread)
  target.interrupted = false
  if (vcpu.current.waitingForReset) requestUpdate(vcpu, null)
  else vcpu.setRunnable()
}

/** Run VMPL in the VMM: this vCPU pauses, the one of the level asked for resumes, on its thread. */
const runVmpl = (vmm: Vmm, self: VmmVcpu, vmpl: number): number => {
  const target = self.group.vcpus[vmpl]
  if (target === null || target === undefined) return ERRNO.EINVAL
  if (target.vcpu.current.vmsaGpa < 0) return ERRNO.EINVAL
  makeRunnable(target, self.thread)
  handOver(vmm, self, target)
  return 0
}

/** KVM tells of an event that no thread in KVM_RUN hears: the VMM signals the one that runs a less privileged level. */
const interruptFor =
  (target: VmmVcpu): Vcpu["onUnheardEvent"] =>
  (vmpl, by) => {
    const { group } = target
    if (group.active === null || group.active.vmpl <= vmpl) return
    group.next = target
    target.interrupted = true
    signalVcpu(group.active.vcpu, by, null)
  }

const addVcpu = (how: UserSpaceSwitch, vmm: Vmm, group: VcpuGroup, vmpl: number, by: HostThread): VmmVcpu | number => {
  const vcpu = how.createVcpuAt(vmm, group, vmpl, by)
  if (typeof vcpu === "number") return vcpu
  return how.threadPerLevel ? vmm.spawnVcpu(group, vcpu, vmpl, by, true) : vmm.adoptVcpu(group, vcpu, vmpl)
}

/**
 * AP creation in the VMM: the level's vCPU object is created if there is none, gets its VMSA, and for CREATE becomes
 * the one of its guest vCPU that runs: whichever ran before is made to leave KVM_RUN and hands over.
 */
const apCreate = (how: UserSpaceSwitch, vmm: Vmm, self: VmmVcpu, request: ApCreateRequest): number => {
  const { thread } = self
  const group = vmm.groups[request.apicId]
  if (group === undefined) return ERRNO.EINVAL
  const known = group.vcpus[request.vmpl] ?? null
  // There is nothing to destroy at a level that never had a vCPU.
  if (known === null && request.request === AP_CREATION.DESTROY) return ERRNO.EINVAL
  const target = known ?? addVcpu(how, vmm, group, request.vmpl, thread)
  if (typeof target === "number") return target
  if (how.wakesLevels) target.vcpu.onUnheardEvent = interruptFor(target)
  const set = setVmsa(target.vcpu, thread, request)
  if (request.request === AP_CREATION.CREATE_ON_INIT) return set
  const { active } = group
  const starts = set === 0 && request.request === AP_CREATION.CREATE
  if (active === target) kick(target.vcpu, thread, target.vcpu.updateSpan)
  else if (starts) {
    const path = target.vcpu.updateSpan
    if (active === null) {
      group.active = target
      vmm.kvm.host.wake(target.thread, thread, path)
    } else {
      group.next = target
      signalVcpu(active.vcpu, thread, path)
    }
  }
  return set
}

/** The VMM-driven way to run VMPLs. */
export const userSpaceSwitch = (how: UserSpaceSwitch): VmmOperations => ({
  kernel,
  createGuest: (vmm, thread, vcpus) => {
    createBootVm({ vmpls: [0], descriptor: 0, threadPerLevel: how.threadPerLevel })(vmm, thread, vcpus)
    if (!how.wakesLevels) return
    for (const { active } of vmm.groups) if (active !== null) active.vcpu.onUnheardEvent = interruptFor(active)
  },
  serve: (vmm, self) => {
    const { run } = self.vcpu
    return run.exitReason === EXIT_REASON.RUN_VMPL
      ? runVmpl(vmm, self, run.vmpl)
      : apCreate(how, vmm, self, run.apCreate!)
  }
})
