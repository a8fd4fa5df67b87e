import type { U64 } from "@vmpl-lab/sev-es"
import type { ApicMessage } from "./ApicMessage.ts"
import { matchesDestination } from "./LapicMatch.ts"
import {
  APIC_BASE,
  APIC_REG,
  DELIVERY_MODE,
  DESTINATION_SHORTHAND,
  DFR,
  decodeIcr,
  ESR,
  ICR,
  LVT,
  SPIV,
  X2APIC_ICR_RESERVED,
  x2apicLdr,
  x2apicRegister
} from "./LapicRegisters.ts"
import { LapicTimer } from "./LapicTimer.ts"
import { isReadable, isRegister, LVT_WRITABLE } from "./RegisterMasks.ts"
import { clearVector, highestVector, setVector, testVector } from "./VectorRegisters.ts"

/** What a local APIC needs of the machine around it. */
export interface LapicBus {
  /** Virtual ns. */
  readonly now: () => number
  /** (Re)arms the one timer of this APIC; null disarms. */
  readonly armTimer: (at: number | null) => void
  /** An IPI leaves. */
  readonly send: (message: ApicMessage) => void
  /** EOI of a level-triggered vector. */
  readonly endOfInterrupt: (vector: number) => void
  /** Something became pending: the vCPU must look (kvm_make_request(KVM_REQ_EVENT) and a kick). */
  readonly raise: () => void
  /** Observer: a vector was requested; `merged` with one that was requested already. */
  readonly requested?: (vector: number, merged: boolean) => void
}

/** APIC version 0x14 with six LVT entries, and no suppression of EOI broadcasts. */
export const LAPIC_VERSION = 0x0005_0014

/** What reads of the APIC page give while it is not there (KVM_X86_QUIRK_LAPIC_MMIO_HOLE). */
const MMIO_HOLE = 0xffff_ffff

/**
 * A local APIC as KVM has it in the kernel (struct kvm_lapic), without hardware help. What goes beyond KVM is the ESR,
 * which KVM keeps at zero. There is no PIC, and neither SMM nor paravirtual extensions.
 * @spec APM2 chapter 16
 */
export class Lapic {
  readonly id: number
  readonly #bus: LapicBus
  readonly #isBootProcessor: boolean
  readonly #page = new Uint32Array(0x40)
  readonly #timer: LapicTimer
  /** APIC_BASE[31:0]. */
  #apicBase: number
  /** Errors since the last write of ESR. */
  #errors = 0
  nmiPending = false
  initPending = false
  /** Vector of the SIPI that has come, or -1. Whether it is heard is the vCPU's matter. */
  sipiVector = -1

  constructor(id: number, bus: LapicBus, isBootProcessor: boolean) {
    this.id = id
    this.#bus = bus
    this.#isBootProcessor = isBootProcessor
    this.#timer = new LapicTimer(bus)
    this.#apicBase = (APIC_BASE.DEFAULT | APIC_BASE.EN | (isBootProcessor ? APIC_BASE.BSP : 0)) >>> 0
    this.#setXapicId(id)
    this.reset()
  }

  /** In x2APIC mode, hence enabled. */
  get x2apic(): boolean {
    return (this.#apicBase & APIC_BASE.EXTD) !== 0
  }

  /** APIC_BASE.EN: enabled by hardware. */
  get enabled(): boolean {
    return (this.#apicBase & APIC_BASE.EN) !== 0
  }

  /** SPIV bit 8: enabled by software. */
  get softwareEnabled(): boolean {
    return (this.#get(APIC_REG.SPIV) & SPIV.APIC_ENABLED) !== 0
  }

  readApicBase(): number {
    return this.#apicBase
  }

  /**
   * Modes go round: disabled, xAPIC, x2APIC, disabled. Registers keep what they hold.
   * @returns false for #GP
   * @spec APM2 "x2APIC", mode transitions
   */
  writeApicBase(value: number): boolean {
    const before = this.#apicBase
    const after = value >>> 0
    if (before === after) return true
    if ((after & APIC_BASE.RESERVED) !== 0) return false
    const on = (after & APIC_BASE.EN) !== 0
    const extended = (after & APIC_BASE.EXTD) !== 0
    if (extended && !(on && this.enabled)) return false
    if (this.x2apic && on && !extended) return false
    const wasOn = this.enabled
    const wasExtended = this.x2apic
    this.#apicBase = after
    if (on && !wasOn) this.#setXapicId(this.id)
    if (extended && !wasExtended) {
      this.#set(APIC_REG.ID, this.id)
      this.#set(APIC_REG.LDR, x2apicLdr(this.id))
    }
    if (on && !wasOn && this.highestPending() >= 0) this.#bus.raise()
    return true
  }

  /**
   * A 32-bit read of the APIC page. Without xAPIC mode there is no page, and KVM answers all ones.
   * @returns null for what is no register, which the guest reads as 0
   */
  read(register: number): number | null {
    if (!this.enabled || this.x2apic) return MMIO_HOLE
    if (isReadable(register, false)) return this.#readRegister(register)
    if (!isRegister(register, false)) this.#error(ESR.ILLEGAL_REGISTER_ADDRESS)
    return null
  }

  /** A 32-bit write to the APIC page. What is read-only stays as it is. */
  write(register: number, value: number): void {
    if (!this.enabled || this.x2apic) return
    if (isRegister(register, false)) this.#writeRegister(register, value >>> 0)
    else this.#error(ESR.ILLEGAL_REGISTER_ADDRESS)
  }

  /** RDMSR of 0x800 to 0x8ff. @returns null for #GP */
  readMsr(msr: number): U64 | null {
    if (!this.x2apic) return null
    const register = x2apicRegister(msr)
    if (!isReadable(register, true)) return null
    return { lo: this.#readRegister(register), hi: register === APIC_REG.ICR ? this.#get(APIC_REG.ICR2) : 0 }
  }

  /** WRMSR of 0x800 to 0x8ff. Reserved bits are checked where KVM checks them. @returns false for #GP */
  writeMsr(msr: number, lo: number, hi: number): boolean {
    if (!this.x2apic) return false
    const register = x2apicRegister(msr)
    if (register === APIC_REG.ICR) {
      if ((lo & X2APIC_ICR_RESERVED) !== 0) return false
      this.#sendIcr(lo, hi >>> 0)
      return true
    }
    return hi === 0 && isRegister(register, true) && this.#writeRegister(register, lo >>> 0)
  }

  /**
   * A message for this APIC arrives (__apic_accept_irq).
   * @returns false when it is dropped
   * @spec APM2 "Local APIC Handling of Interrupts"
   */
  accept(message: ApicMessage): boolean {
    if (!this.enabled) return false
    const { deliveryMode, vector, levelTriggered } = message
    const deasserts = levelTriggered && !message.assert
    switch (deliveryMode) {
      case DELIVERY_MODE.FIXED:
      case DELIVERY_MODE.LOWEST_PRIORITY:
        if (deasserts || !this.softwareEnabled) return false
        if (vector < 16) {
          this.#error(ESR.RECEIVE_ILLEGAL_VECTOR)
          return false
        }
        if (levelTriggered) setVector(this.#page, APIC_REG.TMR, vector)
        else clearVector(this.#page, APIC_REG.TMR, vector)
        this.#bus.requested?.(vector, testVector(this.#page, APIC_REG.IRR, vector))
        setVector(this.#page, APIC_REG.IRR, vector)
        break
      case DELIVERY_MODE.NMI:
        this.nmiPending = true
        break
      case DELIVERY_MODE.INIT:
        if (deasserts) return false
        this.initPending = true
        this.sipiVector = -1
        break
      case DELIVERY_MODE.STARTUP:
        this.sipiVector = vector
        break
      default:
        // SMI without SMM, ExtINT without a PIC, and what is reserved.
        return false
    }
    this.#bus.raise()
    return true
  }

  /** Whether a message is for this APIC. */
  matches(message: ApicMessage): boolean {
    return matchesDestination(
      {
        id: this.id,
        xapicId: this.#get(APIC_REG.ID) >>> 24,
        x2apic: this.x2apic,
        ldr: this.#get(APIC_REG.LDR),
        dfr: this.#get(APIC_REG.DFR)
      },
      message
    )
  }

  /** kvm_apic_has_interrupt: the highest requested vector if its class is above the processor priority, or -1. */
  highestPending(): number {
    if (!this.enabled) return -1
    const vector = highestVector(this.#page, APIC_REG.IRR)
    return vector >= 0 && (vector & 0xf0) > this.processorPriority() ? vector : -1
  }

  /** kvm_get_apic_interrupt: the highest pending vector goes into service. @returns it, or -1 */
  acknowledge(): number {
    const vector = this.highestPending()
    if (vector < 0) return -1
    clearVector(this.#page, APIC_REG.IRR, vector)
    setVector(this.#page, APIC_REG.ISR, vector)
    return vector
  }

  /** Whether a vector is requested, whatever keeps it from being taken. */
  isRequested(vector: number): boolean {
    return testVector(this.#page, APIC_REG.IRR, vector)
  }

  /**
   * Takes over from an emulation of this APIC elsewhere: its vectors, 256 bits each, join those of this one.
   * @param tpr the task priority from now on
   */
  takeOver(requested: Uint32Array, inService: Uint32Array, tpr: number): void {
    for (let word = 0; word < 8; word++) {
      this.#page[(APIC_REG.IRR >> 4) + word]! |= requested[word]!
      this.#page[(APIC_REG.ISR >> 4) + word]! |= inService[word]!
    }
    this.setTpr(tpr)
    if (this.highestPending() >= 0) this.#bus.raise()
  }

  /** The task priority, 8 bits; CR8 is its upper four. */
  setTpr(tpr: number): void {
    const before = this.processorPriority()
    this.#set(APIC_REG.TPR, tpr & 0xff)
    this.#priorityWas(before)
  }

  getTpr(): number {
    return this.#get(APIC_REG.TPR)
  }

  /** PPR: the task priority, or the class of the highest vector in service if that is higher. */
  processorPriority(): number {
    const tpr = this.getTpr()
    const inService = Math.max(0, highestVector(this.#page, APIC_REG.ISR)) & 0xf0
    return (tpr & 0xf0) >= inService ? tpr : inService
  }

  /** The bus calls at the armed time. KVM holds the expiry back until the next VM entry, which is not told apart here. */
  timerExpired(): void {
    if (this.#timer.expired()) this.localDeliver(APIC_REG.LVTT)
  }

  /** MSR TSC_DEADLINE as virtual ns; 0 disarms. Ignored unless LVTT says TSC deadline. */
  writeTscDeadline(ns: number): void {
    if (this.enabled && this.#timer.setTscDeadline(ns)) this.localDeliver(APIC_REG.LVTT)
  }

  /** The deadline that is pending, in ns, or 0. */
  readTscDeadline(): number {
    return this.enabled ? this.#timer.tscDeadline : 0
  }

  /**
   * kvm_apic_local_deliver: what an LVT entry says happens to this APIC's own processor.
   * @returns false when the entry is masked or its message is dropped
   */
  localDeliver(lvtRegister: number): boolean {
    const entry = this.#get(lvtRegister)
    if ((entry & LVT.MASKED) !== 0) return false
    return this.accept({
      destination: this.id,
      logical: false,
      shorthand: DESTINATION_SHORTHAND.SELF,
      deliveryMode: (entry & LVT.MODE) >> 8,
      vector: entry & LVT.VECTOR,
      levelTriggered: (entry & LVT.LEVEL_TRIGGERED) !== 0,
      assert: true,
      sender: this.id,
      x2apic: this.x2apic
    })
  }

  /**
   * INIT is carried out (kvm_lapic_reset): registers go to their reset state; APIC_BASE and the ID stay, and so does a
   * SIPI that followed the INIT. LINT0 of the boot processor is open for ExtINT (KVM_X86_QUIRK_LINT0_REENABLED).
   * @spec APM2 "Local APIC", reset values
   */
  reset(): void {
    const id = this.#get(APIC_REG.ID)
    this.#page.fill(0)
    this.#set(APIC_REG.ID, id)
    if (this.x2apic) this.#set(APIC_REG.LDR, x2apicLdr(this.id))
    this.#set(APIC_REG.LVR, LAPIC_VERSION)
    this.#set(APIC_REG.DFR, DFR.FLAT)
    this.#set(APIC_REG.SPIV, SPIV.VECTOR)
    this.#maskLvt()
    if (this.#isBootProcessor) this.#set(APIC_REG.LVT0, DELIVERY_MODE.EXTINT << 8)
    this.#timer.reset()
    this.#errors = 0
    this.nmiPending = false
    this.initPending = false
  }

  #readRegister(register: number): number {
    switch (register) {
      case APIC_REG.PPR:
        return this.processorPriority()
      case APIC_REG.TMICT:
        return this.#timer.initialCount
      case APIC_REG.TMCCT:
        return this.#timer.currentCount()
      case APIC_REG.TDCR:
        return this.#timer.tdcr
      default:
        return this.#get(register)
    }
  }

  /** Both modes, after the checks of each. @returns false when x2APIC mode makes it #GP */
  #writeRegister(register: number, value: number): boolean {
    const { x2apic } = this
    switch (register) {
      case APIC_REG.ID:
        if (x2apic) return false
        this.#setXapicId(value >>> 24)
        return true
      case APIC_REG.TPR:
        this.setTpr(value)
        return true
      case APIC_REG.EOI:
        this.#endOfInterrupt()
        return true
      case APIC_REG.LDR:
        if (x2apic) return false
        this.#set(APIC_REG.LDR, value & 0xff00_0000)
        return true
      case APIC_REG.DFR:
        this.#set(APIC_REG.DFR, value | 0x0fff_ffff)
        return true
      case APIC_REG.SPIV:
        this.#set(APIC_REG.SPIV, value & SPIV.WRITABLE)
        if (!this.softwareEnabled) this.#maskLvt()
        return true
      case APIC_REG.ESR:
        if (x2apic && value !== 0) return false
        this.#set(APIC_REG.ESR, this.#errors)
        this.#errors = 0
        return true
      case APIC_REG.ICR:
        this.#sendIcr(value, this.#get(APIC_REG.ICR2))
        return true
      case APIC_REG.ICR2:
        this.#set(APIC_REG.ICR2, value & 0xff00_0000)
        return true
      case APIC_REG.TMICT:
        this.#timer.setInitialCount(value)
        return true
      case APIC_REG.TDCR:
        this.#timer.setDivide(value)
        return true
      case APIC_REG.SELF_IPI:
        if ((value & ~LVT.VECTOR) !== 0) return false
        this.#send(decodeIcr((DESTINATION_SHORTHAND.SELF << 18) | value, 0, this.id, true))
        return true
      default: {
        const writable = LVT_WRITABLE.get(register)
        if (writable === undefined) return false
        this.#set(register, (this.softwareEnabled ? value : value | LVT.MASKED) & writable)
        if (register === APIC_REG.LVTT) this.#timer.setMode((value >>> 17) & 3)
        return true
      }
    }
  }

  #endOfInterrupt(): void {
    const vector = highestVector(this.#page, APIC_REG.ISR)
    if (vector < 0) return
    const before = this.processorPriority()
    clearVector(this.#page, APIC_REG.ISR, vector)
    this.#priorityWas(before)
    if (testVector(this.#page, APIC_REG.TMR, vector)) this.#bus.endOfInterrupt(vector)
  }

  /** apic_update_ppr: a lower priority may let something through. */
  #priorityWas(before: number): void {
    if (this.processorPriority() < before && this.highestPending() >= 0) this.#bus.raise()
  }

  /** KVM delivers at once, so that the delivery status never shows. */
  #sendIcr(lo: number, hi: number): void {
    const value = lo & ~ICR.BUSY
    this.#set(APIC_REG.ICR, value)
    this.#set(APIC_REG.ICR2, hi)
    this.#send(decodeIcr(value, hi, this.id, this.x2apic))
  }

  #send(message: ApicMessage): void {
    const { deliveryMode, vector } = message
    const hasVector = deliveryMode === DELIVERY_MODE.FIXED || deliveryMode === DELIVERY_MODE.LOWEST_PRIORITY
    if (hasVector && vector < 16) this.#error(ESR.SEND_ILLEGAL_VECTOR)
    this.#bus.send(message)
  }

  /** The first error since ESR was written makes an interrupt; the write arms it again. @spec APM2 "APIC Error Interrupts" */
  #error(bit: number): void {
    const first = this.#errors === 0
    this.#errors |= bit
    if (first) this.localDeliver(APIC_REG.LVTERR)
  }

  #maskLvt(): void {
    for (const register of LVT_WRITABLE.keys()) this.#set(register, this.#get(register) | LVT.MASKED)
  }

  #setXapicId(id: number): void {
    this.#set(APIC_REG.ID, (id << 24) >>> 0)
  }

  #get(register: number): number {
    return this.#page[register >> 4]!
  }

  #set(register: number, value: number): void {
    this.#page[register >> 4] = value
  }
}
