import { EXIT } from "@vmpl-lab/sev-es"
import { COUNTER, type HostThread, PRIMITIVE, type Span } from "@vmpl-lab/sim"
import type { Vcpu } from "./Vcpu.ts"

/**
 * kvm_vcpu_kick: a vCPU asleep in KVM_RUN is woken, a running one gets an IPI and leaves guest mode when it arrives;
 * one that is on its way in sees the request by itself. `span` is the path of the operation that kicks, if it is
 * measured: it goes along, and what the kicking thread does from here on is beside it.
 */
export const kick = (vcpu: Vcpu, by: HostThread, span: Span | null): void => {
  const { host } = vcpu.vm.kvm
  if (vcpu.blocking && vcpu.thread !== null) {
    host.wake(vcpu.thread, by, span)
    return
  }
  if (span !== null && by.span === span) by.span = null
  const { processor } = vcpu
  if (!vcpu.inGuest || processor === null) return
  const flight = host.costs.sample(PRIMITIVE.ipi_kick)
  if (span !== null) {
    span.add(PRIMITIVE.ipi_kick, flight)
    span.counters[COUNTER.KICKS]! += 1
  }
  processor.interrupt(by.time + flight, span)
}

/** The same from an interrupt that arrives at a virtual time on the core where the vCPU is: no IPI is needed. */
export const kickFromInterrupt = (vcpu: Vcpu, time: number, code: number): void => {
  if (vcpu.blocking && vcpu.thread !== null) vcpu.vm.kvm.host.wakeAt(vcpu.thread, time)
  else if (vcpu.inGuest) vcpu.processor?.interrupt(time, null, code)
}

/**
 * A signal to the thread inside KVM_RUN, by the system call tgkill: it leaves with EINTR. Sending it is on the path of
 * the operation that signals. `by` is null where a timer's interrupt is behind it.
 */
export const signalVcpu = (vcpu: Vcpu, by: HostThread | null, span: Span | null): void => {
  by?.charge(PRIMITIVE.signal_send)
  vcpu.signalPending = true
  if (by === null) kickFromInterrupt(vcpu, vcpu.vm.kvm.host.now, EXIT.INTR)
  else kick(vcpu, by, span)
}
