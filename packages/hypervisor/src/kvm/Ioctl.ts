import { COUNTER, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { Kvm } from "./Kvm.ts"

/** The system call of one ioctl other than KVM_RUN, in and out of the kernel. */
export const ioctl = (thread: HostThread): void => {
  thread.charge(PRIMITIVE.ioctl)
  thread.count(COUNTER.IOCTLS)
}

/**
 * synchronize_srcu on kvm->srcu, which the creation of a vCPU and of a memory slot both come to: at once as a rule, but
 * when a grace period is under way the caller sleeps until it is over. Whether it is, is drawn.
 */
export const synchronizeSrcu = (kvm: Kvm, thread: HostThread): void => {
  if (kvm.host.costs.occurs(PRIMITIVE.srcu_grace_period)) thread.charge(PRIMITIVE.srcu_grace_period)
}
