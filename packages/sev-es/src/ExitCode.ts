/**
 * #VMEXIT codes by AMD's names. Negative ones are the 64-bit values of the manual.
 * @spec APM2 appendix C; Linux `SVM_EXIT_*`
 */
export const EXIT = {
  READ_CR0: 0x00,
  READ_CR3: 0x03,
  READ_CR4: 0x04,
  READ_CR8: 0x08,
  WRITE_CR0: 0x10,
  WRITE_CR3: 0x13,
  WRITE_CR4: 0x14,
  WRITE_CR8: 0x18,
  READ_DR7: 0x27,
  WRITE_DR7: 0x37,
  EXCEPTION: 0x40,
  /** Exceptions by vector: #GP, and #VC where SEV_FEATURES.ReflectVC makes an automatic exit of it. */
  GP: 0x4d,
  MC: 0x52,
  VC: 0x5d,
  INTR: 0x60,
  NMI: 0x61,
  SMI: 0x62,
  INIT: 0x63,
  VINTR: 0x64,
  CR0_SEL_WRITE: 0x65,
  RDTSC: 0x6e,
  RDPMC: 0x6f,
  CPUID: 0x72,
  RSM: 0x73,
  IRET: 0x74,
  SWINT: 0x75,
  INVD: 0x76,
  PAUSE: 0x77,
  HLT: 0x78,
  INVLPG: 0x79,
  INVLPGA: 0x7a,
  IOIO: 0x7b,
  MSR: 0x7c,
  TASK_SWITCH: 0x7d,
  SHUTDOWN: 0x7f,
  VMRUN: 0x80,
  VMMCALL: 0x81,
  VMLOAD: 0x82,
  VMSAVE: 0x83,
  STGI: 0x84,
  CLGI: 0x85,
  SKINIT: 0x86,
  RDTSCP: 0x87,
  ICEBP: 0x88,
  WBINVD: 0x89,
  MONITOR: 0x8a,
  MWAIT: 0x8b,
  MWAIT_COND: 0x8c,
  XSETBV: 0x8d,
  RDPRU: 0x8e,
  EFER_WRITE_TRAP: 0x8f,
  CR0_WRITE_TRAP: 0x90,
  CR4_WRITE_TRAP: 0x94,
  CR8_WRITE_TRAP: 0x98,
  INVLPGB: 0xa0,
  INVLPGB_ILLEGAL: 0xa1,
  INVPCID: 0xa2,
  BUSLOCK: 0xa5,
  IDLE_HLT: 0xa6,
  NPF: 0x400,
  AVIC_INCOMPLETE_IPI: 0x401,
  AVIC_UNACCELERATED_ACCESS: 0x402,
  VMGEXIT: 0x403,
  PAGE_NOT_VALIDATED: 0x404,
  NOT_RESTARTABLE: 0x406,
  INVALID: -1,
  BUSY: -2,
  IDLE_REQUIRED: -3,
  INVALID_PMC: -4
} as const

const NAME_OF: ReadonlyMap<number, string> = new Map(Object.entries(EXIT).map(([name, code]) => [code, name]))

const numbered = (code: number): string | null => {
  if (code >= 0x00 && code <= 0x0f) return `READ_CR${code}`
  if (code >= 0x10 && code <= 0x1f) return `WRITE_CR${code - 0x10}`
  if (code >= 0x20 && code <= 0x2f) return `READ_DR${code - 0x20}`
  if (code >= 0x30 && code <= 0x3f) return `WRITE_DR${code - 0x30}`
  if (code >= 0x40 && code <= 0x5f) return `EXCEPTION_${code - 0x40}`
  if (code >= 0x90 && code <= 0x9f) return `CR${code - 0x90}_WRITE_TRAP`
  return null
}

/** AMD's name of an exit code, for messages and counters. */
export const exitName = (code: number): string => NAME_OF.get(code) ?? numbered(code) ?? `0x${code.toString(16)}`

/**
 * Whether an exit leaves an SEV-ES guest by itself. Every other intercepted event is #VC in the guest, which then asks
 * over the GHCB. NPF is automatic except where the nested leaf has a reserved bit set, as KVM does it for devices.
 * @spec APM2 15.35.4 table 15-35; the list follows COCONUT-SVSM's
 */
export const isAutomaticExit = (code: number): boolean =>
  code < 0 || AUTOMATIC.has(code) || (code >= 0x90 && code <= 0x9f)

const AUTOMATIC: ReadonlySet<number> = new Set([
  EXIT.MC,
  EXIT.INTR,
  EXIT.NMI,
  EXIT.SMI,
  EXIT.INIT,
  EXIT.VINTR,
  EXIT.PAUSE,
  EXIT.HLT,
  EXIT.SHUTDOWN,
  EXIT.EFER_WRITE_TRAP,
  EXIT.BUSLOCK,
  EXIT.IDLE_HLT,
  EXIT.NPF,
  EXIT.AVIC_INCOMPLETE_IPI,
  EXIT.AVIC_UNACCELERATED_ACCESS,
  EXIT.VMGEXIT
])

/**
 * EXITINFO1 of a nested page fault. Bits above 31 are given for the upper half.
 * @spec APM2 15.36.10
 */
export const NPF_INFO1 = { P: 1, W: 2, U: 4, RSVD: 8, ID: 0x10, SS: 0x40, RMP: 0x8000_0000 } as const
export const NPF_INFO1_HI = { FINAL: 1, PAGE_TABLE: 2, ENC: 4, SIZEM: 8, VMPL: 0x10, SSS: 0x20 } as const
