import { EXIT, exitName, VECTOR, VMCB } from "@vmpl-lab/sev-es"
import { assert, type HostProgram, type HostThread, PRIMITIVE, WAIT } from "@vmpl-lab/sim"
import { type GuestMode, STILL_IN_GUEST, VMRUN_GP } from "@vmpl-lab/vmpl"
import { acceptApicEvents } from "./ApReset.ts"
import { blockVcpu, rescheduleVcpu } from "./Block.ts"
import { ERRNO, HANDLED } from "./Errno.ts"
import { syncScratch } from "./ghcb/ScratchArea.ts"
import type { InterruptMeter } from "./InterruptMeter.ts"
import { completeEvents, hasEvents, injectEvents, syncLapicToCr8, windowOpened } from "./Interrupts.ts"
import { handleNpf } from "./NpfHandler.ts"
import { EXIT_REASON, MP_STATE, REQUEST, type Vcpu } from "./Vcpu.ts"
import { CLEAN_AFTER_VMRUN } from "./Vm.ts"
import { handleVmgexit } from "./Vmgexit.ts"
import { closeGhcb } from "./VmgexitPage.ts"
import { updateProtectedGuestState } from "./VmsaUpdate.ts"
import { handleHalt, handleWriteTrap } from "./WriteTrap.ts"

/**
 * KVM_RUN of a descriptor. Where KVM itself switches VMPLs, this is the loop around them: it puts one vCPU object of the
 * guest vCPU and loads the next, without leaving the kernel.
 * @returns 0 with vcpu.run filled in, or an errno
 */
export const kvmRun = (descriptor: Vcpu, thread: HostThread): HostProgram<number> =>
  descriptor.vm.operations.enter === undefined ? runVcpu(descriptor, thread) : runObjects(descriptor, thread)

function* runObjects(descriptor: Vcpu, thread: HostThread): HostProgram<number> {
  const { common, vm } = descriptor
  const { operations } = vm
  const entered = operations.enter!(descriptor)
  if (typeof entered === "number") return entered
  assert(!common.inRun, "a second thread would wait for the vCPU's mutex, and no VMM here has one")
  common.inRun = true
  for (common.current = entered; ; ) {
    const { current } = common
    const ret = yield* runVcpu(current, thread)
    if (ret !== HANDLED.SWITCH_VCPU) {
      common.inRun = false
      return ret
    }
    const next = operations.schedule!(current)
    if (next.updateSpan !== null) adoptUpdate(next, thread)
    common.current = next
    // vcpu_put of the object that ran, vcpu_load of the next.
    thread.charge(PRIMITIVE.vcpu_put)
    thread.charge(PRIMITIVE.vcpu_load)
    thread.note("vcpu-switch", next.current.vmpl)
  }
}

/** The path of the creation behind a pending update goes on here. Its request is not seen before it was made. */
const adoptUpdate = ({ updateSpan }: Vcpu, thread: HostThread): void => {
  if (updateSpan === null || thread.span === updateSpan) return
  thread.time = Math.max(thread.time, updateSpan.begin + updateSpan.total())
  thread.adopt(updateSpan)
}

/**
 * vcpu_run: enters the guest again and again until something needs user space. In the order of vcpu_enter_guest:
 * requests, signals, block while not runnable, TLB decision, VMRUN, exit, handler.
 * @returns 0 with vcpu.run filled in, SWITCH_VCPU, or an errno
 */
function* runVcpu(vcpu: Vcpu, thread: HostThread): HostProgram<number> {
  const { kvm, operations } = vcpu.vm
  const { host } = kvm
  vcpu.thread = thread
  vcpu.run.exitReason = EXIT_REASON.INTERNAL_ERROR
  if (vcpu.complete !== null) {
    const complete = vcpu.complete
    vcpu.complete = null
    kvm.running = thread
    const completed = complete(vcpu, vcpu.run.ret)
    kvm.running = null
    if (completed !== HANDLED.RESUME_GUEST) return completed
  }
  for (;;) {
    if (host.ahead(thread)) yield WAIT.SYNC
    if (host.needResched(thread)) yield* rescheduleVcpu(thread)
    if ((vcpu.requests & REQUEST.UPDATE_PROTECTED_GUEST_STATE) !== 0) {
      vcpu.requests &= ~REQUEST.UPDATE_PROTECTED_GUEST_STATE
      adoptUpdate(vcpu, thread)
      vcpu.updateSpan = null
      updateProtectedGuestState(operations.updated?.(vcpu) ?? vcpu, thread)
    }
    if (vcpu.signalPending) {
      vcpu.signalPending = false
      vcpu.run.exitReason = EXIT_REASON.INTR
      thread.charge(PRIMITIVE.signal_delivery)
      return ERRNO.EINTR
    }
    acceptApicEvents(vcpu, thread)
    if (vcpu.mpState === MP_STATE.HALTED && hasEvents(vcpu)) vcpu.mpState = MP_STATE.RUNNABLE
    vcpu.requests &= ~REQUEST.EVENT
    if (operations.beforeEntry !== undefined) {
      const goesOn = operations.beforeEntry(vcpu)
      if (goesOn !== HANDLED.RESUME_GUEST) return goesOn
    }
    if (vcpu.mpState !== MP_STATE.RUNNABLE) {
      yield* blockVcpu(vcpu, thread)
      continue
    }
    injectEvents(vcpu, thread)
    syncLapicToCr8(vcpu)
    syncScratch(vcpu)
    closeGhcb(vcpu, thread)
    let code = enterGuest(vcpu, thread)
    while (code === STILL_IN_GUEST) {
      yield WAIT.SYNC
      code = stayInGuest(vcpu, thread)
    }
    thread.charge(PRIMITIVE.kvm_dispatch)
    if (host.ahead(thread)) yield WAIT.SYNC
    countExit(vcpu, thread, code)
    kvm.running = thread
    const handled = handleExit(vcpu, thread, code)
    kvm.running = null
    if (handled !== HANDLED.RESUME_GUEST) return handled
  }
}

/** VMRUN and the guest's first stretch. @returns the exit code, or STILL_IN_GUEST */
const enterGuest = (vcpu: Vcpu, thread: HostThread): number => {
  const { kvm } = vcpu.vm
  const { meter } = kvm
  const vmpl = vcpu.current.vmpl
  const awaited = meter.awaits(vcpu.apicId, vmpl)
  if (!awaited) thread.span = null
  const cpu = kvm.processor(thread)
  cpu.exitSpan = meter.exitSpan(vcpu.apicId)
  cpu.arrived = awaited ? () => meter.arrived(vcpu.apicId, vmpl, thread) : null
  if (kvm.interruptMeter !== null) observeInterrupts(vcpu, thread, cpu, kvm.interruptMeter)
  preSevRun(vcpu, thread)
  kvm.trace?.entry(thread, vcpu.id)
  const outcome = cpu.vmrun(vcpu.vmcb)
  assert(outcome !== VMRUN_GP, "KVM's own VMCB page is hypervisor-owned")
  if (outcome !== "entered") return outcome
  const stored = kvm.hardware.host.write32(vcpu.vmcb + VMCB.clean, CLEAN_AFTER_VMRUN)
  assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
  vcpu.processor = cpu
  vcpu.inGuest = true
  return runStretch(vcpu, thread, cpu)
}

/** The guest's next stretch, once others have caught up. @returns the exit code, or STILL_IN_GUEST */
const stayInGuest = (vcpu: Vcpu, thread: HostThread): number => {
  const cpu = vcpu.processor!
  // The scheduler's tick or its IPI: the guest is interrupted, and the run loop gives the core away.
  if (vcpu.vm.kvm.host.needResched(thread)) cpu.interrupt(thread.time, null)
  return runStretch(vcpu, thread, cpu)
}

const runStretch = (vcpu: Vcpu, thread: HostThread, cpu: GuestMode): number => {
  const code = cpu.run(vcpu.vm.kvm.host.horizon(thread))
  if (code === STILL_IN_GUEST) return code
  vcpu.inGuest = false
  vcpu.processor = null
  completeEvents(vcpu)
  return code
}

/** Tells the meter which level runs, and when a handler begins. #HV is for the vector that stands in the doorbell page. */
const observeInterrupts = (vcpu: Vcpu, thread: HostThread, cpu: GuestMode, meter: InterruptMeter): void => {
  const { apicId, current } = vcpu
  meter.entered(apicId, current.vmpl)
  cpu.delivered = (vector) => {
    const inDoorbell = current.doorbellVector
    if (vector !== VECTOR.HV) meter.delivered(apicId, current.vmpl, vector, thread.time)
    else if (inDoorbell >= 0) meter.delivered(apicId, current.vmpl, inDoorbell, thread.time)
    if (vector === VECTOR.HV) current.doorbellVector = -1
  }
}

/** pre_sev_run: decides what VMRUN flushes. */
const preSevRun = (vcpu: Vcpu, thread: HostThread): void => {
  const { kvm, asid } = vcpu.vm
  const control = kvm.lastVmcb.preSevRun(thread.core, asid, vcpu.vmcb, vcpu.lastCore)
  vcpu.lastCore = thread.core
  const stored = kvm.hardware.host.write8(vcpu.vmcb + VMCB.tlb_ctl, control)
  assert(stored === 0, "KVM's own VMCB page is hypervisor-owned")
}

/** Exit accounting, and the trace point. */
const countExit = (vcpu: Vcpu, thread: HostThread, code: number): void => {
  vcpu.exits.set(code, (vcpu.exits.get(code) ?? 0) + 1)
  const { trace, hardware } = vcpu.vm.kvm
  if (trace === null) return
  const word = (offset: number): number => hardware.host.read32(vcpu.vmcb + offset)
  const { exit_info_1: info1, exit_info_2: info2, exit_int_info, exit_int_info_err } = VMCB
  const info = [word(info1), word(info1 + 4), word(info2), word(info2 + 4)] as const
  trace.exit(thread, vcpu.id, code, info, word(exit_int_info), word(exit_int_info_err))
}

/** svm_handle_exit: the one switch from exit code to handler. */
const handleExit = (vcpu: Vcpu, thread: HostThread, code: number): number => {
  switch (code) {
    case EXIT.VMGEXIT:
      return handleVmgexit(vcpu, thread)
    case EXIT.NPF:
      return handleNpf(vcpu, thread)
    case EXIT.HLT:
      return handleHalt(vcpu)
    case EXIT.INTR:
    case EXIT.NMI:
    case EXIT.SMI:
    case EXIT.INIT:
    // kvm_vcpu_on_spin would yield to another vCPU that was preempted: the scheduler's slices do that here.
    case EXIT.PAUSE:
      return HANDLED.RESUME_GUEST
    case EXIT.VINTR:
      windowOpened(vcpu)
      return HANDLED.RESUME_GUEST
    case EXIT.EFER_WRITE_TRAP:
    case EXIT.CR0_WRITE_TRAP:
    case EXIT.CR4_WRITE_TRAP:
    case EXIT.CR8_WRITE_TRAP:
      return handleWriteTrap(vcpu, thread, code)
    case EXIT.SHUTDOWN:
      vcpu.run.exitReason = EXIT_REASON.SHUTDOWN
      vcpu.run.detail = `VMPL${vcpu.current.vmpl} of APIC ID ${vcpu.apicId} shut down`
      return HANDLED.EXIT_TO_USER
    default:
      vcpu.run.exitReason = EXIT_REASON.FAIL_ENTRY
      vcpu.run.detail = `VMRUN of VMPL${vcpu.current.vmpl} of APIC ID ${vcpu.apicId}: VMEXIT_${exitName(code)}`
      return HANDLED.EXIT_TO_USER
  }
}
