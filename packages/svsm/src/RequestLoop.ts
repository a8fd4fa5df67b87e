import { CALLING_AREA, PROTOCOL, runVmplMsr, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, VMSA } from "@vmpl-lab/sev-es"
import { hlt, type Program, read, write } from "@vmpl-lab/vmpl"
import { afterCall } from "./Interrupts.ts"
import { apic } from "./protocols/Apic.ts"
import { core } from "./protocols/Core.ts"
import type { SvsmRequest } from "./protocols/Request.ts"
import type { GuestVmsa, SvsmState } from "./State.ts"

/**
 * One SVSM CPU's life after boot: serve what the guest asks, run the level that asked, again. Without a VMSA to run it
 * idles. The order of steps is the specification's: SVME off, call pending?, exit by VMGEXIT?, serve, RAX, call_pending,
 * SVME.
 * @spec SVSM 5
 */
export function* requestLoop(state: SvsmState, apicId: number): Program {
  for (;;) {
    if (state.running[apicId] === undefined) {
      yield hlt()
      continue
    }
    yield* serveEntry(state, apicId)
    // The host did not run the guest: there is nothing to serve before it does.
    if ((yield* runGuest(state, state.running[apicId]!)) !== 0) yield hlt()
  }
}

function* runGuest(state: SvsmState, served: GuestVmsa): Program<number> {
  const interrupts = state.interrupts[served.apicId]
  if (interrupts === undefined) return yield* runVmplMsr(served.vmpl)
  return yield* interrupts.runGuest(served)
}

/**
 * Finds out which level called, as an entry does not tell: the most privileged one with a call pending. A less
 * privileged one could have its call pending at any time, and must not be served in place of another.
 * @spec-silent how an SVSM learns which of several VMSAs of a vCPU called
 */
function* serveEntry(state: SvsmState, apicId: number): Program {
  for (const served of state.served[apicId]!) {
    if (served === undefined || !(yield* serveLevel(state, served))) continue
    state.running[apicId] = state.served[apicId]![served.vmpl]
    return
  }
}

/** What the specification asks on each entry from the guest. @returns whether this level had called */
function* serveLevel(state: SvsmState, served: GuestVmsa): Program<boolean> {
  const { vmsaGpa } = served
  const efer = (yield read(vmsaGpa + VMSA.efer, 4)).lo
  yield write(vmsaGpa + VMSA.efer, 4, efer & ~EFER_SVME)
  const area = served.caGpa
  const pending = (yield read(area + CALLING_AREA.call_pending, 1)).lo
  const called = pending !== 0 && (yield read(vmsaGpa + VMSA.guest_exit_code, 4)).lo === EXIT.VMGEXIT
  if (called) {
    const result = pending === 1 ? yield* serveCall(state, served) : SVSM_RESULT.INVALID_FORMAT
    yield write(vmsaGpa + VMSA.rax, 8, result)
    // REMAP_CA has cleared the old area itself.
    yield write(served.caGpa + CALLING_AREA.call_pending, 1, 0)
    yield* afterCall(state, served.apicId)
  }
  yield write(vmsaGpa + VMSA.efer, 4, efer | EFER_SVME)
  return called
}

function* serveCall(state: SvsmState, served: GuestVmsa): Program<number> {
  const request = yield* readRequest(served)
  const result = yield* dispatch(state, request)
  yield write(served.vmsaGpa + VMSA.rcx, 8, request.rcxLo, request.rcxHi)
  yield write(served.vmsaGpa + VMSA.rdx, 8, request.rdxLo, request.rdxHi)
  yield write(served.vmsaGpa + VMSA.r8, 8, request.r8Lo, request.r8Hi)
  return result
}

function* dispatch(state: SvsmState, request: SvsmRequest): Program<number> {
  switch (request.protocol) {
    case PROTOCOL.CORE:
      return yield* core(state, request)
    case PROTOCOL.APIC:
      return apic(state, request)
    default:
      return SVSM_RESULT.UNSUPPORTED_PROTOCOL
  }
}

/** RAX = protocol and call, arguments in RCX, RDX and R8. @spec SVSM 5 */
function* readRequest(caller: GuestVmsa): Program<SvsmRequest> {
  const { vmsaGpa } = caller
  const rax = yield read(vmsaGpa + VMSA.rax, 8)
  const protocol = rax.hi
  const call = rax.lo
  const rcx = yield read(vmsaGpa + VMSA.rcx, 8)
  const rcxLo = rcx.lo
  const rcxHi = rcx.hi
  const rdx = yield read(vmsaGpa + VMSA.rdx, 8)
  const rdxLo = rdx.lo
  const rdxHi = rdx.hi
  const r8 = yield read(vmsaGpa + VMSA.r8, 8)
  const r8Lo = r8.lo
  const r8Hi = r8.hi
  const sevFeatures = (yield read(vmsaGpa + VMSA.sev_features, 4)).lo
  const vmpl = (yield read(vmsaGpa + VMSA.vmpl, 1)).lo
  return { protocol, call, rcxLo, rcxHi, rdxLo, rdxHi, r8Lo, r8Hi, sevFeatures, vmpl, caller }
}
