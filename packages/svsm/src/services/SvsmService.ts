import { SVSM_RESULT } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import type { SvsmRequest } from "../protocols/Request.ts"
import type { SvsmState } from "../State.ts"

/** A protocol that an SVSM may have or not. */
export interface SvsmService {
  readonly number: number
  /** Lowest and highest version, as QUERY_PROTOCOL tells them. */
  readonly versions: () => { readonly MIN: number; readonly MAX: number }
  /** Serves one call; the registers it returns are those of the request. @returns the result code */
  readonly serve: (state: SvsmState, request: SvsmRequest) => Program<number>
}

/** A call of a protocol that is not one of the SVSM's own. */
export function* serveService(state: SvsmState, request: SvsmRequest): Program<number> {
  const service = state.services.find(({ number }) => number === request.protocol)
  return service === undefined ? SVSM_RESULT.UNSUPPORTED_PROTOCOL : yield* service.serve(state, request)
}
