import {
  decodeEventInjection,
  EVENT_INJECTION_VALID,
  EVENT_TYPE,
  INJECT_NMI,
  INT_CTL,
  INT_STATE,
  INTERCEPT,
  injectException,
  injectInterrupt,
  SEV_FEATURES,
  VECTOR,
  VMCB
} from "@vmpl-lab/sev-es"
import { assert, type HostThread } from "@vmpl-lab/sim"
import { injectThroughDoorbell, wantsToRing } from "./Doorbell.ts"
import type { Vcpu } from "./Vcpu.ts"
import { markDirty, writeVmcb32 } from "./Vm.ts"

/** kvm_queue_exception. */
export const queueException = (vcpu: Vcpu, vector: number, error: number | null): void => {
  const { events } = vcpu
  events.exception = vector
  events.exceptionHasError = error !== null
  events.exceptionError = error ?? 0
}

/** Whether anything wants to be injected: a halted vCPU wakes for it. @spec Linux kvm_vcpu_has_events */
export const hasEvents = (vcpu: Vcpu): boolean => {
  const { events, lapic } = vcpu
  if (events.exception >= 0 || events.interrupt >= 0 || events.nmi) return true
  if (events.nmiPending > 0 && !events.nmiMasked) return true
  if ((vcpu.current.sevFeatures & SEV_FEATURES.RestrictedInjection) !== 0) return wantsToRing(vcpu)
  return lapic !== null && lapic.highestPending() >= 0 && isInterruptAllowed(vcpu)
}

const intState = (vcpu: Vcpu): number => vcpu.vm.kvm.hardware.host.read32(vcpu.vmcb + VMCB.int_state)

/** RFLAGS are hidden: what int_state showed at the last exit tells. A halted vCPU has left its shadow. */
const isInterruptAllowed = (vcpu: Vcpu): boolean =>
  (intState(vcpu) & (INT_STATE.GUEST_INTERRUPT_MASK | INT_STATE.INTERRUPT_SHADOW)) === INT_STATE.GUEST_INTERRUPT_MASK

/**
 * inject_pending_event: what goes in with the next VMRUN. First what an exit interrupted, then an NMI, then the
 * interrupt of highest priority; what cannot go in yet gets a window.
 * @spec Linux kvm_check_and_inject_events
 */
export const injectEvents = (vcpu: Vcpu, thread: HostThread): void => {
  const { events, lapic } = vcpu
  const { trace } = vcpu.vm.kvm
  const features = vcpu.current.sevFeatures
  // Only software at a more privileged level can inject.
  if ((features & SEV_FEATURES.AlternateInjection) !== 0) return
  if ((features & SEV_FEATURES.RestrictedInjection) !== 0) {
    injectThroughDoorbell(vcpu, thread)
    return
  }
  if (events.exception >= 0) {
    const { exception, exceptionHasError, exceptionError } = events
    trace?.injException(thread, exception, exceptionHasError ? exceptionError : 0, events.reinject)
    setEvent(vcpu, injectException(exception, exceptionHasError), exceptionError)
    events.exception = -1
  } else if (events.nmi) {
    setEvent(vcpu, INJECT_NMI, 0)
    events.nmi = false
  } else if (events.interrupt >= 0) {
    trace?.injVirq(thread, events.interrupt, true)
    setEvent(vcpu, injectInterrupt(events.interrupt), 0)
    events.interrupt = -1
  } else if (events.nmiPending > 0 && !events.nmiMasked && isNmiAllowed(vcpu)) {
    events.nmiPending--
    events.nmiMasked = true
    setEvent(vcpu, INJECT_NMI, 0)
  } else if (lapic !== null && lapic.highestPending() >= 0 && isInterruptAllowed(vcpu)) {
    const vector = lapic.acknowledge()
    vcpu.vm.kvm.interruptMeter?.taken(vcpu.apicId, vector)
    trace?.injVirq(thread, vector, false)
    setEvent(vcpu, injectInterrupt(vector), 0)
  }
  events.reinject = false
  setWindow(vcpu, lapic !== null && lapic.highestPending() >= 0)
}

const isNmiAllowed = (vcpu: Vcpu): boolean => (intState(vcpu) & INT_STATE.INTERRUPT_SHADOW) === 0

const setEvent = (vcpu: Vcpu, lo: number, error: number): void => {
  writeVmcb32(vcpu, VMCB.event_inj, lo)
  writeVmcb32(vcpu, VMCB.event_inj_err, error)
}

/**
 * sync_lapic_to_cr8: a TPR that came by an APIC access is what the guest reads in CR8, and what its virtual interrupts
 * are measured by. The other way round is the CR8 write trap.
 */
export const syncLapicToCr8 = (vcpu: Vcpu): void => {
  const { lapic } = vcpu
  if (lapic === null) return
  const { host } = vcpu.vm.kvm.hardware
  const intCtl = host.read32(vcpu.vmcb + VMCB.int_ctl)
  const cr8 = lapic.getTpr() >>> 4
  if ((intCtl & INT_CTL.V_TPR_MASK) === cr8) return
  writeVmcb32(vcpu, VMCB.int_ctl, ((intCtl & ~INT_CTL.V_TPR_MASK) | cr8) >>> 0)
}

const WINDOW_PRIORITY = 0xf

/**
 * svm_enable_irq_window: a virtual interrupt that is intercepted tells when the guest can take one. Its priority is above
 * any TPR, and the vector is of no account.
 */
const setWindow = (vcpu: Vcpu, wanted: boolean): void => {
  if (wanted === vcpu.windowOpen) return
  vcpu.windowOpen = wanted
  const { host } = vcpu.vm.kvm.hardware
  const intCtl = host.read32(vcpu.vmcb + VMCB.int_ctl)
  const cleared = intCtl & ~(INT_CTL.V_IRQ | (WINDOW_PRIORITY << INT_CTL.V_INTR_PRIO_SHIFT))
  const asked = INT_CTL.V_IRQ | (WINDOW_PRIORITY << INT_CTL.V_INTR_PRIO_SHIFT)
  writeVmcb32(vcpu, VMCB.int_ctl, (wanted ? cleared | asked : cleared) >>> 0)
  setVintrIntercept(vcpu, wanted)
}

const setVintrIntercept = (vcpu: Vcpu, on: boolean): void => {
  const { host } = vcpu.vm.kvm.hardware
  const at = VMCB.intercept_word3
  const bit = 1 << (INTERCEPT.VINTR & 31)
  const word = host.read32(vcpu.vmcb + at)
  writeVmcb32(vcpu, at, (on ? word | bit : word & ~bit) >>> 0)
  markDirty(vcpu)
}

/**
 * svm_complete_interrupts: an event whose delivery the exit interrupted is injected again. Under restricted injection
 * only #HV may be, and the guest takes the rest from its doorbell page by itself.
 */
export const completeEvents = (vcpu: Vcpu): void => {
  const { host } = vcpu.vm.kvm.hardware
  const { events } = vcpu
  // EVENTINJ keeps what was injected: another VMRUN would inject it once more.
  if (host.read32(vcpu.vmcb + VMCB.event_inj) !== 0) writeVmcb32(vcpu, VMCB.event_inj, 0)
  const info = host.read32(vcpu.vmcb + VMCB.exit_int_info)
  // Hardly any exit interrupts a delivery.
  if (info < EVENT_INJECTION_VALID) return
  const { vector, type, errorCodeValid } = decodeEventInjection(info)
  events.reinject = true
  switch (type) {
    case EVENT_TYPE.NMI:
      events.nmi = true
      return
    case EVENT_TYPE.EXCEPTION:
      if (vector === VECTOR.VC) return
      events.exception = vector
      events.exceptionHasError = errorCodeValid
      events.exceptionError = host.read32(vcpu.vmcb + VMCB.exit_int_info_err)
      return
    case EVENT_TYPE.INTR:
      events.interrupt = vector
      return
    default:
      // KVM injects no software interrupt into a guest whose RIP it cannot move.
      assert(type === EVENT_TYPE.SOFT_INT, `EXITINTINFO of type ${type}`)
  }
}

/** The guest can take an interrupt now: the next entry injects it. */
export const windowOpened = (vcpu: Vcpu): void => {
  setWindow(vcpu, false)
}
