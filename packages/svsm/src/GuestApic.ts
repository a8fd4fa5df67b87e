import { X2APIC } from "@vmpl-lab/guest"

/** First vector that "all" lets pass. */
export const FIRST_VECTOR = 31

/** Vectors of a set of 256, by word. */
const testBit = (words: Uint32Array, vector: number): boolean => (words[vector >> 5]! & (1 << (vector & 31))) !== 0

const setBit = (words: Uint32Array, vector: number, on: boolean): void => {
  if (on) words[vector >> 5]! |= 1 << (vector & 31)
  else words[vector >> 5]! &= ~(1 << (vector & 31))
}

const highest = (words: Uint32Array): number => {
  for (let word = 7; word >= 0; word--) if (words[word] !== 0) return 32 * word + 31 - Math.clz32(words[word]!)
  return -1
}

/** Vectors that can be in service at once. */
const IN_SERVICE_MAX = 16

/**
 * The local APIC that the SVSM emulates for a vCPU of the guest: requests, what is in service, and the task priority.
 * Only vectors that the guest has allowed come from the host.
 */
export class GuestApic {
  readonly apicId: number
  readonly #requested = new Uint32Array(8)
  readonly #allowed = new Uint32Array(8)
  readonly #inService: Array<number> = []
  /** Task priority, 8 bits; the upper four are the guest's CR8. */
  tpr = 0
  /** As last written. */
  icrLo = 0
  icrHi = 0
  /** An NMI waits. */
  nmi = false

  constructor(apicId: number) {
    this.apicId = apicId
  }

  /** The host brings a vector. @returns false when the guest has not allowed it: it is dropped */
  post(vector: number): boolean {
    if (!testBit(this.#allowed, vector)) return false
    setBit(this.#requested, vector, true)
    return true
  }

  /** The guest sends one to itself. */
  postOwn(vector: number): void {
    setBit(this.#requested, vector, true)
  }

  allow(vector: number, on: boolean): void {
    setBit(this.#allowed, vector, on)
  }

  /**
   * PPR: the task priority, unless what is in service is of a higher class. Then the class alone counts.
   * @param wholeVector the subclass of what is in service shows too
   * @spec APM2 16.6.4
   */
  processorPriority(wholeVector = false): number {
    const inService = this.#inService.at(-1) ?? 0
    if ((this.tpr & 0xf0) >= (inService & 0xf0)) return this.tpr
    return wholeVector ? inService : inService & 0xf0
  }

  /**
   * The vector to be injected next, or -1. What the task priority holds back counts: the guest may lower that without a
   * word to the SVSM.
   */
  next(): number {
    const vector = highest(this.#requested)
    const isAbove = (vector & 0xf0) > ((this.#inService.at(-1) ?? 0) & 0xf0)
    return vector >= 0 && isAbove && this.#inService.length < IN_SERVICE_MAX ? vector : -1
  }

  /** Whether the task priority lets a vector through now. */
  passes(vector: number): boolean {
    return (vector & 0xf0) > (this.tpr & 0xf0)
  }

  /** The guest's level takes a vector. */
  take(vector: number): void {
    setBit(this.#requested, vector, false)
    this.#inService.push(vector)
  }

  /** What `take` took has not got into the guest: it waits again. */
  untake(vector: number): void {
    const at = this.#inService.lastIndexOf(vector)
    if (at >= 0) this.#inService.splice(at, 1)
    setBit(this.#requested, vector, true)
  }

  /** Vectors requested, 256 bits in words. */
  get requested(): Uint32Array {
    return this.#requested.slice()
  }

  /** Vectors in service, 256 bits in words. */
  get inService(): Uint32Array {
    const words = new Uint32Array(8)
    for (const vector of this.#inService) setBit(words, vector, true)
    return words
  }

  /**
   * The guest need not tell of the end of its handler: one vector is in service, or about to be, and none waits behind.
   * @param queued requested, and on its way into the guest; -1 for none
   */
  needsNoEoi(queued: number): boolean {
    const waiting = Uint32Array.from(this.#requested)
    if (queued >= 0) setBit(waiting, queued, false)
    return this.#inService.length + (queued >= 0 ? 1 : 0) === 1 && highest(waiting) < 0
  }

  endOfInterrupt(): void {
    this.#inService.pop()
  }

  /** One of the registers that the APIC protocol can read, by its x2APIC MSR; null for the others. */
  read(msr: number): number | null {
    if (msr >= X2APIC.ISR && msr < X2APIC.ISR + 8) return this.inService[msr - X2APIC.ISR]!
    // Every interrupt of this model that comes by the doorbell is an edge.
    if (msr >= X2APIC.TMR && msr < X2APIC.TMR + 8) return 0
    if (msr >= X2APIC.IRR && msr < X2APIC.IRR + 8) return this.#requested[msr - X2APIC.IRR]!
    switch (msr) {
      case X2APIC.ID:
        return this.apicId
      case X2APIC.TPR:
        return this.tpr
      case X2APIC.PPR:
        return this.processorPriority()
      case X2APIC.LDR:
        return (((this.apicId & ~0xf) << 12) | (1 << (this.apicId & 0xf))) >>> 0
      default:
        return null
    }
  }
}
