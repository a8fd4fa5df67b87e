import { HANDLED, hasEvents, MP_STATE, REQUEST, type Vcpu, type VcpuCommon } from "@vmpl-lab/hypervisor"
import { createBootVm } from "./BootVm.ts"
import { createVcpuOfPlane, kickPlanes, PLANES, planeOperations } from "./Planes.ts"
import type { Strategy } from "./Strategy.ts"

const isIdle = (vcpu: Vcpu): boolean =>
  vcpu.mpState !== MP_STATE.RUNNABLE && (vcpu.requests & REQUEST.UPDATE_PROTECTED_GUEST_STATE) === 0 && !hasEvents(vcpu)

/**
 * The scheduler: the RUNNABLE plane with the lowest number; plane 0 if there is none. That a plane which has halted lets
 * a higher number run is this model's choice: the series as read does not say, and without it an AP whose SVSM waits in
 * HLT could not be started at the guest's level, unless CREATE stopped the SVSM's plane: the option `createdPlane`.
 */
const pick = (common: VcpuCommon): Vcpu => {
  const replaces = common.current.vm.kvm.options.createdPlane === "replaces"
  const runnable = common.vcpus.filter((vcpu, plane) => vcpu !== null && (common.runnablePlanes & (1 << plane)) !== 0)
  const lowest = (replaces ? undefined : runnable.find((vcpu) => !isIdle(vcpu!))) ?? runnable[0]
  if (lowest) return lowest
  common.runnablePlanes |= 1
  return common.vcpuOf(0)!
}

const planeBit = ({ current }: Vcpu): number => 1 << current.vmpl

/** An event that plane 0 could take makes it RUNNABLE: it runs before the plane that was about to be entered. */
const beforeEntry = (vcpu: Vcpu): number => {
  const { common } = vcpu
  const first = common.vcpuOf(0)!
  if (vcpu !== first && hasEvents(first)) common.runnablePlanes |= 1
  return pick(common) === vcpu ? HANDLED.RESUME_GUEST : HANDLED.SWITCH_VCPU
}

/**
 * KVM planes with the switch in KVM: one VM object, a vCPU object per plane, and KVM_RUN's loop runs the lowest RUNNABLE
 * one. After the series "KVM Planes + SEV-SNP Support" (Rödel, 2026).
 */
export const planesKernel: Strategy = {
  key: "planes",
  variant: "kernel",
  summary: "one VM with planes, a vCPU per plane, KVM schedules the lowest runnable",
  design: {
    ...PLANES,
    source: "KVM Planes + SEV-SNP Support (Rödel, 2026)",
    switchedIn: "KVM's plane scheduler, in KVM_RUN's loop",
    saved: "vcpu_put and vcpu_load",
    wakes: "an event that plane 0 can take preempts planes 1 to 3; these never preempt each other",
    unconfirmed: [
      "that a plane which halts lets one of a higher number run (option createdPlane)",
      "that CREATE makes its plane RUNNABLE beside the others (option createdPlane)",
      "that run VMPL of a plane without a VMSA puts the guest vCPU to sleep"
    ]
  },
  operations: {
    kernel: {
      ...planeOperations({
        started: (target) => {
          const { common, vm } = target
          const others = vm.kvm.options.createdPlane === "replaces" ? 0 : common.runnablePlanes
          common.runnablePlanes = others | planeBit(target)
        },
        switchTo: (vcpu, target) => {
          vcpu.common.runnablePlanes = (vcpu.common.runnablePlanes & ~planeBit(vcpu)) | planeBit(target)
          return HANDLED.RESUME_GUEST
        },
        enter: ({ common }) => pick(common),
        beforeEntry,
        wakeLevel: (waiting, _vmpl, by) => kickPlanes(waiting, by)
      }),
      schedule: ({ common }) => pick(common)
    },
    createGuest: createBootVm({ vmpls: [0], descriptor: -1, threadPerLevel: false }),
    serve: createVcpuOfPlane
  }
}
