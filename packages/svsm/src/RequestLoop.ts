import { CALLING_AREA, PROTOCOL, runVmplMsr, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, VMSA } from "@vmpl-lab/sev-es"
import {
  hlt,
  type Operation,
  type Program,
  type RecordedSequence,
  read,
  recordedSequence,
  sequence,
  write
} from "@vmpl-lab/vmpl"
import { afterCall } from "./Interrupts.ts"
import { apic } from "./protocols/Apic.ts"
import { core } from "./protocols/Core.ts"
import type { SvsmRequest } from "./protocols/Request.ts"
import type { GuestVmsa, SvsmState } from "./State.ts"
import { serveService } from "./services/SvsmService.ts"

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
  const loads = loadsOf(served)
  const efer = (yield loads.efer).lo
  const { lo: pending } = yield sequence([
    write(vmsaGpa + VMSA.efer, 4, efer & ~EFER_SVME),
    read(served.caGpa + CALLING_AREA.call_pending, 1)
  ])
  const called = pending !== 0 && (yield loads.exitCode).lo === EXIT.VMGEXIT
  if (called) {
    const result = pending === 1 ? yield* serveCall(state, served, loads.registers) : SVSM_RESULT.INVALID_FORMAT
    // REMAP_CA has cleared the old area itself.
    yield sequence([write(vmsaGpa + VMSA.rax, 8, result), write(served.caGpa + CALLING_AREA.call_pending, 1, 0)])
    yield* afterCall(state, served.apicId)
  }
  yield write(vmsaGpa + VMSA.efer, 4, efer | EFER_SVME)
  return called
}

function* dispatch(state: SvsmState, request: SvsmRequest): Program<number> {
  switch (request.protocol) {
    case PROTOCOL.CORE:
      return yield* core(state, request)
    case PROTOCOL.APIC:
      return apic(state, request)
    default:
      return yield* serveService(state, request)
  }
}

function* serveCall(state: SvsmState, served: GuestVmsa, registers: RecordedSequence): Program<number> {
  const { vmsaGpa } = served
  yield registers
  const request = requestIn(registers.outcomes, served)
  const result = yield* dispatch(state, request)
  yield sequence([
    write(vmsaGpa + VMSA.rcx, 8, request.rcxLo, request.rcxHi),
    write(vmsaGpa + VMSA.rdx, 8, request.rdxLo, request.rdxHi),
    write(vmsaGpa + VMSA.r8, 8, request.r8Lo, request.r8Hi)
  ])
  return result
}

/** Loads from a guest's VMSA, the same on each entry. */
interface VmsaLoads {
  readonly efer: Operation
  readonly exitCode: Operation
  readonly registers: RecordedSequence
}

const loadsByVmsa = new WeakMap<GuestVmsa, VmsaLoads>()

const loadsOf = (served: GuestVmsa): VmsaLoads => {
  const { vmsaGpa } = served
  let loads = loadsByVmsa.get(served)
  if (loads === undefined) {
    loads = {
      efer: read(vmsaGpa + VMSA.efer, 4),
      exitCode: read(vmsaGpa + VMSA.guest_exit_code, 4),
      registers: recordedSequence([
        read(vmsaGpa + VMSA.rax, 8),
        read(vmsaGpa + VMSA.rcx, 8),
        read(vmsaGpa + VMSA.rdx, 8),
        read(vmsaGpa + VMSA.r8, 8),
        read(vmsaGpa + VMSA.sev_features, 4),
        read(vmsaGpa + VMSA.vmpl, 1)
      ])
    }
    loadsByVmsa.set(served, loads)
  }
  return loads
}

/** RAX = protocol and call, arguments in RCX, RDX and R8. @spec SVSM 5 */
const requestIn = (outcomes: Float64Array, caller: GuestVmsa): SvsmRequest => ({
  protocol: outcomes[1]!,
  call: outcomes[0]!,
  rcxLo: outcomes[2]!,
  rcxHi: outcomes[3]!,
  rdxLo: outcomes[4]!,
  rdxHi: outcomes[5]!,
  r8Lo: outcomes[6]!,
  r8Hi: outcomes[7]!,
  sevFeatures: outcomes[8]!,
  vmpl: outcomes[10]!,
  caller
})
