import {
  type ApCreateRequest,
  ERRNO,
  HANDLED,
  initProtectedGuestState,
  loadSlot,
  type Vcpu,
  type VmplOperations
} from "@vmpl-lab/hypervisor"
import { NUM_VMPLS } from "@vmpl-lab/rmp"
import type { HostThread } from "@vmpl-lab/sim"
import { createInKernel } from "./ApCreation.ts"

/** What strategies with a vCPU object per VMPL that KVM_RUN's own loop switches differ in. */
export interface KernelSwitch {
  /**
   * AP creation at a level that has no vCPU object yet.
   * @returns the object, HANDLED.EXIT_TO_USER with vcpu.run filled in, or an errno
   */
  readonly missing: (vcpu: Vcpu, parent: Vcpu, thread: HostThread, request: ApCreateRequest) => Vcpu | number
  readonly enter: NonNullable<VmplOperations["enter"]>
  readonly wakeLevel: VmplOperations["wakeLevel"]
  /** The running level's request carries out an AP creation, where the option says so: only a common parent allows it. */
  readonly runningLevelUpdates: boolean
}

const isByRunningLevel = ({ runningLevelUpdates }: KernelSwitch, { vm }: Vcpu): boolean =>
  runningLevelUpdates && vm.kvm.options.updateRequest === "running-level"

/** The level runs next, unless a switch to another one waits already: that one goes ahead. */
const retarget = ({ common }: Vcpu, next: Vcpu): void => {
  if (common.target === common.current) common.target = next
}

/** The VMSA is in the VMCB, and a level that halted goes on where it was. @returns 0, or EINVAL without a VMSA */
export const makeReady = (target: Vcpu, thread: HostThread): number => {
  const slot = target.current
  if (initProtectedGuestState(target, slot, thread)) loadSlot(target, slot, thread)
  else if (slot.vmsaPfn < 0) return ERRNO.EINVAL
  target.setRunnable()
  return 0
}

/** The kernel half: requests name the level's object as the target, and KVM_RUN's loop goes on with it. */
export const kernelSwitch = (how: KernelSwitch): VmplOperations => ({
  apCreate: (vcpu, thread, request) => {
    if (request.vmpl >= NUM_VMPLS) return ERRNO.EINVAL
    const parent = vcpu.vm.encryptionOwner.vcpus.get(request.apicId)
    if (parent === undefined || parent.current.vmpl !== 0) return ERRNO.EINVAL
    const target = parent.common.vcpuOf(request.vmpl) ?? how.missing(vcpu, parent, thread, request)
    if (typeof target === "number") return target
    const holder = isByRunningLevel(how, target) ? target.common.current : target
    // A creation overrides a switch that waits: its level is the one that runs next.
    const retarget = (): void => {
      target.common.target = target
    }
    return createInKernel(target, target.current, thread, request, retarget, holder)
  },
  runVmpl: (vcpu, thread, vmpl) => {
    if (vmpl >= NUM_VMPLS) return ERRNO.EINVAL
    if (vmpl === vcpu.current.vmpl) return HANDLED.RESUME_GUEST
    const target = vcpu.common.vcpuOf(vmpl)
    if (target === null || makeReady(target, thread) < 0) return ERRNO.EINVAL
    retarget(vcpu, target)
    return HANDLED.RESUME_GUEST
  },
  runVmplReason: 0,
  runVmplMsr: "response",
  wakeLevel: how.wakeLevel,
  enter: how.enter,
  updated: (vcpu) => (isByRunningLevel(how, vcpu) ? vcpu.common.target : vcpu),
  beforeEntry: ({ common }) => (common.target === common.current ? HANDLED.RESUME_GUEST : HANDLED.SWITCH_VCPU),
  schedule: ({ common }) => common.target
})
