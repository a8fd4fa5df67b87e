import { ERRNO, HANDLED, type KvmRun, PLANE_EVENT, type Vcpu } from "@vmpl-lab/hypervisor"
import { createBootVm } from "./BootVm.ts"
import { createVcpuOfPlane, kickPlanes, PLANES, planeEvent, planeOperations } from "./Planes.ts"
import type { Strategy } from "./Strategy.ts"

/** KVM_RUN on plane 0's descriptor runs the plane that user space has put into kvm_run. */
const enter = ({ common, run }: Vcpu): Vcpu | number => {
  const vcpu = common.vcpuOf(run.plane)
  if (vcpu === null) return ERRNO.EINVAL
  common.pendingPlanes &= ~(1 << run.plane)
  return vcpu
}

const lowest = (planes: number): number => 31 - Math.clz32(planes & -planes)

/** What user space must hear of before the plane goes on: an AP creation started another, or one that it asked about has an event. */
const beforeEntry = (vcpu: Vcpu): number => {
  const { common, run, current } = vcpu
  const { switchTo } = common
  common.switchTo = -1
  if (switchTo >= 0 && switchTo !== current.vmpl) return planeEvent(vcpu, PLANE_EVENT.SWITCH, switchTo)
  const wanted = common.pendingPlanes & run.reqExitPlanes
  if (wanted === 0) return HANDLED.RESUME_GUEST
  run.pendingEventPlanes = common.pendingPlanes
  return planeEvent(vcpu, PLANE_EVENT.INTERRUPT, lowest(wanted))
}

/** The plane that KVM_RUN runs next, and those whose events are to end it: all that are more privileged. */
const choose = (run: KvmRun, plane: number): number => {
  run.plane = plane
  run.reqExitPlanes = (1 << plane) - 1
  return 0
}

/**
 * KVM planes with the switch in user space: KVM tells of each with KVM_EXIT_PLANE_EVENT, and the VMM calls KVM_RUN of
 * plane 0 again with another plane. After the series "KVM: VM planes" (Bonzini, 2025) as ported to SNP for Linux 6.17.
 */
export const planesUserSpace: Strategy = {
  key: "planes",
  variant: "user-space",
  summary: "one VM with planes, a vCPU per plane, the VMM names the plane to run",
  design: {
    ...PLANES,
    source: "KVM: VM planes (Bonzini, 2025), as ported to SNP for Linux 6.17",
    switchedIn: "the VMM, which names the plane in kvm_run",
    saved: "vcpu_put and vcpu_load within KVM_RUN",
    wakes: "exit INTERRUPT to the VMM for planes in req_exit_planes: all that are more privileged",
    unconfirmed: [
      "the answers to a refused run VMPL, taken from the 2026 series",
      "that AP creation starts a plane by exit SWITCH",
      "that run VMPL of a plane without a VMSA puts the guest vCPU to sleep"
    ]
  },
  operations: {
    kernel: planeOperations({
      started: (target) => {
        target.common.switchTo = target.current.vmpl
      },
      switchTo: (vcpu, target) => planeEvent(vcpu, PLANE_EVENT.SWITCH, target.current.vmpl),
      enter,
      beforeEntry,
      wakeLevel: (waiting, vmpl, by) => {
        const { common } = waiting
        common.pendingPlanes |= 1 << vmpl
        if ((waiting.run.reqExitPlanes & (1 << vmpl)) !== 0) kickPlanes(waiting, by)
      }
    }),
    createGuest: createBootVm({ vmpls: [0], descriptor: -1, threadPerLevel: false }),
    serve: (vmm, self) => {
      const { run } = self.vcpu
      return run.cause === PLANE_EVENT.CREATE_VCPU ? createVcpuOfPlane(vmm, self) : choose(run, run.vmpl)
    }
  }
}
