import { assert } from "@vmpl-lab/sim"
import type { ApicMessage } from "./ApicMessage.ts"

export const IOAPIC_BASE = 0xfec0_0000
export const IOAPIC_PINS = 24

/** Registers in the page. EOI is there from version 0x20 on. */
export const IOAPIC_MMIO = { IOREGSEL: 0x00, IOWIN: 0x10, EOI: 0x40 } as const

/** Registers behind IOREGSEL and IOWIN. Each pin has two from REDIRECTION on. */
export const IOAPIC_REG = { ID: 0x00, VER: 0x01, ARB: 0x02, REDIRECTION: 0x10 } as const

/** Lower half of a redirection table entry. The destination is in bits 31:24 of the upper half. */
export const REDIRECTION = {
  VECTOR: 0xff,
  LOGICAL: 1 << 11,
  DELIVERY_STATUS: 1 << 12,
  REMOTE_IRR: 1 << 14,
  LEVEL_TRIGGERED: 1 << 15,
  MASKED: 1 << 16
} as const

const READ_ONLY = REDIRECTION.DELIVERY_STATUS | REDIRECTION.REMOTE_IRR

/** What setIrq answers besides how many APICs took the interrupt, as KVM_IRQ_LINE_STATUS does. */
export const IRQ_LINE = { COALESCED: 0, LOWERED: 1, HELD_BACK: -1 } as const

/**
 * The I/O APIC as KVM has it in the kernel (struct kvm_ioapic), without its tracking of the RTC and its brake on
 * interrupt storms.
 * @spec Linux arch/x86/kvm/ioapic.c, after Intel's 82093AA
 */
export class IoApic {
  readonly #deliver: (message: ApicMessage) => number
  readonly #version: number
  readonly #lo = new Uint32Array(IOAPIC_PINS).fill(REDIRECTION.MASKED)
  readonly #hi = new Uint32Array(IOAPIC_PINS)
  #id = 0
  #select = 0
  /** Levels of the pins, one bit each. */
  #irr = 0

  /** @param deliver brings a message to the local APICs and says how many took it */
  constructor(deliver: (message: ApicMessage) => number, version: 0x11 | 0x20 = 0x11) {
    this.#deliver = deliver
    this.#version = version
  }

  /** A 32-bit read of the page. */
  read(offset: number): number {
    if (offset === IOAPIC_MMIO.IOREGSEL) return this.#select
    return offset === IOAPIC_MMIO.IOWIN ? this.#readSelected() : 0
  }

  /** A 32-bit write to the page. */
  write(offset: number, value: number): void {
    if (offset === IOAPIC_MMIO.IOREGSEL) this.#select = value & 0xff
    else if (offset === IOAPIC_MMIO.IOWIN) this.#writeSelected(value)
    else if (offset === IOAPIC_MMIO.EOI && this.#version >= 0x20) this.endOfInterrupt(value & 0xff)
  }

  /**
   * The level of a pin. An edge that finds its pin masked is lost; a level is served as soon as it can be.
   * @returns an IRQ_LINE, or how many APICs took the interrupt
   */
  setIrq(pin: number, level: boolean): number {
    assert(Number.isInteger(pin) && pin >= 0 && pin < IOAPIC_PINS, `the I/O APIC has no pin ${pin}`)
    const bit = 1 << pin
    if (!level) {
      this.#irr &= ~bit
      return IRQ_LINE.LOWERED
    }
    const wasHigh = (this.#irr & bit) !== 0
    this.#irr |= bit
    if (wasHigh && !this.#isLevel(pin)) return IRQ_LINE.COALESCED
    return this.#service(pin)
  }

  /** A local APIC has ended a level-triggered vector: pins that are still high interrupt again. */
  endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      if ((this.#lo[pin]! & REDIRECTION.VECTOR) !== vector || !this.#isLevel(pin)) continue
      this.#lo[pin]! &= ~REDIRECTION.REMOTE_IRR
      if ((this.#irr & (1 << pin)) !== 0) this.#service(pin)
    }
  }

  #readSelected(): number {
    switch (this.#select) {
      case IOAPIC_REG.VER:
        return ((IOAPIC_PINS - 1) << 16) | this.#version
      case IOAPIC_REG.ID:
      case IOAPIC_REG.ARB:
        return this.#id << 24
      default:
        return (this.#half()[this.#pin()] ?? 0xffff_ffff) >>> 0
    }
  }

  #writeSelected(value: number): void {
    const pin = this.#pin()
    if (this.#select === IOAPIC_REG.ID) this.#id = (value >>> 24) & 0xf
    if (pin < 0 || pin >= IOAPIC_PINS) return
    const half = this.#half()
    if (half === this.#hi) {
      half[pin] = value
    } else {
      half[pin] = (value & ~READ_ONLY) | (half[pin]! & READ_ONLY)
      // Linux turns an entry to edge and back where there is no EOI register.
      if (!this.#isLevel(pin)) half[pin]! &= ~REDIRECTION.REMOTE_IRR
    }
    if (this.#isLevel(pin) && (this.#irr & (1 << pin)) !== 0) this.#service(pin)
  }

  #pin(): number {
    return (this.#select - IOAPIC_REG.REDIRECTION) >> 1
  }

  #half(): Uint32Array {
    return (this.#select & 1) === 0 ? this.#lo : this.#hi
  }

  #isLevel(pin: number): boolean {
    return (this.#lo[pin]! & REDIRECTION.LEVEL_TRIGGERED) !== 0
  }

  /** ioapic_service. */
  #service(pin: number): number {
    const entry = this.#lo[pin]!
    const levelTriggered = this.#isLevel(pin)
    // Only level-triggered entries ever have remote IRR set.
    if ((entry & (REDIRECTION.MASKED | REDIRECTION.REMOTE_IRR)) !== 0) return IRQ_LINE.HELD_BACK
    const took = this.#deliver({
      destination: this.#hi[pin]! >>> 24,
      logical: (entry & REDIRECTION.LOGICAL) !== 0,
      shorthand: 0,
      deliveryMode: (entry >>> 8) & 7,
      vector: entry & REDIRECTION.VECTOR,
      levelTriggered,
      assert: true,
      sender: -1,
      x2apic: false
    })
    if (took > 0 && levelTriggered) this.#lo[pin]! |= REDIRECTION.REMOTE_IRR
    return took
  }
}
