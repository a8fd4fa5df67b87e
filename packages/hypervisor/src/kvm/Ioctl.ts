import { COUNTER, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"

/** The system call of one ioctl other than KVM_RUN, in and out of the kernel. */
export const ioctl = (thread: HostThread): void => {
  thread.charge(PRIMITIVE.ioctl)
  thread.count(COUNTER.IOCTLS)
}
