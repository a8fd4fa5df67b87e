// @ghcb 0x80000014, 0x80000015, 0x8000001a, 0x8000001b, 0x8000001c, 0x8000001d
import { HV_DOORBELL, NAE, NO_DOORBELL, SECURE_AVIC, type U64, u64 } from "@vmpl-lab/sev-es"
import type { Program } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import { type EventFields, type Outcome, vmmError } from "./Exchange.ts"
import { pageOf } from "./Processors.ts"

function* plain(ghcb: Ghcb, code: number, fields: EventFields): Program<Outcome<null>> {
  const reply = yield* ghcb.request(code, fields)
  return reply.ok ? { ok: true, value: null } : reply
}

/** The page that info2 names; null where it is all ones. */
function* doorbellPage(ghcb: Ghcb, operation: number, gpa: number): Program<Outcome<number | null>> {
  const fields = { info1: u64(operation), info2: u64(gpa) }
  const reply = yield* ghcb.request(NAE.HV_DOORBELL_PAGE, fields, ["info2"])
  if (!reply.ok) return reply
  const { info2 } = reply.value
  if (info2.lo === NO_DOORBELL && info2.hi === NO_DOORBELL) return { ok: true, value: null }
  const page = pageOf(info2)
  return page === null ? vmmError : { ok: true, value: page }
}

/** #HV doorbell page, event 0x80000014: where the hypervisor would like it; null when it does not mind. */
export const preferredDoorbell = (ghcb: Ghcb): Program<Outcome<number | null>> =>
  doorbellPage(ghcb, HV_DOORBELL.GET_PREFERRED, 0)

/** #HV doorbell page, event 0x80000014: where it is now; null for nowhere. */
export const queryDoorbell = (ghcb: Ghcb): Program<Outcome<number | null>> => doorbellPage(ghcb, HV_DOORBELL.QUERY, 0)

/** #HV doorbell page, event 0x80000014: puts it there. The hypervisor must say the same address. */
export function* setDoorbell(ghcb: Ghcb, gpa: number): Program<Outcome<null>> {
  const reply = yield* doorbellPage(ghcb, HV_DOORBELL.SET, gpa)
  if (!reply.ok) return reply
  return reply.value === gpa ? { ok: true, value: null } : vmmError
}

/** #HV doorbell page, event 0x80000014: takes it away. */
export const clearDoorbell = (ghcb: Ghcb): Program<Outcome<null>> =>
  plain(ghcb, NAE.HV_DOORBELL_PAGE, { info1: u64(HV_DOORBELL.CLEAR) })

/** #HV IPI, event 0x80000015: `icr` as written to the x2APIC. */
export const hvIpi = (ghcb: Ghcb, icr: U64): Program<Outcome<null>> => plain(ghcb, NAE.HV_IPI, { info1: icr })

/** RAX of the Secure AVIC events: this vCPU. */
const THIS_VCPU: U64 = { lo: 0xffff_ffff, hi: 0xffff_ffff }

/** Secure AVIC, event 0x8000001a: tells where this vCPU's backing page is. */
export const registerSecureAvic = (ghcb: Ghcb, backingPage: number): Program<Outcome<null>> =>
  plain(ghcb, NAE.SECURE_AVIC, { info1: u64(SECURE_AVIC.REGISTER), rax: THIS_VCPU, rbx: u64(backingPage) })

/**
 * Secure AVIC, event 0x8000001a: takes the backing page back.
 * @returns the page that was registered
 */
export function* unregisterSecureAvic(ghcb: Ghcb): Program<Outcome<number>> {
  const fields = { info1: u64(SECURE_AVIC.UNREGISTER), rax: THIS_VCPU }
  const reply = yield* ghcb.request(NAE.SECURE_AVIC, fields, ["rbx"])
  if (!reply.ok) return reply
  const page = pageOf(reply.value.rbx)
  return page === null ? vmmError : { ok: true, value: page }
}

/** Configure interrupt injection, event 0x8000001b of the alternate injection proposal. */
export const configureInterruptInjection = (ghcb: Ghcb, notifyVector: number): Program<Outcome<null>> =>
  plain(ghcb, NAE.CONFIGURE_INTERRUPT_INJECTION, { info1: u64(notifyVector) })

/** The state of a level's interrupts that the hypervisor takes over. */
export interface InjectionState {
  readonly vmpl: number
  readonly tpr: number
  readonly shadow: boolean
  readonly interruptsEnabled: boolean
}

/** Disable alternate injection, event 0x8000001c of the proposal. */
export const disableAlternateInjection = (ghcb: Ghcb, state: InjectionState): Program<Outcome<null>> =>
  plain(ghcb, NAE.DISABLE_ALTERNATE_INJECTION, {
    info1: u64((state.vmpl << 16) | (state.tpr << 8) | (state.shadow ? 2 : 0) | (state.interruptsEnabled ? 1 : 0))
  })

/** Specific EOI, event 0x8000001d of the proposal. */
export const specificEoi = (ghcb: Ghcb, vmpl: number, vector: number): Program<Outcome<null>> =>
  plain(ghcb, NAE.SPECIFIC_EOI, { info1: u64((vmpl << 16) | vector) })
