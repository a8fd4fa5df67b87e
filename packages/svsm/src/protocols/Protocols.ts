import { SVSM_RESULT } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import type { SvsmState } from "../State.ts"
import { memoryAcceptance } from "../services/MemoryAcceptance.ts"
import { apicProtocol } from "./Apic.ts"
import { attestationProtocol } from "./Attestation.ts"
import { coreProtocol } from "./Core.ts"
import type { Protocol } from "./Protocol.ts"
import type { SvsmRequest } from "./Request.ts"

/** What every SVSM of this model serves. Services of one's own are registered beside them: `new SvsmState([...])`. */
export const SHIPPED_PROTOCOLS: ReadonlyArray<Protocol> = [
  coreProtocol,
  attestationProtocol,
  apicProtocol,
  memoryAcceptance
]

/** Protocols by number. Throws RangeError where two have one number. */
export const protocolTable = (protocols: ReadonlyArray<Protocol>): ReadonlyMap<number, Protocol> => {
  const table = new Map<number, Protocol>()
  for (const protocol of protocols) {
    if (table.has(protocol.number)) throw new RangeError(`protocol ${protocol.number} is registered twice`)
    table.set(protocol.number, protocol)
  }
  return table
}

/** Serves a call by the protocol that it names. @spec SVSM 5 table 4 */
export const dispatch = (state: SvsmState, request: SvsmRequest): Program<number> | number =>
  state.protocols.get(request.protocol)?.serve(state, request) ?? SVSM_RESULT.UNSUPPORTED_PROTOCOL
