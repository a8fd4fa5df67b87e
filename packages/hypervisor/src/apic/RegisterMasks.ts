import { APIC_REG } from "./LapicRegisters.ts"

const LVT_MASK = 0x0001_10ff
const LVT_MODE = 0x0000_0700
const LINT_MASK = LVT_MASK | LVT_MODE | 0xe000
const TIMER_MODE_MASK = 3 << 17

/** Bits of each LVT entry that KVM stores (apic_lvt_mask). */
export const LVT_WRITABLE: ReadonlyMap<number, number> = new Map([
  [APIC_REG.LVTT, LVT_MASK | TIMER_MODE_MASK],
  [APIC_REG.LVTTHMR, LVT_MASK | LVT_MODE],
  [APIC_REG.LVTPC, LVT_MASK | LVT_MODE],
  [APIC_REG.LVT0, LINT_MASK],
  [APIC_REG.LVT1, LINT_MASK],
  [APIC_REG.LVTERR, LVT_MASK]
])

const eight = (base: number): ReadonlyArray<number> => Array.from({ length: 8 }, (_, i) => base + i * 0x10)

const COMMON_READABLE = [
  APIC_REG.ID,
  APIC_REG.LVR,
  APIC_REG.TPR,
  APIC_REG.PPR,
  APIC_REG.LDR,
  APIC_REG.SPIV,
  ...eight(APIC_REG.ISR),
  ...eight(APIC_REG.TMR),
  ...eight(APIC_REG.IRR),
  APIC_REG.ESR,
  APIC_REG.ICR,
  ...LVT_WRITABLE.keys(),
  APIC_REG.TMICT,
  APIC_REG.TMCCT,
  APIC_REG.TDCR
]

const XAPIC_READABLE: ReadonlySet<number> = new Set([...COMMON_READABLE, APIC_REG.APR, APIC_REG.DFR, APIC_REG.ICR2])
const X2APIC_READABLE: ReadonlySet<number> = new Set(COMMON_READABLE)

/** True for registers that can be read in a mode (kvm_lapic_readable_reg_mask). */
export const isReadable = (register: number, x2apic: boolean): boolean =>
  (x2apic ? X2APIC_READABLE : XAPIC_READABLE).has(register)

/** True for registers that exist in a mode: EOI can only be written, and so can SELF_IPI, which is x2APIC's. */
export const isRegister = (register: number, x2apic: boolean): boolean =>
  isReadable(register, x2apic) || register === APIC_REG.EOI || (x2apic && register === APIC_REG.SELF_IPI)
