import { KVM } from "../kvm/Abi.ts"
import { must } from "../LiveFailed.ts"
import { collect, type Samples, type TaskContext } from "./Task.ts"

/** Two readings of the clock one after the other: what every sample contains. */
export const clock = (context: TaskContext): Samples => {
  const { os } = context
  return collect(context, () => {
    const begin = os.now()
    return os.now() - begin
  })
}

/** A call of the C library that does nothing: the binding's share of every system call. */
export const binding = (context: TaskContext): Samples => {
  const { os } = context
  return collect(context, () => {
    const begin = os.now()
    os.nothing(0, 0, 0)
    return os.now() - begin
  })
}

/** KVM_GET_API_VERSION: into the kernel, to KVM's file operations, and back. */
export const nullIoctl = (context: TaskContext, { fd }: { readonly fd: number }): Samples => {
  const { os } = context
  return collect(context, () => {
    const begin = os.now()
    const version = os.ioctl(fd, KVM.GET_API_VERSION, 0)
    const ns = os.now() - begin
    must("KVM_GET_API_VERSION", version)
    return ns
  })
}
