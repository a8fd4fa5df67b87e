// @section 2.1
/**
 * What the RMP instructions leave in EAX.
 * @spec APM3 RMPUPDATE, PVALIDATE, RMPADJUST, PSMASH
 */
export const RETURN_CODE = {
  SUCCESS: 0,
  FAIL_INPUT: 1,
  FAIL_PERMISSION: 2,
  FAIL_INUSE: 3,
  FAIL_OVERLAP: 4,
  FAIL_SIZEMISMATCH: 6,
  /** PSMASH of a page that is no 2 MiB entry; switch U4 makes it 4. */
  FAIL_BADADDR: 7
} as const

/** rFLAGS.CF in the number an instruction returns: PVALIDATE succeeded and changed nothing. */
export const CARRY = 0x80

/** EAX of a number that is not a fault. */
export const eaxOf = (code: number): number => code & 0x7f

/** rFLAGS.CF of a number that is not a fault, 0 or 1. */
export const carryOf = (code: number): 0 | 1 => ((code & CARRY) === 0 ? 0 : 1)

/** Name of a return code, for traces; `4` is FAIL_OVERLAP whichever instruction gave it. */
export const returnCodeName = (eax: number): string => {
  for (const [name, value] of Object.entries(RETURN_CODE)) if (value === eax) return name
  return `0x${eax.toString(16)}`
}
