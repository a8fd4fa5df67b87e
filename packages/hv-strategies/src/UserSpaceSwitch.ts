import {
  type ApCreateRequest,
  checkApCreation,
  ERRNO,
  EXIT_REASON,
  HANDLED,
  handOver,
  ioctl,
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
  wakesNobody
} from "@vmpl-lab/hypervisor"
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import { AP_CREATION } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { createBootVm } from "./BootVm.ts"

/**
 * What a strategy with a vCPU object per VMPL must say: how the object of a level comes into being when the guest first
 * asks for that level.
 */
export type CreateVcpuAt = (vmm: Vmm, group: VcpuGroup, vmpl: number, thread: HostThread) => VmmVcpu | number

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
  wakeLevel: wakesNobody
}

/** The ioctl that gives a vCPU its VMSA; KVM makes the same checks as when it decodes the request itself. */
const setVmsa = (target: Vcpu, thread: HostThread, request: ApCreateRequest): number => {
  ioctl(thread)
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
  ioctl(thread)
  target.interrupted = false
  if (vcpu.current.waitingForReset) requestUpdate(vcpu, null)
  else vcpu.setRunnable()
}

/** Run VMPL in the VMM: this thread's vCPU pauses, the thread of the level asked for resumes. */
const runVmpl = (_vmm: Vmm, self: VmmVcpu, vmpl: number): number => {
  const target = self.group.vcpus[vmpl]
  if (target === null || target === undefined) return ERRNO.EINVAL
  if (target.vcpu.current.vmsaGpa < 0) return ERRNO.EINVAL
  makeRunnable(target, self.thread)
  handOver(_vmm, self, target)
  return 0
}

/**
 * AP creation in the VMM: the level's vCPU object is created if there is none, gets its VMSA, and for CREATE becomes
 * the one of its guest vCPU that runs: whichever ran before is made to leave KVM_RUN and hands over.
 */
const apCreateWith =
  (createVcpuAt: CreateVcpuAt) =>
  (vmm: Vmm, self: VmmVcpu, request: ApCreateRequest): number => {
    const { thread } = self
    const group = vmm.groups[request.apicId]
    if (group === undefined) return ERRNO.EINVAL
    const known = group.vcpus[request.vmpl] ?? null
    // There is nothing to destroy at a level that never had a vCPU.
    if (known === null && request.request === AP_CREATION.DESTROY) return ERRNO.EINVAL
    const target = known ?? createVcpuAt(vmm, group, request.vmpl, thread)
    if (typeof target === "number") return target
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

/** The VMM-driven way to run VMPLs, one thread per vCPU object. */
export const userSpaceSwitch = (createVcpuAt: CreateVcpuAt): VmmOperations => ({
  kernel,
  createGuest: (vmm, thread, vcpus) => createBootVm(vmm, thread, vcpus, [0]),
  runVmpl,
  apCreate: apCreateWith(createVcpuAt)
})
