// @section 4.2
import { MSR_GHCB } from "./GhcbMsr.ts"
import type { U64 } from "./U64.ts"

/** Model-specific registers of SEV. @spec APM2 15.34 to 15.36 */
export const MSR = {
  TSC: 0x10,
  APIC_BASE: 0x1b,
  MTRRCAP: 0xfe,
  MISC_ENABLE: 0x1a0,
  PAT: 0x277,
  TSC_DEADLINE: 0x6e0,
  X2APIC_FIRST: 0x800,
  X2APIC_LAST: 0x8ff,
  XSS: 0xda0,
  EFER: 0xc000_0080,
  TSC_AUX: 0xc000_0103,
  SYSCFG: 0xc001_0010,
  VM_HSAVE_PA: 0xc001_0117,
  VMPAGE_FLUSH: 0xc001_011e,
  GHCB: MSR_GHCB,
  SEV_STATUS: 0xc001_0131,
  RMP_BASE: 0xc001_0132,
  RMP_END: 0xc001_0133,
  GUEST_TSC_FREQ: 0xc001_0134,
  VIRTUAL_TOM: 0xc001_0135,
  RMP_CFG: 0xc001_0136,
  SECURE_AVIC_CONTROL: 0xc001_0138,
  RMPOPT_BASE: 0xc001_0139,
  SVSM_CAA: 0xc001_f000
} as const

/** SYSCFG. @spec APM2 15.36.2 */
export const SYSCFG = {
  MtrrFixDramModEn: 1 << 19,
  MemEncryptionModEn: 1 << 23,
  SecureNestedPagingEn: 1 << 24,
  VMPLEn: 1 << 25
} as const

/** SEV_STATUS: bits 0 and 1 say SEV and SEV-ES, from bit 2 on stand the bits of SEV_FEATURES. */
const SEV_AND_SEV_ES = 3

/** SEV_STATUS (read-only) of an SEV-ES guest whose VMSA has these SEV_FEATURES, as halves. @spec APM2 15.34 */
export const sevStatus = (featuresLo: number, featuresHi: number): U64 => ({
  lo: ((featuresLo << 2) | SEV_AND_SEV_ES) >>> 0,
  hi: ((featuresHi << 2) | (featuresLo >>> 30)) >>> 0
})
