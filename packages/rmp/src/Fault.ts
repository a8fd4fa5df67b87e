// @section 3.4
/**
 * Faults as integers from 0x100 on, so that one number is either a return code in EAX (plus CARRY) or a fault. The low
 * group is the kind; RMP, SIZEM, VMPL and SSS are bits 31, 35, 36 and 37 of EXITINFO1 (RMP: bit 31 of a #PF error code).
 * @spec APM2 15.36.10
 */
export const FAULT = {
  NONE: 0,
  /** #VMEXIT(NPF), exit code 0x400. */
  NPF: 0x100,
  /** #PF in the accessor itself. */
  PF: 0x200,
  /** #VC with error code 0x404, PAGE_NOT_VALIDATED. */
  VC_NOT_VALIDATED: 0x400,
  /** #GP(0). */
  GP: 0x800,
  RMP: 0x1000,
  SIZEM: 0x2000,
  VMPL: 0x4000,
  SSS: 0x8000,
  UD: 0x10000
} as const

/** Nested page fault by a failed RMP check. */
export const NPF_RMP = 0x1100

/** Nested page fault: the instruction's operand is smaller than the RMP page. */
export const NPF_SIZEM = 0x3100

/** Nested page fault by a failed VMPL check. */
export const NPF_VMPL = 0x5100

/** Host page fault by a failed RMP check. */
export const PF_RMP = 0x1200

/** Whether a number returned by a check or an instruction is a fault; otherwise it is EAX with CARRY. */
export const isFault = (code: number): boolean => code >= 0x100

/** `#NPF`, `#PF`, `#VC`, `#GP` or `#UD`; the empty string where there is no fault. */
export const faultName = (code: number): string => {
  if ((code & FAULT.NPF) !== 0) return "#NPF"
  if ((code & FAULT.PF) !== 0) return "#PF"
  if ((code & FAULT.VC_NOT_VALIDATED) !== 0) return "#VC"
  if ((code & FAULT.GP) !== 0) return "#GP"
  return (code & FAULT.UD) !== 0 ? "#UD" : ""
}

export type FaultBit = "RMP" | "SIZEM" | "VMPL" | "SSS"

const BITS: ReadonlyArray<FaultBit> = ["RMP", "SIZEM", "VMPL", "SSS"]

/** Names of the bits set because of the RMP, lowest first. */
export const faultBits = (code: number): ReadonlyArray<FaultBit> => BITS.filter((name) => (code & FAULT[name]) !== 0)
