/**
 * #VMEXIT codes that this model produces. Negative ones are the 64-bit values of the manual.
 * @spec APM2 appendix C
 */
export const EXIT = {
  /** Exception 29, where SEV_FEATURES.ReflectVC makes an automatic exit of it. */
  VC: 0x5d,
  INTR: 0x60,
  CPUID: 0x72,
  HLT: 0x78,
  SHUTDOWN: 0x7f,
  NPF: 0x400,
  VMGEXIT: 0x403,
  PAGE_NOT_VALIDATED: 0x404,
  INVALID: -1,
  BUSY: -2,
  IDLE_REQUIRED: -3,
  INVALID_PMC: -4
} as const

/** Name of an exit code, for traces and counters. */
export const exitName = (code: number): string => {
  for (const [name, value] of Object.entries(EXIT)) if (value === code) return name
  return `0x${code.toString(16)}`
}

/**
 * EXITINFO1 of a nested page fault. Bits above 31 are given for the upper half.
 * @spec APM2 15.36.10
 */
export const NPF_INFO1 = { P: 1, W: 2, U: 4, RSVD: 8, ID: 0x10, SS: 0x40, RMP: 0x8000_0000 } as const
export const NPF_INFO1_HI = { FINAL: 1, PAGE_TABLE: 2, ENC: 4, SIZEM: 8, VMPL: 0x10, SSS: 0x20 } as const
