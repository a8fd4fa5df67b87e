import type { U64 } from "@vmpl-lab/sev-es"
import type { ApicMessage } from "./ApicMessage.ts"

/**
 * Offsets in the page of the local APIC. ISR, TMR and IRR are eight registers each, 16 bytes apart.
 * @spec APM2 "Local APIC", "APIC Registers"
 */
export const APIC_REG = {
  ID: 0x20,
  LVR: 0x30,
  TPR: 0x80,
  /** Arbitration priority: reads 0. */
  APR: 0x90,
  PPR: 0xa0,
  EOI: 0xb0,
  LDR: 0xd0,
  DFR: 0xe0,
  SPIV: 0xf0,
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ESR: 0x280,
  ICR: 0x300,
  ICR2: 0x310,
  LVTT: 0x320,
  LVTTHMR: 0x330,
  LVTPC: 0x340,
  LVT0: 0x350,
  LVT1: 0x360,
  LVTERR: 0x370,
  TMICT: 0x380,
  TMCCT: 0x390,
  TDCR: 0x3e0,
  /** x2APIC only. */
  SELF_IPI: 0x3f0
} as const

/** First of the MSRs that x2APIC mode has for the registers. */
export const X2APIC_MSR_BASE = 0x800

/** The MSR of a register in x2APIC mode. @spec APM2 "x2APIC Registers" */
export const x2apicMsr = (reg: number): number => X2APIC_MSR_BASE + (reg >> 4)

/** The register of an MSR from 0x800 on. */
export const x2apicRegister = (msr: number): number => (msr - X2APIC_MSR_BASE) * 16

export const DELIVERY_MODE = {
  FIXED: 0,
  LOWEST_PRIORITY: 1,
  SMI: 2,
  NMI: 4,
  INIT: 5,
  STARTUP: 6,
  EXTINT: 7
} as const

/** ICR[19:18]. */
export const DESTINATION_SHORTHAND = { NONE: 0, SELF: 1, ALL_INCLUDING_SELF: 2, ALL_EXCLUDING_SELF: 3 } as const

/** Destinations that mean every APIC. */
export const APIC_BROADCAST = 0xff
export const X2APIC_BROADCAST = 0xffff_ffff

/** Bits of ICR. */
export const ICR = { LOGICAL: 1 << 11, BUSY: 1 << 12, ASSERT: 1 << 14, LEVEL_TRIGGERED: 1 << 15 } as const

/** Bits of ICR[31:0] that must be zero in x2APIC mode: 31:20, 17:16, 13. KVM drops BUSY by itself. */
export const X2APIC_ICR_RESERVED = 0xfff3_2000

/** Bits of SPIV. */
export const SPIV = { VECTOR: 0xff, APIC_ENABLED: 1 << 8, WRITABLE: 0x3ff } as const

/** Bits of the LVT entries. */
export const LVT = { VECTOR: 0xff, MODE: 0x700, LEVEL_TRIGGERED: 1 << 15, MASKED: 1 << 16 } as const

/** LVTT[18:17]. The fourth mode is reserved: nothing counts in it. */
export const TIMER_MODE = { ONE_SHOT: 0, PERIODIC: 1, TSC_DEADLINE: 2 } as const

/** Bits of ESR. KVM's ESR stays zero; these are the ones that a guest can bring about without a bus in between. */
export const ESR = { SEND_ILLEGAL_VECTOR: 0x20, RECEIVE_ILLEGAL_VECTOR: 0x40, ILLEGAL_REGISTER_ADDRESS: 0x80 } as const

/** MSR APIC_BASE (0x1b), lower half. Bits 7:0 and 9 are reserved. @spec APM2 "APIC Base Address Register" */
export const APIC_BASE = { BSP: 1 << 8, EXTD: 1 << 10, EN: 1 << 11, RESERVED: 0x2ff, DEFAULT: 0xfee0_0000 } as const

/** DFR values; other models match no logical destination. */
export const DFR = { FLAT: 0xffff_ffff, CLUSTER: 0x0fff_ffff } as const

/** The logical destination that x2APIC mode derives from the APIC ID. @spec APM2 "x2APIC", logical destination */
export const x2apicLdr = (id: number): number => (((id >>> 4) << 16) | (1 << (id & 0xf))) >>> 0

/** An ICR value (ICR2 and ICR in xAPIC mode, the 64-bit MSR in x2APIC mode) as the message it sends. */
export const decodeIcr = (lo: number, hi: number, sender: number, x2apic: boolean): ApicMessage => ({
  destination: x2apic ? hi >>> 0 : hi >>> 24,
  logical: (lo & ICR.LOGICAL) !== 0,
  shorthand: ((lo >>> 18) & 3) as ApicMessage["shorthand"],
  deliveryMode: (lo >>> 8) & 7,
  vector: lo & 0xff,
  levelTriggered: (lo & ICR.LEVEL_TRIGGERED) !== 0,
  assert: (lo & ICR.ASSERT) !== 0,
  sender,
  x2apic
})

/** The ICR value that sends a message; the sender is the APIC that it is written to. */
export const encodeIcr = (message: ApicMessage): U64 => ({
  lo:
    ((message.vector & 0xff) |
      ((message.deliveryMode & 7) << 8) |
      (message.logical ? ICR.LOGICAL : 0) |
      (message.assert ? ICR.ASSERT : 0) |
      (message.levelTriggered ? ICR.LEVEL_TRIGGERED : 0) |
      (message.shorthand << 18)) >>>
    0,
  hi: (message.x2apic ? message.destination : message.destination << 24) >>> 0
})
