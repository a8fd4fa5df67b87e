import type { ApicMessage } from "./ApicMessage.ts"
import { DELIVERY_MODE } from "./LapicRegisters.ts"

/** A message-signalled interrupt: where a device writes what. */
export interface Msi {
  readonly addressLo: number
  readonly addressHi: number
  readonly data: number
}

/** Upper bits of the address. */
export const MSI_ADDRESS_BASE = 0xfee0_0000

const ADDRESS = { LOGICAL: 1 << 2, REDIRECTION_HINT: 1 << 3 } as const
const DATA = { ASSERT: 1 << 14, LEVEL_TRIGGERED: 1 << 15 } as const

/**
 * The message of an MSI (kvm_set_msi_irq). Destination bits 31:8 are in the upper half of the address, as with
 * KVM_X2APIC_API_USE_32BIT_IDS. A redirection hint makes a fixed message a lowest-priority one. KVM takes every MSI for
 * an assertion, whatever the level bit says.
 * @spec Linux arch/x86/kvm/irq.c
 */
export const decodeMsi = (addressLo: number, addressHi: number, data: number): ApicMessage => {
  const mode = (data >>> 8) & 7
  const hint = (addressLo & ADDRESS.REDIRECTION_HINT) !== 0
  const upper = (addressHi & 0xffff_ff00) >>> 0
  return {
    destination: upper + ((addressLo >>> 12) & 0xff),
    logical: (addressLo & ADDRESS.LOGICAL) !== 0,
    shorthand: 0,
    deliveryMode: hint && mode === DELIVERY_MODE.FIXED ? DELIVERY_MODE.LOWEST_PRIORITY : mode,
    vector: data & 0xff,
    levelTriggered: (data & DATA.LEVEL_TRIGGERED) !== 0,
    assert: true,
    sender: -1,
    x2apic: upper !== 0
  }
}

/** The MSI that decodes to a message without shorthand; a lowest-priority one carries the redirection hint. */
export const encodeMsi = (message: ApicMessage): Msi => {
  const lowest = message.deliveryMode === DELIVERY_MODE.LOWEST_PRIORITY
  return {
    addressLo:
      (MSI_ADDRESS_BASE |
        ((message.destination & 0xff) << 12) |
        (message.logical ? ADDRESS.LOGICAL : 0) |
        (lowest ? ADDRESS.REDIRECTION_HINT : 0)) >>>
      0,
    addressHi: (message.destination & 0xffff_ff00) >>> 0,
    data:
      (message.vector & 0xff) |
      ((message.deliveryMode & 7) << 8) |
      (message.levelTriggered ? DATA.LEVEL_TRIGGERED : 0) |
      (message.assert ? DATA.ASSERT : 0)
  }
}
