import type { ApicMessage } from "./ApicMessage.ts"
import type { Lapic } from "./Lapic.ts"
import { APIC_BROADCAST, DELIVERY_MODE, DESTINATION_SHORTHAND } from "./LapicRegisters.ts"

/**
 * Brings messages to the local APICs that they are for (kvm_irq_delivery_to_apic). A lowest-priority message goes to
 * the one with the lowest processor priority, ties to the lowest APIC ID; KVM picks by a hash of the vector instead.
 * @spec APM2 "Lowest Priority Messages and Arbitration"
 */
export class ApicMap {
  readonly #lapics: ReadonlyArray<Lapic>

  constructor(lapics: ReadonlyArray<Lapic> = []) {
    this.#lapics = lapics
  }

  /** @returns how many APICs took the message */
  deliver(message: ApicMessage, lapics: ReadonlyArray<Lapic> = this.#lapics): number {
    const addressees = lapics.filter((lapic) => lapic.enabled && lapic.matches(message))
    if (message.deliveryMode !== DELIVERY_MODE.LOWEST_PRIORITY || isPhysicalBroadcast(message)) {
      return addressees.reduce((took, lapic) => took + (lapic.accept(message) ? 1 : 0), 0)
    }
    const lowest = addressees.filter(({ softwareEnabled }) => softwareEnabled).reduce(lower, null)
    return lowest?.accept(message) ? 1 : 0
  }
}

/** A physical broadcast goes to all, even with lowest priority. */
const isPhysicalBroadcast = ({ logical, destination, shorthand }: ApicMessage): boolean =>
  shorthand === DESTINATION_SHORTHAND.NONE && !logical && destination === APIC_BROADCAST

const lower = (a: Lapic | null, b: Lapic): Lapic => {
  if (a === null) return b
  const difference = a.processorPriority() - b.processorPriority()
  return difference < 0 || (difference === 0 && a.id < b.id) ? a : b
}
