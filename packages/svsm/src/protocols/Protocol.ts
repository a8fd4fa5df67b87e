import type { Program } from "@vmpl-lab/vmpl"
import type { SvsmState } from "../State.ts"
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
   * @returns the result code, or NO_RETURN
   */
  readonly serve: (state: SvsmState, request: SvsmRequest) => Program<number>
}

/** In place of a result: the caller's VMSA is gone, so that there is nobody to answer. */
export const NO_RETURN = -1
