/** Linux error numbers that KVM's ioctls and handlers return, negated. */
export const ERRNO = { EINTR: -4, EFAULT: -14, EBUSY: -16, EEXIST: -17, EINVAL: -22, ENOTTY: -25 } as const

/**
 * What an exit handler tells the run loop: go on, go to user space, go on with another vCPU object of the guest vCPU, or
 * (negative) an errno of KVM_RUN.
 */
export const HANDLED = { RESUME_GUEST: 1, EXIT_TO_USER: 0, SWITCH_VCPU: 2 } as const
