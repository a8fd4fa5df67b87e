import type { ApicMessage } from "./ApicMessage.ts"
import { APIC_BROADCAST, DESTINATION_SHORTHAND, DFR, X2APIC_BROADCAST } from "./LapicRegisters.ts"

/** What decides whether a message is for an APIC. */
export interface Addressee {
  /** The APIC ID that cannot change. */
  readonly id: number
  /** The ID register of xAPIC mode, which software can write. */
  readonly xapicId: number
  readonly x2apic: boolean
  readonly ldr: number
  readonly dfr: number
}

/**
 * kvm_apic_match_dest. Each APIC reads a destination in its own mode, with KVM's exceptions: an MSI or an I/O APIC can
 * broadcast with 8 bits only, so that its 0xff is for APICs in x2APIC mode too; and an APIC in xAPIC mode whose ID needs
 * more than 8 bits hears its x2APIC ID.
 * @spec APM2 "Interprocessor Interrupts", destination modes
 */
export const matchesDestination = (apic: Addressee, message: ApicMessage): boolean => {
  switch (message.shorthand) {
    case DESTINATION_SHORTHAND.NONE:
      if (isBroadcast(apic, message)) return true
      return message.logical ? matchesLogical(apic, message.destination) : matchesPhysical(apic, message.destination)
    case DESTINATION_SHORTHAND.SELF:
      return message.sender === apic.id
    case DESTINATION_SHORTHAND.ALL_INCLUDING_SELF:
      return true
    case DESTINATION_SHORTHAND.ALL_EXCLUDING_SELF:
      return message.sender !== apic.id
  }
}

const isBroadcast = (apic: Addressee, { destination, sender, x2apic }: ApicMessage): boolean => {
  const isIpi = sender >= 0
  if (apic.x2apic) return destination === X2APIC_BROADCAST || (!isIpi && !x2apic && destination === APIC_BROADCAST)
  return destination === APIC_BROADCAST && !(isIpi && x2apic)
}

const matchesPhysical = (apic: Addressee, destination: number): boolean =>
  destination === (apic.x2apic || destination > 0xff ? apic.id : apic.xapicId)

const matchesLogical = (apic: Addressee, destination: number): boolean => {
  if (apic.x2apic) return apic.ldr >>> 16 === destination >>> 16 && (apic.ldr & destination & 0xffff) !== 0
  const logicalId = apic.ldr >>> 24
  if (apic.dfr === DFR.FLAT) return (logicalId & destination) !== 0
  if (apic.dfr === DFR.CLUSTER) return logicalId >>> 4 === destination >>> 4 && (logicalId & destination & 0xf) !== 0
  return false
}
