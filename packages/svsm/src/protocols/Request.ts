import { SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { GuestVmsa } from "../State.ts"

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

/** Result of a failed PVALIDATE or RMPADJUST: 0x8000_1000 + EAX; EAX above 15 is out of range. @spec SVSM 6.2 */
export const instructionResult = (eax: number): number => SVSM_RESULT.FAIL_BASE + (eax <= 0xf ? eax : 0x11)

/** Result of a PVALIDATE that changed nothing. */
export const RESULT_UNCHANGED = SVSM_RESULT.FAIL_BASE + 0x10

/** No memory is here: the first address beyond physical ones. */
const BEYOND_MEMORY = 0x10_0000 * 0x1_0000_0000

/** A GPA argument. One that does not fit into 52 bits becomes an address where no memory is, as well aligned as it. */
export const gpaOf = (lo: number, hi: number): number =>
  hi < 0x10_0000 ? hi * 0x1_0000_0000 + lo : BEYOND_MEMORY + (lo % PAGE_SIZE)
