import { SVSM_RESULT } from "@vmpl-lab/guest"
import { RETURN_CODE } from "@vmpl-lab/rmp"
import { hi32, lo32, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { COCONUT_PANIC } from "../CoconutPanic.ts"
import type { GuestVmsa, SvsmState } from "../State.ts"

/** A call as read from the guest's VMSA; the handler changes the registers it returns. */
export interface SvsmRequest {
  readonly protocol: number
  readonly call: number
  rcxLo: number
  rcxHi: number
  rdxLo: number
  rdxHi: number
  r8Lo: number
  r8Hi: number
  /** SEV_FEATURES of the calling VMSA. */
  readonly sevFeatures: number
  /** VMPL of the caller. */
  readonly vmpl: number
  readonly caller: GuestVmsa
}

/** One of a request's registers, to be returned: an integer below 2^53. */
export const setRegister = (request: SvsmRequest, name: "rcx" | "rdx" | "r8", value: number): void => {
  request[`${name}Lo`] = lo32(value)
  request[`${name}Hi`] = hi32(value)
}

/** Highest EAX that has a result of its own. */
const HIGHEST_STATUS = 0xf

/** What each instruction may leave in EAX as COCONUT-SVSM knows it. */
const { FAIL_INPUT, FAIL_PERMISSION, FAIL_SIZEMISMATCH } = RETURN_CODE
export const KNOWN_STATUS = {
  PVALIDATE: new Set<number>([FAIL_INPUT, FAIL_SIZEMISMATCH]),
  RMPADJUST: new Set<number>([FAIL_INPUT, FAIL_PERMISSION, FAIL_SIZEMISMATCH])
} as const

/**
 * Result of a failed PVALIDATE or RMPADJUST: 0x8000_1000 + EAX; EAX above 15 is out of range.
 * @spec SVSM 6.2
 */
export const instructionResult = (state: SvsmState, eax: number, known: ReadonlySet<number>): number => {
  if (!known.has(eax)) state.wouldPanic(COCONUT_PANIC.INSTRUCTION_STATUS)
  return SVSM_RESULT.FAIL_BASE + (eax <= HIGHEST_STATUS ? eax : 0x11)
}

/** Result of a PVALIDATE that changed nothing. */
export const RESULT_UNCHANGED = SVSM_RESULT.FAIL_BASE + 0x10

/** No memory is here: the first address beyond physical ones. */
const BEYOND_MEMORY = 0x10_0000 * 0x1_0000_0000

/** A GPA argument. One that does not fit into 52 bits becomes an address where no memory is, as well aligned as it. */
export const gpaOf = (lo: number, hi: number): number =>
  hi < 0x10_0000 ? hi * 0x1_0000_0000 + lo : BEYOND_MEMORY + (lo % PAGE_SIZE)
