/**
 * Where an intercept stands in the VMCB: word (0 CR, 1 DR, 2 exceptions, 3 to 5 the others) and bit. A number is
 * 32 * word + bit, as Linux numbers them.
 * @spec APM2 appendix B table B-1; Linux `enum` of intercepts
 */
export const INTERCEPT = {
  CR0_READ: 0,
  CR3_READ: 3,
  CR4_READ: 4,
  CR8_READ: 8,
  CR0_WRITE: 16,
  CR3_WRITE: 16 + 3,
  CR4_WRITE: 16 + 4,
  CR8_WRITE: 16 + 8,
  DR0_READ: 32,
  DR7_READ: 32 + 7,
  DR0_WRITE: 48,
  DR7_WRITE: 48 + 7,
  EXCEPTION: 64,
  INTR: 96,
  NMI: 97,
  SMI: 98,
  INIT: 99,
  VINTR: 100,
  SELECTIVE_CR0: 101,
  STORE_IDTR: 102,
  STORE_GDTR: 103,
  STORE_LDTR: 104,
  STORE_TR: 105,
  LOAD_IDTR: 106,
  LOAD_GDTR: 107,
  LOAD_LDTR: 108,
  LOAD_TR: 109,
  RDTSC: 110,
  RDPMC: 111,
  PUSHF: 112,
  POPF: 113,
  CPUID: 114,
  RSM: 115,
  IRET: 116,
  INTN: 117,
  INVD: 118,
  PAUSE: 119,
  HLT: 120,
  INVLPG: 121,
  INVLPGA: 122,
  IOIO_PROT: 123,
  MSR_PROT: 124,
  TASK_SWITCH: 125,
  FERR_FREEZE: 126,
  SHUTDOWN: 127,
  VMRUN: 128,
  VMMCALL: 129,
  VMLOAD: 130,
  VMSAVE: 131,
  STGI: 132,
  CLGI: 133,
  SKINIT: 134,
  RDTSCP: 135,
  ICEBP: 136,
  WBINVD: 137,
  MONITOR: 138,
  MWAIT: 139,
  MWAIT_COND: 140,
  XSETBV: 141,
  RDPRU: 142,
  EFER_WRITE: 143,
  CR0_WRITE_TRAP: 144,
  CR4_WRITE_TRAP: 148,
  CR8_WRITE_TRAP: 152,
  INVLPGB: 160,
  INVLPGB_ILLEGAL: 161,
  INVPCID: 162,
  MCOMMIT: 163,
  TLBSYNC: 164,
  BUSLOCK: 165,
  IDLE_HLT: 166
} as const

/** 32-bit intercept words in the VMCB, from offset 0 on. */
export const INTERCEPT_WORDS = 6

/** Whether an intercept is set in the words of a VMCB. */
export const intercepts = (words: Int32Array, intercept: number): boolean =>
  ((words[intercept >> 5]! >>> (intercept & 31)) & 1) !== 0

/** Sets or clears an intercept. */
export const setIntercept = (words: Int32Array, intercept: number, on: boolean): void => {
  const bit = 1 << (intercept & 31)
  words[intercept >> 5] = on ? words[intercept >> 5]! | bit : words[intercept >> 5]! & ~bit
}
