import { WAKE_VECTOR } from "../guest/Modes.ts"
import { KvmVm } from "../kvm/KvmVm.ts"
import { must } from "../LiveFailed.ts"
import { futexWord } from "../os/Os.ts"
import { attach } from "./KvmRun.ts"
import {
  awaitChange,
  CONTROL,
  collect,
  type Samples,
  type SharedMapping,
  type SharedVcpu,
  type TaskContext
} from "./Task.ts"

/** What the waker and the vCPU's thread share. */
export interface WakeParameters {
  readonly control: SharedMapping
  readonly cpu: number
}

/** The vCPU's side: says that it enters, stays inside until woken, notes when it is back in user space. */
const sleeper = (
  context: TaskContext,
  { control, cpu }: WakeParameters,
  sleep: () => void,
  prepare: () => void = () => {}
): Samples => {
  const { os } = context
  const page = os.remap(control.address, control.bytes)
  must("sched_setaffinity", os.pin(cpu))
  os.store32(page, CONTROL.threadId, os.threadId())
  const ready = futexWord(page, CONTROL.ready)
  let entered = 0
  return collect(context, () => {
    prepare()
    os.storeAndWake(ready, ++entered)
    sleep()
    return os.now()
  })
}

/** The waker's side: lets the other be inside for `delayNs`, then wakes it and notes when. */
const waker = (
  context: TaskContext,
  { control, cpu }: WakeParameters,
  delayNs: number,
  wake: (threadId: number) => void
): Samples => {
  const { os } = context
  const page = os.remap(control.address, control.bytes)
  must("sched_setaffinity", os.pin(cpu))
  const ready = futexWord(page, CONTROL.ready)
  let seen = 0
  return collect(context, () => {
    awaitChange(context, ready, seen)
    seen++
    os.spin(delayNs)
    const threadId = os.load32(page, CONTROL.threadId)
    const at = os.now()
    wake(threadId)
    return at
  })
}

/** A vCPU that spins in the guest until a signal ends KVM_RUN. A sample is the time at which it is back. */
export const kicked = (context: TaskContext, parameters: WakeParameters & { readonly vcpu: SharedVcpu }): Samples => {
  const vcpu = attach(context.os, parameters.vcpu)
  return sleeper(context, parameters, () => {
    vcpu.runUntilKicked()
    vcpu.immediateExit = false
  })
}

/**
 * Sends that signal. immediate_exit is set first: a thread that the signal meets before it is in KVM_RUN comes back all
 * the same. A sample is the time of sending.
 */
export const kicker = (
  context: TaskContext,
  parameters: WakeParameters & { readonly vcpu: SharedVcpu; readonly delayNs: number }
): Samples => {
  const vcpu = attach(context.os, parameters.vcpu)
  return waker(context, parameters, parameters.delayNs, (threadId) => {
    vcpu.immediateExit = true
    must("tgkill", context.os.kick(threadId))
  })
}

/** A vCPU that halts inside KVM_RUN until an interrupt, and then writes to its port. */
export const halted = (context: TaskContext, parameters: WakeParameters & { readonly vcpu: SharedVcpu }): Samples => {
  const vcpu = attach(context.os, parameters.vcpu)
  // The guest has no way to end an interrupt in real mode: its APIC is put back instead, before the next one.
  const apic = vcpu.apicPage()
  return sleeper(
    context,
    parameters,
    () => vcpu.runToPortWrite(),
    () => vcpu.setApicPage(apic)
  )
}

/** Raises that interrupt by KVM_SIGNAL_MSI. */
export const msiSender = (
  context: TaskContext,
  parameters: WakeParameters & { readonly vm: number; readonly delayNs: number }
): Samples => {
  const message = KvmVm.msi(WAKE_VECTOR)
  return waker(context, parameters, parameters.delayNs, () => KvmVm.signal(context.os, parameters.vm, message))
}
