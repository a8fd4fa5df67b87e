import { DOORBELL, SEV_FEATURES } from "@vmpl-lab/sev-es"
import { APIC_REG, x2apicMsr } from "../apic/index.ts"
import type { Vcpu } from "./Vcpu.ts"

/** Level of the software that injects into the others under alternate injection. */
const MONITOR_VMPL = 0

/** Fields of a level's descriptor in the doorbell page. @spec GHCB "#HV doorbell page" */
export const DESCRIPTOR = { STATUS: 0, IRR: 4, MULTIPLE: 1 << 14, PENDING: 0x8000_0000 } as const

/** First vector that a descriptor's IRR has a bit for. */
export const DESCRIPTOR_FIRST_VECTOR = 32

const isAlternate = ({ current }: Vcpu): boolean => (current.sevFeatures & SEV_FEATURES.AlternateInjection) !== 0

/**
 * The vCPU object whose software injects what comes for this one: that of the monitor's level, if this one's level has
 * alternate injection and the host tells the monitor. Null where KVM has one local APIC for all levels: it cannot know
 * which interrupts are the lower level's.
 */
export const monitorOf = (vcpu: Vcpu): Vcpu | null => {
  if (!vcpu.vm.config.lowerLevelEvents || vcpu.slots.length > 1 || !isAlternate(vcpu)) return null
  return vcpu.common.vcpuOf(MONITOR_VMPL)
}

/** Lower levels' vCPU objects that have something for this one, their monitor, to inject. */
const waitingBelow = (vcpu: Vcpu): ReadonlyArray<Vcpu> => {
  if (!vcpu.vm.config.lowerLevelEvents || vcpu.slots.length > 1 || vcpu.current.vmpl !== MONITOR_VMPL) return []
  return [1, 2, 3].flatMap((vmpl) => {
    const lower = vcpu.common.vcpuOf(vmpl)
    return lower !== null && isAlternate(lower) && (lower.lapic?.highestPending() ?? -1) >= 0 ? [lower] : []
  })
}

/** Whether a monitor's doorbell would bring something of the levels below. */
export const hasEventsBelow = (vcpu: Vcpu): boolean => waitingBelow(vcpu).length > 0

/**
 * Alternate injection: what the local APICs of the levels below have requested goes into those levels' descriptors of
 * the monitor's doorbell page, with the bit of each level. An edge is over for the host then; the end of a
 * level-triggered one is the monitor's to tell.
 * @param page system address of the monitor's doorbell page
 * @returns true when there was something
 */
export const bringEventsBelow = (monitor: Vcpu, page: number): boolean => {
  const { host } = monitor.vm.kvm.hardware
  const below = waitingBelow(monitor)
  for (const lower of below) {
    const { vmpl } = lower.current
    const descriptor = page + DOORBELL.vmpl1 + (DOORBELL.vmpl2 - DOORBELL.vmpl1) * (vmpl - 1)
    for (;;) {
      const vector = lower.lapic!.acknowledge()
      if (vector < 0) break
      monitor.vm.kvm.interruptMeter?.taken(lower.apicId, vector)
      endOfEdge(lower)
      const status = host.read32(descriptor + DESCRIPTOR.STATUS)
      if ((status & DESCRIPTOR.PENDING) === 0) host.write32(descriptor, (DESCRIPTOR.PENDING | vector) >>> 0)
      else {
        const word = descriptor + DESCRIPTOR.IRR + 4 * ((vector - DESCRIPTOR_FIRST_VECTOR) >> 5)
        host.write32(word, (host.read32(word) | (1 << (vector & 31))) >>> 0)
        host.write32(descriptor, (status | DESCRIPTOR.MULTIPLE) >>> 0)
      }
    }
    const events = page + DOORBELL.per_vmpl_events
    host.write8(events, host.read8(events) | (1 << (vmpl - 1)))
  }
  return below.length > 0
}

const endOfEdge = ({ lapic }: Vcpu): void => {
  if (lapic!.x2apic) lapic!.writeMsr(x2apicMsr(APIC_REG.EOI), 0, 0)
  else lapic!.write(APIC_REG.EOI, 0)
}
