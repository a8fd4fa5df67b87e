/**
 * GHCB MSR protocol (MSR 0xC001_0130): info code in bits [11:0], the rest by code. Values are given as halves because
 * page state change uses bits above 2^53.
 * @spec GHCB "MSR protocol"
 */
export const MSR_GHCB = 0xc001_0130

/** Info codes. */
export const GHCB_MSR = {
  SEV_INFO_RESPONSE: 0x001,
  SEV_INFO_REQUEST: 0x002,
  CPUID_REQUEST: 0x004,
  CPUID_RESPONSE: 0x005,
  AP_RESET_HOLD_REQUEST: 0x006,
  AP_RESET_HOLD_RESPONSE: 0x007,
  PREFERRED_GPA_REQUEST: 0x010,
  PREFERRED_GPA_RESPONSE: 0x011,
  REGISTER_GPA_REQUEST: 0x012,
  REGISTER_GPA_RESPONSE: 0x013,
  PSC_REQUEST: 0x014,
  PSC_RESPONSE: 0x015,
  RUN_VMPL_REQUEST: 0x016,
  RUN_VMPL_RESPONSE: 0x017,
  HV_FEATURES_REQUEST: 0x080,
  HV_FEATURES_RESPONSE: 0x081,
  TERMINATION: 0x100
} as const

/** Info code of an MSR value. */
export const msrInfo = (lo: number): number => lo & 0xfff

/** Guest frame number in [63:12] of an MSR value, for register-GPA. Exact: 52 bits. */
export const msrGfn = (lo: number, hi: number): number => hi * 0x10_0000 + (lo >>> 12)

/** Lower and upper half of "code with a GFN in [63:12]". */
export const msrWithGfnLo = (code: number, gfn: number): number => (((gfn % 0x10_0000) << 12) | code) >>> 0
export const msrWithGfnHi = (gfn: number): number => Math.floor(gfn / 0x10_0000) >>> 0

/** Page state change operations. */
export const PSC_OP = { PRIVATE: 1, SHARED: 2, PSMASH: 3, UNSMASH: 4 } as const

/** Upper half of a PSC request: operation in [55:52], GFN bits [39:20] below it. */
export const pscHi = (op: number, gfn: number): number => ((op << 20) | (Math.floor(gfn / 0x10_0000) & 0xf_ffff)) >>> 0
export const pscOp = (hi: number): number => (hi >>> 20) & 0xf
export const pscGfn = (lo: number, hi: number): number => (hi & 0xf_ffff) * 0x10_0000 + (lo >>> 12)

/** SEV information: [63:48] maximum version, [47:32] minimum version, [31:24] C-bit position. */
export const sevInfoLo = (cbit: number): number => ((cbit << 24) | GHCB_MSR.SEV_INFO_RESPONSE) >>> 0
export const sevInfoHi = (max: number, min: number): number => ((max << 16) | min) >>> 0

/** Termination: reason set in [15:12], reason in [23:16]. */
export const terminationLo = (set: number, reason: number): number =>
  (((reason & 0xff) << 16) | ((set & 0xf) << 12) | GHCB_MSR.TERMINATION) >>> 0

/** Termination reasons of set 0 and of Linux' set 1. */
export const TERMINATE = {
  GENERAL: { set: 0, reason: 0 },
  PROTOCOL_UNSUPPORTED: { set: 0, reason: 1 },
  SNP_UNSUPPORTED: { set: 0, reason: 2 },
  REGISTER_FAILED: { set: 1, reason: 0 },
  PSC: { set: 1, reason: 1 },
  PVALIDATE: { set: 1, reason: 2 },
  NOT_VMPL0: { set: 1, reason: 3 },
  CPUID: { set: 1, reason: 4 },
  CPUID_HV: { set: 1, reason: 5 },
  SECRETS_PAGE: { set: 1, reason: 6 },
  NO_SVSM: { set: 1, reason: 7 },
  SVSM_VMPL0: { set: 1, reason: 8 },
  SVSM_CAA: { set: 1, reason: 9 },
  SECURE_TSC: { set: 1, reason: 10 },
  CA_REMAP: { set: 1, reason: 11 }
} as const
