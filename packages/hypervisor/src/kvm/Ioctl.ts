import { COUNTER, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { Kvm } from "./Kvm.ts"

/** The system call of one ioctl other than KVM_RUN, in and out of the kernel. */
export const ioctl = (thread: HostThread): void => {
  thread.charge(PRIMITIVE.ioctl)
  thread.count(COUNTER.IOCTLS)
}

/**
 * An ioctl of a vCPU other than KVM_RUN: KVM loads the vCPU on the core of the caller before it looks at the request, and
 * puts it before it returns.
 * @spec Linux kvm_arch_vcpu_ioctl, kvm_arch_vcpu_ioctl_set_mpstate
 */
export const vcpuIoctl = (thread: HostThread): void => {
  ioctl(thread)
  thread.charge(PRIMITIVE.vcpu_load)
  thread.charge(PRIMITIVE.vcpu_put)
}

/**
 * synchronize_srcu on kvm->srcu, which the creation of a vCPU and of a memory slot both come to: at once as a rule, but
 * when a grace period is under way the caller sleeps until it is over. Whether it is, is drawn.
 */
export const synchronizeSrcu = (kvm: Kvm, thread: HostThread): void => {
  if (kvm.host.costs.occurs(PRIMITIVE.srcu_grace_period)) thread.charge(PRIMITIVE.srcu_grace_period)
}
