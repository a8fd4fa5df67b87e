import {
  DOORBELL,
  DOORBELL_DESCRIPTOR,
  DOORBELL_FIRST_VECTOR,
  DOORBELL_STATUS,
  INT_STATE,
  SEV_FEATURES,
  VMCB
} from "@vmpl-lab/sev-es"
import type { HostMemory } from "@vmpl-lab/vmpl"
import { APIC_REG, x2apicMsr } from "../apic/index.ts"
import { REQUEST, type Vcpu } from "./Vcpu.ts"
import { writeVmcb32 } from "./Vm.ts"

/** Level of the software that injects into the others under alternate injection. */
const MONITOR_VMPL = 0

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

/** The vCPU object of a level below this one, their monitor, that has alternate injection; null where there is none. */
export const injectedBelow = (monitor: Vcpu, vmpl: number): Vcpu | null => {
  const { vm, slots, current, common } = monitor
  if (!vm.config.lowerLevelEvents || slots.length > 1 || current.vmpl !== MONITOR_VMPL || vmpl <= MONITOR_VMPL)
    return null
  const lower = common.vcpuOf(vmpl)
  return lower !== null && lower.lapic !== null && isAlternate(lower) ? lower : null
}

/** Lower levels' vCPU objects that have something for this one, their monitor, to inject. */
const waitingBelow = (vcpu: Vcpu): ReadonlyArray<Vcpu> =>
  [1, 2, 3].flatMap((vmpl) => {
    const lower = injectedBelow(vcpu, vmpl)
    return lower !== null && lower.lapic!.highestPending() >= 0 ? [lower] : []
  })

/** Whether a monitor's doorbell would bring something of the levels below. */
export const hasEventsBelow = (vcpu: Vcpu): boolean => waitingBelow(vcpu).length > 0

const descriptorOf = (page: number, vmpl: number): number =>
  page + DOORBELL.vmpl1 + DOORBELL_DESCRIPTOR.SIZE * (vmpl - 1)

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
    const descriptor = descriptorOf(page, vmpl)
    for (;;) {
      const pending = lower.lapic!.highestPending()
      if (pending < 0 || !describe(monitor, descriptor, pending)) break
      const vector = lower.lapic!.acknowledge()
      monitor.vm.kvm.interruptMeter?.taken(lower.apicId, vector)
      endOfEdge(lower)
    }
    const events = page + DOORBELL.per_vmpl_events
    host.write8(events, host.read8(events) | (1 << (vmpl - 1)))
  }
  return below.length > 0
}

/**
 * One vector alone stands in the status; as soon as there are more, all are in the words behind it.
 * @returns false where the descriptor has no room for it: a vector below 31 is told of alone
 */
const describe = ({ vm }: Vcpu, descriptor: number, vector: number): boolean => {
  const { host } = vm.kvm.hardware
  const status = host.read32(descriptor)
  const alone = status & 0xff
  if ((status & DOORBELL_STATUS.MULTIPLE) === 0) {
    if (alone === 0) {
      host.write8(descriptor, vector)
      return true
    }
    if (alone < DOORBELL_FIRST_VECTOR) return false
  }
  if (vector < DOORBELL_FIRST_VECTOR) return false
  host.write32(descriptor, ((status & ~0xff) | DOORBELL_STATUS.MULTIPLE) >>> 0)
  if ((status & DOORBELL_STATUS.MULTIPLE) === 0) request(host, descriptor, alone)
  request(host, descriptor, vector)
  return true
}

const request = (host: HostMemory, descriptor: number, vector: number): void => {
  const is31 = vector === DOORBELL_FIRST_VECTOR
  const word = is31 ? descriptor : descriptor + DOORBELL_DESCRIPTOR.IRR + 4 * ((vector >> 5) - 1)
  host.write32(word, (host.read32(word) | (1 << (vector & 31))) >>> 0)
}

const endOfEdge = ({ lapic }: Vcpu): void => {
  if (lapic!.x2apic) lapic!.writeMsr(x2apicMsr(APIC_REG.EOI), 0, 0)
  else lapic!.write(APIC_REG.EOI, 0)
}

/** What the monitor says of a level that it injects into no more, beside the descriptor. */
export interface InjectionState {
  readonly tpr: number
  readonly shadow: boolean
  readonly interruptsEnabled: boolean
}

/**
 * The host's local APIC takes over from the monitor's: what the descriptor says is requested and in service, an NMI, and
 * of the level's registers what an interrupt hangs on. From here on the host injects.
 * @param page system address of the monitor's doorbell page
 */
export const takeOverInjection = (lower: Vcpu, page: number, state: InjectionState): void => {
  const { vm, current } = lower
  const { host } = vm.kvm.hardware
  const descriptor = descriptorOf(page, current.vmpl)
  const words = (at: number, from: number): Uint32Array =>
    Uint32Array.from({ length: 8 }, (_, word) => (word < from ? 0 : host.read32(descriptor + at + 4 * (word - from))))
  const status = host.read32(descriptor)
  const requested = words(DOORBELL_DESCRIPTOR.IRR, 1)
  const inService = words(DOORBELL_DESCRIPTOR.ISR, 0)
  const alone = status & 0xff
  if ((status & DOORBELL_STATUS.MULTIPLE) === 0) requested[alone >> 5]! |= alone === 0 ? 0 : 1 << (alone & 31)
  else if ((status & DOORBELL_STATUS.VECTOR_31) !== 0) requested[0]! |= DOORBELL_STATUS.VECTOR_31
  for (let at = 0; at < DOORBELL_DESCRIPTOR.SIZE; at += 4) host.write32(descriptor + at, 0)
  const events = page + DOORBELL.per_vmpl_events
  host.write8(events, host.read8(events) & ~(1 << (current.vmpl - 1)))

  for (let vector = 0; vector < 256; vector++) {
    if (((requested[vector >> 5]! >>> (vector & 31)) & 1) === 0) continue
    vm.kvm.interruptMeter?.returned(lower.apicId, vector)
  }
  current.sevFeatures = (current.sevFeatures & ~SEV_FEATURES.AlternateInjection) >>> 0
  vm.vmsaFeatures[current.vmpl] = (vm.vmsaFeatures[current.vmpl]! & ~SEV_FEATURES.AlternateInjection) >>> 0
  const intState =
    (state.interruptsEnabled ? INT_STATE.GUEST_INTERRUPT_MASK : 0) | (state.shadow ? INT_STATE.INTERRUPT_SHADOW : 0)
  writeVmcb32(lower, VMCB.int_state, intState)
  if ((status & DOORBELL_STATUS.NMI) !== 0) lower.queueNmi()
  lower.lapic!.takeOver(requested, inService, state.tpr)
  lower.requests |= REQUEST.EVENT
}
