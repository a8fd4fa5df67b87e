import type { Device } from "./DeviceBus.ts"

/** Port of the first serial line, COM1. */
export const COM1 = 0x3f8

const REGISTER = { THR: 0, LSR: 5, SCR: 7 } as const
const LSR_THRE_TEMT = 0x60

/** The transmitting half of a 16550: what the guest sends is kept, and there is always room for more. */
export class Uart implements Device {
  readonly base: number
  readonly size = 8
  /** Bytes sent so far, as text. */
  text = ""
  #scratch = 0

  constructor(base: number = COM1) {
    this.base = base
  }

  read(offset: number, data: Uint8Array): void {
    data.fill(0)
    if (offset === REGISTER.LSR) data[0] = LSR_THRE_TEMT
    else if (offset === REGISTER.SCR) data[0] = this.#scratch
  }

  write(offset: number, data: Uint8Array): void {
    if (offset === REGISTER.THR) for (const byte of data) this.text += String.fromCharCode(byte)
    else if (offset === REGISTER.SCR) this.#scratch = data[0]!
  }
}
