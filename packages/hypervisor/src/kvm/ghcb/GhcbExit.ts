import { GHCB, PAGE_SIZE, validByte, validMask } from "@vmpl-lab/sev-es"
import type { HostMemory } from "@vmpl-lab/vmpl"

/** Registers that a GHCB may carry, by name. */
export type GhcbRegister = "rax" | "rbx" | "rcx" | "rdx" | "rsi" | "cpl" | "xcr0" | "sw_scratch"

const REGISTERS: ReadonlyArray<GhcbRegister> = ["rax", "rbx", "rcx", "rdx", "rsi", "cpl", "xcr0", "sw_scratch"]

/** First quadword of the valid bitmap that covers 0x0c8 to 0x1ff; the second one covers 0x200 to 0x3ff. */
const BITMAP_BYTES = 16

/** Valid bits of all registers, in words of the bitmap. */
const REGISTER_BITS: ReadonlyArray<number> = Array.from({ length: BITMAP_BYTES / 4 }, (_, word) =>
  REGISTERS.reduce((bits, name) => {
    const byte = validByte(GHCB[name]) - GHCB.valid_bitmap
    return byte >>> 2 === word ? bits | (validMask(GHCB[name]) << (8 * (byte & 3))) : bits
  }, 0)
)

/**
 * One VMGEXIT by the page protocol as KVM sees it: everything that the guest says is copied once, before anything is
 * checked, since the guest may change the page at any moment.
 * @spec GHCB "GHCB layout"; order: Linux sev_es_sync_from_ghcb
 */
export class GhcbExit {
  /** System address of the page. */
  readonly address: number
  readonly gpa: number
  readonly code: number
  readonly codeHi: number
  readonly info1Lo: number
  readonly info1Hi: number
  readonly info2Lo: number
  readonly info2Hi: number
  readonly usage: number
  readonly #host: HostMemory
  /** The bitmap in words: most events read no more than one of them, and a typed array takes long to make. */
  readonly #bitmap: ReadonlyArray<number>
  readonly #registers: Map<GhcbRegister, readonly [lo: number, hi: number]> | null
  /** Valid bits of what the reply returns, in words of the bitmap. */
  readonly #returned: Array<number> = [0, 0, 0, 0]
  /** A store of the reply faulted: the page is no longer the host's to write. */
  failed = false

  constructor(host: HostMemory, frame: number, gpa: number) {
    const address = frame * PAGE_SIZE
    this.#host = host
    this.address = address
    this.gpa = gpa
    const bitmap = address + GHCB.valid_bitmap
    this.#bitmap = [host.read32(bitmap), host.read32(bitmap + 4), host.read32(bitmap + 8), host.read32(bitmap + 12)]
    this.code = host.read32(address + GHCB.sw_exit_code)
    this.codeHi = host.read32(address + GHCB.sw_exit_code + 4)
    this.info1Lo = host.read32(address + GHCB.sw_exit_info_1)
    this.info1Hi = host.read32(address + GHCB.sw_exit_info_1 + 4)
    this.info2Lo = host.read32(address + GHCB.sw_exit_info_2)
    this.info2Hi = host.read32(address + GHCB.sw_exit_info_2 + 4)
    this.usage = host.read32(address + GHCB.ghcb_usage)
    this.#registers = this.#hasRegisters() ? this.#readRegisters() : null
  }

  #hasRegisters(): boolean {
    for (let word = 0; word < REGISTER_BITS.length; word++)
      if ((this.#bitmap[word]! & REGISTER_BITS[word]!) !== 0) return true
    return false
  }

  #readRegisters(): Map<GhcbRegister, readonly [lo: number, hi: number]> {
    const registers = new Map<GhcbRegister, readonly [lo: number, hi: number]>()
    for (const name of REGISTERS) {
      if (!this.isValid(GHCB[name])) continue
      const at = this.address + GHCB[name]
      registers.set(
        name,
        name === "cpl" ? [this.#host.read8(at), 0] : [this.#host.read32(at), this.#host.read32(at + 4)]
      )
    }
    return registers
  }

  /** Whether the guest said that it supplies the quadword of a field. */
  isValid(field: number): boolean {
    const byte = validByte(field) - GHCB.valid_bitmap
    return ((this.#bitmap[byte >>> 2]! >>> (8 * (byte & 3))) & validMask(field)) !== 0
  }

  /** A register as halves; zero where the guest has not supplied it. */
  register(name: GhcbRegister): readonly [lo: number, hi: number] {
    return this.#registers?.get(name) ?? [0, 0]
  }

  /** A register as a number, exact below 2^53. */
  value(name: GhcbRegister): number {
    const [lo, hi] = this.register(name)
    return hi * 0x1_0000_0000 + lo
  }

  /** Both information words as numbers, exact below 2^53. */
  get info1(): number {
    return this.info1Hi * 0x1_0000_0000 + this.info1Lo
  }
  get info2(): number {
    return this.info2Hi * 0x1_0000_0000 + this.info2Lo
  }

  /** Clears the bitmap in the page: what the reply returns, and nothing else, is valid afterwards. */
  clearBitmap(): void {
    for (let word = 0; word < BITMAP_BYTES; word += 4) {
      this.#note(this.#host.write32(this.address + GHCB.valid_bitmap + word, 0))
    }
  }

  /** Stores a field of the reply with its valid bit. */
  put(field: "rax" | "rbx" | "rcx" | "rdx" | "sw_exit_info_1" | "sw_exit_info_2", lo: number, hi = 0): void {
    const offset = GHCB[field]
    this.#note(this.#host.write64(this.address + offset, lo >>> 0, hi >>> 0))
    const byte = validByte(offset) - GHCB.valid_bitmap
    const shift = 8 * (byte & 3)
    const word = this.#returned[byte >>> 2]! | (validMask(offset) << shift)
    this.#returned[byte >>> 2] = word
    this.#note(this.#host.write8(this.address + validByte(offset), (word >>> shift) & 0xff))
  }

  #note(fault: number): void {
    if (fault !== 0) this.failed = true
  }
}
