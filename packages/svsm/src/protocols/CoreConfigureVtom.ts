import { SVSM_RESULT } from "@vmpl-lab/guest"
import type { SvsmState } from "../State.ts"
import type { SvsmRequest } from "./Request.ts"

/** RCX of CONFIGURE_VTOM. @spec SVSM 6.8 table 9 */
const VTOM = { QUERY: 1, RESERVED: 0xff0 } as const

/**
 * CONFIGURE_VTOM. A guest under virtual top of memory names shared pages by addresses above it, which KVM does not
 * serve; so the query says that it is not supported, and to configure it cannot be done.
 * @spec SVSM 6.8
 */
export const configureVtom = (state: SvsmState, request: SvsmRequest): number => {
  const { rcxLo, rcxHi } = request
  const { checksVtomBits } = state.behaviour
  if ((rcxLo & VTOM.QUERY) !== 0) {
    if (checksVtomBits && (rcxHi !== 0 || rcxLo !== VTOM.QUERY)) return SVSM_RESULT.INVALID_PARAMETER
    request.rcxLo = 0
    request.rcxHi = 0
    return SVSM_RESULT.SUCCESS
  }
  if (checksVtomBits && (rcxLo & VTOM.RESERVED) !== 0) return SVSM_RESULT.INVALID_PARAMETER
  return SVSM_RESULT.INVALID_REQUEST
}
