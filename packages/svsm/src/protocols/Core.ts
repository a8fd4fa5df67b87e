import { CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import type { SvsmState } from "../State.ts"
import { configureVtom } from "./CoreConfigureVtom.ts"
import { createVcpu } from "./CoreCreateVcpu.ts"
import { deleteVcpu } from "./CoreDeleteVcpu.ts"
import { depositMemory, withdrawMemory } from "./CoreMemory.ts"
import { pvalidateCall } from "./CorePvalidate.ts"
import { remapCa } from "./CoreRemapCa.ts"
import type { Protocol } from "./Protocol.ts"
import type { SvsmRequest } from "./Request.ts"

/** Core protocol, by call number. @spec SVSM 6 table 5 */
export function* core(state: SvsmState, request: SvsmRequest): Program<number> {
  switch (request.call) {
    case CORE_CALL.REMAP_CA:
      return yield* remapCa(state, request)
    case CORE_CALL.PVALIDATE:
      return yield* pvalidateCall(state, request)
    case CORE_CALL.CREATE_VCPU:
      return yield* createVcpu(state, request)
    case CORE_CALL.DELETE_VCPU:
      return yield* deleteVcpu(state, request)
    case CORE_CALL.DEPOSIT_MEM:
      return state.behaviour.exchangesMemory ? yield* depositMemory(state, request) : SVSM_RESULT.UNSUPPORTED_CALL
    case CORE_CALL.WITHDRAW_MEM:
      return state.behaviour.exchangesMemory ? yield* withdrawMemory(state, request) : SVSM_RESULT.UNSUPPORTED_CALL
    case CORE_CALL.QUERY_PROTOCOL:
      return queryProtocol(state, request)
    case CORE_CALL.CONFIGURE_VTOM:
      return configureVtom(state, request)
    default:
      return SVSM_RESULT.UNSUPPORTED_CALL
  }
}

/** The core protocol, version 1. */
export const coreProtocol: Protocol = { number: PROTOCOL.CORE, versions: () => ({ MIN: 1, MAX: 1 }), serve: core }

/** RCX = protocol and version in, highest and lowest version out; 0 for what is not offered. @spec SVSM 6.7 */
const queryProtocol = (state: SvsmState, request: SvsmRequest): number => {
  const versions = state.protocols.get(request.rcxHi)?.versions(state, request) ?? null
  const offered = versions !== null && request.rcxLo >= versions.MIN && request.rcxLo <= versions.MAX
  request.rcxHi = offered ? versions.MAX : 0
  request.rcxLo = offered ? versions.MIN : 0
  return SVSM_RESULT.SUCCESS
}
