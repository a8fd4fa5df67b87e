import { CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import type { SvsmState } from "../State.ts"
import type { SvsmService } from "../services/SvsmService.ts"
import { APIC_VERSION, guestApicOf } from "./Apic.ts"
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
      return queryProtocol(state, request)
    default:
      return SVSM_RESULT.UNSUPPORTED_CALL
  }
}

/** RCX = protocol and version in, highest and lowest version out; 0 for what is not offered. @spec SVSM 6.7 */
const queryProtocol = (state: SvsmState, request: SvsmRequest): number => {
  const versions = versionsOf(state, request)
  const offered = versions !== null && request.rcxLo >= versions.MIN && request.rcxLo <= versions.MAX
  request.rcxHi = offered ? versions.MAX : 0
  request.rcxLo = offered ? versions.MIN : 0
  return SVSM_RESULT.SUCCESS
}

const versionsOf = (state: SvsmState, { rcxHi, caller }: SvsmRequest): ReturnType<SvsmService["versions"]> | null => {
  if (rcxHi === PROTOCOL.CORE) return CORE_VERSION
  if (rcxHi === PROTOCOL.APIC) return guestApicOf(state, caller.apicId) === null ? null : APIC_VERSION
  return state.services.find(({ number }) => number === rcxHi)?.versions() ?? null
}
