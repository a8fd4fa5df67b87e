import { COUNTER, type HostProgram, type HostThread, PRIMITIVE, WAIT } from "@vmpl-lab/sim"
import { kvmRun } from "../kvm/RunLoop.ts"
import { EXIT_REASON } from "../kvm/Vcpu.ts"
import { changePageState } from "./PageState.ts"
import type { VcpuGroup, VmmVcpu } from "./VcpuGroup.ts"
import type { Vmm } from "./Vmm.ts"

/**
 * A vCPU thread: sleeps while the active vCPU of its group is another thread's, otherwise calls KVM_RUN of that vCPU and
 * serves what it comes back with.
 */
export function* vcpuThread(vmm: Vmm, group: VcpuGroup, thread: HostThread): HostProgram {
  const { host } = vmm.kvm
  for (;;) {
    const self = group.active
    if (self === null || self.thread !== thread) {
      thread.span = null
      if (group.handedOverOnCore) group.handedOverOnCore = false
      else thread.charge(vmm.handOff.wait)
      yield WAIT.BLOCK
      continue
    }
    const { vcpu } = self
    // A signal that came while this thread was in user space has done its work by the next line.
    vcpu.signalPending = false
    if (group.next !== null) {
      const { next } = group
      group.next = null
      if (next !== self) {
        handOver(vmm, self, next)
        continue
      }
    }
    thread.charge(PRIMITIVE.userspace_entry)
    thread.count(COUNTER.IOCTLS)
    const ret = yield* kvmRun(vcpu, thread)
    thread.charge(PRIMITIVE.userspace_exit)
    thread.count(COUNTER.USER_EXITS)
    thread.charge(PRIMITIVE.vmm_dispatch)
    thread.note("KVM_EXIT", vcpu.run.exitReason)
    if (host.ahead(thread)) yield WAIT.SYNC
    if (!serve(vmm, self, ret)) return
  }
}

/** Serves one return of KVM_RUN. @returns false when this vCPU cannot go on */
const serve = (vmm: Vmm, self: VmmVcpu, ret: number): boolean => {
  const { vcpu, thread } = self
  const { run } = vcpu
  switch (run.exitReason) {
    case EXIT_REASON.INTR:
      self.interrupted = true
      return true
    case EXIT_REASON.RUN_VMPL:
    case EXIT_REASON.AP_CREATE:
    case EXIT_REASON.LINK_VCPU:
    case EXIT_REASON.PLANE_EVENT:
      run.ret = vmm.operations.serve(vmm, self)
      return true
    case EXIT_REASON.IO:
      vmm.kvm.running = thread
      vmm.devices.port(run.address, run.size, run.isWrite, run.data)
      vmm.kvm.running = null
      return true
    case EXIT_REASON.MMIO:
      vmm.kvm.running = thread
      vmm.devices.mmio(run.address, run.isWrite, run.data)
      vmm.kvm.running = null
      return true
    case EXIT_REASON.MAP_GPA_RANGE:
      run.ret = changePageState(vmm, thread, run.gfn, run.pages, run.toPrivate)
      return true
    default:
      vmm.fail(`${ret < 0 ? `KVM_RUN fails with errno ${-ret}` : run.exitReason}: ${run.detail}`)
      return false
  }
}

/**
 * Lets another vCPU of the group run: the critical path, if this thread carries one, moves to its thread. A thread that
 * runs both goes on with the other descriptor.
 */
export const handOver = (vmm: Vmm, from: VmmVcpu, to: VmmVcpu): void => {
  from.group.active = to
  if (to.thread === from.thread) return
  vmm.kvm.host.wake(to.thread, from.thread, from.thread.span)
  // The hand-off is priced from call to return on the other side. On another core the caller's own ends of it, signal
  // and wait, are beside the path; on the same core the other side runs only after them, so the price contains them.
  from.group.handedOverOnCore = to.thread.core === from.thread.core
  if (!from.group.handedOverOnCore) from.thread.charge(vmm.handOff.signal)
}
