import { CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import type { SvsmState } from "../State.ts"
import { createVcpu } from "./CoreCreateVcpu.ts"
import { pvalidateCall } from "./CorePvalidate.ts"
import { remapCa } from "./CoreRemapCa.ts"
import type { SvsmRequest } from "./Request.ts"

/** Versions of the core protocol that are served. */
const CORE_VERSION = { MIN: 1, MAX: 1 } as const

/** Core protocol, by call number. Calls that are not served yet answer UNSUPPORTED_CALL. @spec SVSM 6 table 5 */
export function* core(state: SvsmState, request: SvsmRequest): Program<number> {
  switch (request.call) {
    case CORE_CALL.REMAP_CA:
      return yield* remapCa(state, request)
    case CORE_CALL.PVALIDATE:
      return yield* pvalidateCall(state, request)
    case CORE_CALL.CREATE_VCPU:
      return yield* createVcpu(state, request)
    case CORE_CALL.QUERY_PROTOCOL:
      return queryProtocol(request)
    default:
      return SVSM_RESULT.UNSUPPORTED_CALL
  }
}

/** RCX = protocol and version in, highest and lowest version out; 0 for what is not offered. @spec SVSM 6.7 */
const queryProtocol = (request: SvsmRequest): number => {
  const offered =
    request.rcxHi === PROTOCOL.CORE && request.rcxLo >= CORE_VERSION.MIN && request.rcxLo <= CORE_VERSION.MAX
  request.rcxHi = offered ? CORE_VERSION.MAX : 0
  request.rcxLo = offered ? CORE_VERSION.MIN : 0
  return SVSM_RESULT.SUCCESS
}
