import { cli, type Program, sti } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import type { SvsmCaller } from "../SvsmCall.ts"

/** What a vCPU's code has in its hands to reach the SVSM and the host. */
export interface Hands {
  readonly svsm: SvsmCaller
  readonly ghcb: Ghcb
  /** Runs one request to either, with whatever must not come in between kept away. */
  readonly guard: <A>(request: Program<A>) => Program<A>
}

/** Nothing can come in between where the guest takes no interrupts. */
export const unguarded: Hands["guard"] = (request) => request

/**
 * With interrupts off, as Linux makes its calls and page state changes: a handler that made a call of its own would
 * overwrite this one's registers.
 * @spec Linux svsm_perform_call_protocol, __set_pages_state
 */
export function* withoutInterrupts<A>(request: Program<A>): Program<A> {
  yield cli()
  const result = yield* request
  yield sti()
  return result
}
