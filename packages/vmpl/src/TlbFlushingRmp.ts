import { RETURN_CODE, Rmp, type RmpOptions } from "@vmpl-lab/rmp"
import type { TlbSet } from "./Tlb.ts"

/**
 * An RMP whose updates by the host flush the TLBs of all cores, as parts do that were tested: so no entry outlives the
 * ownership it was made under. What the guest changes (PVALIDATE, RMPADJUST) flushes nothing.
 * @spec APM2 15.36.15
 * @spec-silent the flush by RMPUPDATE and PSMASH; seen by Bagia et al., "A Close Look at RMP Entry Caching"
 */
export class TlbFlushingRmp extends Rmp {
  readonly #tlbs: TlbSet

  constructor(options: RmpOptions, tlbs: TlbSet) {
    super(options)
    this.#tlbs = tlbs
  }

  override rmpupdate(...operands: Parameters<Rmp["rmpupdate"]>): number {
    return this.#flushed(super.rmpupdate(...operands))
  }

  override psmash(pfn: number): number {
    return this.#flushed(super.psmash(pfn))
  }

  #flushed(code: number): number {
    if (code === RETURN_CODE.SUCCESS) this.#tlbs.flush()
    return code
  }
}
