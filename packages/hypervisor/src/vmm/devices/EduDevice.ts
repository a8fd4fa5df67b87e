import type { Device } from "./DeviceBus.ts"

const REGISTER = {
  ID: 0x00,
  LIVENESS: 0x04,
  FACTORIAL: 0x08,
  STATUS: 0x20,
  IRQ_STATUS: 0x24,
  IRQ_RAISE: 0x60,
  IRQ_ACK: 0x64
} as const

/** 0xRRrr00ed: version 1.0 of the device. */
const ID = 0x0100_00ed
const U32_MAX = 0xffff_ffff

/**
 * QEMU's educational device, the registers that need no DMA: identification, liveness (answers the complement of what
 * was written), factorial, and an interrupt that the guest raises and acknowledges itself.
 * @spec QEMU docs/specs/edu
 */
export class EduDevice implements Device {
  readonly base: number
  readonly size = 0x1000
  readonly #raise: (level: boolean) => void
  #liveness = 0
  #factorial = 0
  #irqStatus = 0

  /** @param raise the interrupt line: true while any bit of the interrupt status is set */
  constructor(base: number, raise: (level: boolean) => void) {
    this.base = base
    this.#raise = raise
  }

  read(offset: number, data: Uint8Array): void {
    const value = this.#value(offset)
    for (let i = 0; i < data.length; i++) data[i] = i < 4 ? (value >>> (8 * i)) & 0xff : 0
  }

  write(offset: number, data: Uint8Array): void {
    const value = data.reduceRight((sum, byte, i) => (i < 4 ? sum * 256 + byte : sum), 0)
    switch (offset) {
      case REGISTER.LIVENESS:
        this.#liveness = (~value & U32_MAX) >>> 0
        return
      case REGISTER.FACTORIAL:
        this.#factorial = factorial(value)
        return
      case REGISTER.IRQ_RAISE:
        this.#irqStatus = (this.#irqStatus | value) >>> 0
        if (this.#irqStatus !== 0) this.#raise(true)
        return
      case REGISTER.IRQ_ACK:
        this.#irqStatus = (this.#irqStatus & ~value) >>> 0
        if (this.#irqStatus === 0) this.#raise(false)
    }
  }

  #value(offset: number): number {
    switch (offset) {
      case REGISTER.ID:
        return ID
      case REGISTER.LIVENESS:
        return this.#liveness
      case REGISTER.FACTORIAL:
        return this.#factorial
      case REGISTER.IRQ_STATUS:
        return this.#irqStatus
      default:
        return 0
    }
  }
}

/** Modulo 2^32: from 34 on it is 0, so no loop is longer than that. */
const factorial = (n: number): number => {
  let product = 1
  for (let i = 2; i <= n && product !== 0; i++) product = Math.imul(product, i) >>> 0
  return product
}
