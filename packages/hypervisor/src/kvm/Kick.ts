import { COUNTER, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { Vcpu } from "./Vcpu.ts"

/**
 * kvm_vcpu_kick: a vCPU asleep in KVM_RUN is woken, a running one gets an IPI and leaves guest mode when it arrives;
 * one that is on its way in sees the request by itself. The path of an AP creation for this vCPU goes along.
 */
export const kick = (vcpu: Vcpu, by: HostThread): void => {
  const { host, meter } = vcpu.vm.kvm
  const span = meter.creationSpan(vcpu.apicId)
  if (vcpu.blocking && vcpu.thread !== null) {
    host.wake(vcpu.thread, by, span)
    return
  }
  if (span !== null && by.span === span) by.span = null
  if (!vcpu.inGuest || vcpu.processor === null) return
  const flight = host.costs.sample(PRIMITIVE.ipi_kick)
  if (span !== null) {
    span.add(PRIMITIVE.ipi_kick, flight)
    span.counters[COUNTER.KICKS]! += 1
  }
  vcpu.processor.interruptAt = by.time + flight
  vcpu.processor.interruptSpan = span
}

/** A signal to the thread inside KVM_RUN: it leaves with EINTR. */
export const signalVcpu = (vcpu: Vcpu, by: HostThread): void => {
  vcpu.signalPending = true
  kick(vcpu, by)
}
