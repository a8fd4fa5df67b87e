import { PAGE_SIZE, toNumber, VMSA } from "@vmpl-lab/sev-es"
import { type Program, readRegister } from "@vmpl-lab/vmpl"
import { SVSM_RESULT, type SvsmCaller } from "./SvsmCall.ts"

/** The memory acceptance protocol, this project's own: one call for a range of memory. */
export const ACCEPTANCE = {
  PROTOCOL: 0x4000_0100,
  /**
   * RCX: where the range begins; RDX: how many units; R8: size of the units, 0: 4 KiB, 1: 2 MiB. What remains is in RCX
   * and RDX afterwards.
   */
  CALL: { ACCEPT: 0 },
  /** The host has refused the page state change. */
  PAGE_STATE_FAILED: SVSM_RESULT.FAIL_BASE + 0x12
} as const

/** Memory in units of 4 KiB or 2 MiB, aligned to them. */
export interface AcceptedRange {
  readonly gpa: number
  readonly units: number
  readonly is2m: boolean
}

/** Has the SVSM accept a range, with as many calls as it wants for that. @returns the last one's result */
export function* acceptRange(
  call: (rcx: number, rdx: number, r8: number) => Program<number>,
  { gpa, units, is2m }: AcceptedRange
): Program<number> {
  let next = gpa
  let left = units
  for (;;) {
    const result = yield* call(next, left, is2m ? 1 : 0)
    if (result !== SVSM_RESULT.INCOMPLETE && result !== SVSM_RESULT.BUSY) return result
    next = yield* register(VMSA.rcx)
    left = yield* register(VMSA.rdx)
  }
}

function* register(offset: number): Program<number> {
  const { lo, hi } = yield readRegister(offset)
  return toNumber(lo, hi)
}

/** One call of the protocol. */
export const acceptCall =
  (svsm: SvsmCaller) =>
  (rcx: number, rdx: number, r8: number): Program<number> =>
    svsm.once(ACCEPTANCE.PROTOCOL, ACCEPTANCE.CALL.ACCEPT, { rcx, rdx, r8 })

/** Bytes of a unit. */
export const unitBytes = (is2m: boolean): number => (is2m ? 512 : 1) * PAGE_SIZE
