import { PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import type { Operation, Program } from "@vmpl-lab/vmpl"
import type { ServiceManifest } from "../ServiceManifest.ts"
import type { GuestVmsa, SvsmState } from "../State.ts"
import type { SvsmRequest } from "./Request.ts"

/** Lowest and highest version of a protocol that is served. */
export interface Versions {
  readonly MIN: number
  readonly MAX: number
}

/** A protocol of the SVSM: what RAX's upper half selects. @spec SVSM table 3 */
export interface Protocol {
  readonly number: number
  /** What QUERY_PROTOCOL says of it to this caller; null where it is not offered. */
  readonly versions: (state: SvsmState, request: SvsmRequest) => Versions | null
  /**
   * Serves a call. Registers that it returns are changed in the request.
   * @returns the result code or NO_RETURN, or the program that comes to it
   */
  readonly serve: (state: SvsmState, request: SvsmRequest) => Program<number> | number
  /** What the service behind it says of itself in reports; left out, it is in none. */
  readonly manifest?: (state: SvsmState) => ServiceManifest
  /** Serves a nested page fault of a level, brought here by a host that does not know better; then the level runs on. */
  readonly fault?: (state: SvsmState, faulted: GuestVmsa) => Program
  /** Hears of every operation of the request loop of a CPU once it has completed, as a walk of its page tables would. */
  readonly completed?: (state: SvsmState, apicId: number, operation: Operation) => void
}

/** The answer to a call number that a protocol does not have. @spec SVSM 5 table 4 */
export const unknownCall = (state: SvsmState, protocol: number): number =>
  protocol === PROTOCOL.ATTESTATION ? state.behaviour.unknownAttestationCall : SVSM_RESULT.UNSUPPORTED_CALL

/** What serves one call. */
export type CallHandler = Protocol["serve"]

/** A protocol whose calls are told by number; the others are unknown. */
export const protocolOf = (
  number: number,
  versions: Versions,
  calls: { readonly [call: number]: CallHandler }
): Protocol => ({
  number,
  versions: () => versions,
  serve: (state, request) =>
    Object.hasOwn(calls, request.call) ? calls[request.call]!(state, request) : unknownCall(state, number)
})

/** In place of a result: the caller's VMSA is gone, so that there is nobody to answer. */
export const NO_RETURN = -1
