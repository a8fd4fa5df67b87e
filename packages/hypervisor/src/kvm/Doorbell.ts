import { DOORBELL, DOORBELL_FLAG, injectException, PAGE_SIZE, VECTOR, VMCB } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { bringEventsBelow, hasEventsBelow } from "./LowerLevels.ts"
import type { Vcpu } from "./Vcpu.ts"
import { writeVmcb32 } from "./Vm.ts"

/**
 * Restricted injection: what waits goes into the doorbell page, then #HV, the only event that the CPU lets through, and
 * not before the guest has cleared NoFurtherSignal. An interrupt waits while another vector stands in the page, an NMI
 * while one does.
 * @spec GHCB "#HV doorbell page"; order: Linux RFC "KVM Planes + SEV-SNP Support", 2026
 */
export const injectThroughDoorbell = (vcpu: Vcpu, thread: HostThread): void => {
  const { events, lapic } = vcpu
  const { host } = vcpu.vm.kvm.hardware
  if (events.exception === VECTOR.HV) {
    // Its delivery was interrupted: the guest has not heard the bell. Nothing else may be injected again.
    vcpu.vm.kvm.trace?.injException(thread, VECTOR.HV, 0, true)
    events.exception = -1
    ring(vcpu)
    return
  }
  const page = doorbellAddress(vcpu)
  // An interrupt is taken from the APIC only if the page can take it.
  if (page < 0 || host.write8(page + DOORBELL.no_eoi_required, host.read8(page + DOORBELL.no_eoi_required)) !== 0)
    return
  const vector = host.read8(page + DOORBELL.pending_vector)
  const flags = host.read8(page + DOORBELL.flags)
  let now = flags
  if (events.nmiPending > 0 && (flags & DOORBELL_FLAG.NMI) === 0) {
    events.nmiPending--
    now |= DOORBELL_FLAG.NMI
  }
  if (lapic !== null && vector === 0 && lapic.highestPending() >= 0) {
    const taken = lapic.acknowledge()
    vcpu.vm.kvm.interruptMeter?.taken(vcpu.apicId, taken)
    vcpu.current.doorbellVector = taken
    vcpu.vm.kvm.trace?.injVirq(thread, taken, false)
    host.write8(page + DOORBELL.pending_vector, taken)
    now |= DOORBELL_FLAG.NO_FURTHER_SIGNAL
  }
  const brought = bringEventsBelow(vcpu, page)
  if (now === flags && !brought) return
  if ((flags & DOORBELL_FLAG.NO_FURTHER_SIGNAL) !== 0) {
    // The guest has not looked yet: it will find this too.
    host.write8(page + DOORBELL.flags, now)
    return
  }
  host.write8(page + DOORBELL.flags, now | DOORBELL_FLAG.NO_FURTHER_SIGNAL)
  ring(vcpu)
}

/** Whether something waits that the page has room for: #HV comes whatever RFLAGS.IF is. */
export const wantsToRing = (vcpu: Vcpu): boolean => {
  const page = doorbellAddress(vcpu)
  if (page >= 0 && hasEventsBelow(vcpu)) return true
  if (page < 0 || vcpu.lapic === null || vcpu.lapic.highestPending() < 0) return false
  return vcpu.vm.kvm.hardware.host.read8(page + DOORBELL.pending_vector) === 0
}

const ring = (vcpu: Vcpu): void => {
  writeVmcb32(vcpu, VMCB.event_inj, injectException(VECTOR.HV, false))
  writeVmcb32(vcpu, VMCB.event_inj_err, 0)
}

/** System address of the doorbell page of the level that runs; -1 without one, or where it is no shared memory. */
export const doorbellAddress = ({ vm, current }: Vcpu): number => {
  if (current.doorbellGpa < 0) return -1
  const gfn = current.doorbellGpa / PAGE_SIZE
  return vm.inMemorySlot(gfn) && vm.isSharedForHost(gfn) ? vm.frameForHost(gfn) * PAGE_SIZE : -1
}
