// @ghcb 0x80000003
import type { Idt, Program } from "@vmpl-lab/vmpl"
import { type HvContext, makeHvHandler } from "./HvHandler.ts"
import { keepingGhcbMsr } from "./MsrProtocol.ts"
import { makeVcHandler, type VcContext } from "./VcHandler.ts"

/** What the guest does about each event; one without a function is not in the table. */
export interface GuestIdtContext {
  readonly vc: VcContext
  readonly onNmi?: () => Program
  /** External interrupts, also those that come by the doorbell. */
  readonly onInterrupt?: (vector: number) => Program
  /** Restricted injection: where the doorbell is, and what the guest does about the rest of what it brings. */
  readonly hv?: Pick<HvContext, "doorbell" | "accepts" | "onMachineCheck">
  readonly stack?: number
}

/**
 * The IDT of a guest with a GHCB. An event may come between a write of the GHCB MSR and its VMGEXIT: its handler finds
 * the MSR pointing at the page, and leaves what was there.
 */
export const guestIdt = ({ vc, onNmi, onInterrupt, hv, stack }: GuestIdtContext): Idt => {
  const { ghcb } = vc
  const guarded = (body: () => Program): Program =>
    keepingGhcbMsr(
      (function* () {
        yield* ghcb.use()
        yield* body()
      })()
    )
  const nmi = function* (): Program {
    if (onNmi !== undefined) yield* onNmi()
    yield* ghcb.nmiComplete()
  }
  const interrupt = function* (vector: number): Program {
    if (onInterrupt !== undefined) yield* onInterrupt(vector)
  }
  return {
    vc: makeVcHandler(vc),
    ...(onNmi === undefined ? {} : { nmi: () => guarded(nmi) }),
    ...(onInterrupt === undefined ? {} : { interrupt: (vector: number) => guarded(() => interrupt(vector)) }),
    ...(hv === undefined
      ? {}
      : { hv: guardedHandler(guarded, makeHvHandler({ ...hv, onVector: interrupt, onNmi: nmi })) }),
    ...(stack === undefined ? {} : { stack })
  }
}

const guardedHandler =
  (guarded: (body: () => Program) => Program, handler: () => Program): (() => Program) =>
  () =>
    guarded(handler)
