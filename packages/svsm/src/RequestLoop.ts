import { CALLING_AREA, runVmplMsr, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, VMSA } from "@vmpl-lab/sev-es"
import {
  hlt,
  type Operation,
  OperationResult,
  type Program,
  type RecordedSequence,
  read,
  recordedSequence,
  Sequence,
  sequence,
  write
} from "@vmpl-lab/vmpl"
import { afterCall } from "./Interrupts.ts"
import { FLUSH_TLBS } from "./protocols/Permissions.ts"
import { NO_RETURN } from "./protocols/Protocol.ts"
import { dispatch } from "./protocols/Protocols.ts"
import type { SvsmRequest } from "./protocols/Request.ts"
import type { GuestVmsa, SvsmState } from "./State.ts"

/**
 * One SVSM CPU's life after boot: serve what the guest asks, run the level that asked, again. Without a VMSA to run it
 * idles.
 * @spec SVSM 5
 */
export const requestLoop = (state: SvsmState, apicId: number): Program =>
  state.observers.length === 0 ? serveForever(state, apicId) : observed(state, apicId, serveForever(state, apicId))

function* serveForever(state: SvsmState, apicId: number): Program {
  for (;;) {
    const next = state.running[apicId]
    if (next === undefined || !(yield* isKnown(state, next))) {
      yield hlt()
      continue
    }
    if (state.faultServers.length > 0) yield* serveFault(state, next)
    yield* serveEntry(state, apicId)
    const running = state.running[apicId]
    if (running !== undefined && state.behaviour.flushesBeforeGuest) yield FLUSH_TLBS
    // The host did not run the guest: there is nothing to serve before it does.
    if (running !== undefined && (yield* runGuest(state, running)) !== 0) yield hlt()
  }
}

/** Tells observers of each operation, those of a sequence one by one, when it has completed. */
function* observed(state: SvsmState, apicId: number, program: Program): Program {
  let step = program.next(new OperationResult())
  while (step.done !== true) {
    const operation = step.value
    let result: OperationResult
    try {
      result = yield operation
    } catch (exception) {
      step = program.throw(exception)
      continue
    }
    const operations = operation instanceof Sequence ? operation.operations : [operation]
    for (const one of operations) for (const hear of state.observers) hear(state, apicId, one)
    step = program.next(result)
  }
}

/** The level that ran last left with a nested page fault: whoever knows why mends it. */
function* serveFault(state: SvsmState, next: GuestVmsa): Program {
  if ((yield loadsOf(next).exitCode).lo !== EXIT.NPF) return
  for (const serve of state.faultServers) yield* serve(state, next)
}

/**
 * What CREATE_VCPU made is the host's to run first, when the guest asks for it: a host that does not know the level yet
 * may end the guest over the MSR request to run it. A CPU that an interrupt wakes in between asks by the page until the
 * exit code in the VMSA, which its maker left 0, tells that the level has run.
 */
function* isKnown(state: SvsmState, served: GuestVmsa): Program<boolean> {
  const interrupts = state.interrupts[served.apicId]
  if (!served.guestOwned || served.hasRun === true || interrupts === undefined) return true
  served.hasRun = (yield loadsOf(served).exitCode).lo !== 0 || (yield* interrupts.tryGuest(served))
  return served.hasRun
}

const runGuest = (state: SvsmState, served: GuestVmsa): Program<number> => {
  const interrupts = state.interrupts[served.apicId]
  return interrupts === undefined ? runVmplMsr(served.vmpl) : interrupts.runGuest(served)
}

/**
 * Finds out which level called, as an entry does not tell: the most privileged one with a call pending. A less
 * privileged one could have its call pending at any time, and must not be served in place of another.
 * @spec-silent how an SVSM learns which of several VMSAs of a vCPU called
 */
function* serveEntry(state: SvsmState, apicId: number): Program {
  for (const served of state.served[apicId]!) {
    if (served === undefined || !(yield* serveLevel(state, served))) continue
    // A vCPU that has deleted itself is not run again.
    const latest = state.served[apicId]![served.vmpl]
    if (latest !== undefined) state.running[apicId] = latest
    return
  }
}

/** What is asked of an SVSM on each entry from the guest. @returns whether this level had called */
function* serveLevel(state: SvsmState, served: GuestVmsa): Program<boolean> {
  state.serving[served.apicId] = served
  const called = state.behaviour.clearsPendingAfterRax
    ? yield* serveBySpecification(state, served)
    : yield* serveByCoconut(state, served)
  state.serving[served.apicId] = undefined
  return called
}

/** RAX, then call_pending, then SVME. @spec SVSM 5 */
function* serveBySpecification(state: SvsmState, served: GuestVmsa): Program<boolean> {
  const { vmsaGpa } = served
  const loads = loadsOf(served)
  const efer = (yield loads.efer).lo
  const { lo: pending } = yield sequence([
    write(vmsaGpa + VMSA.efer, 4, efer & ~EFER_SVME),
    read(served.caGpa + CALLING_AREA.call_pending, 1)
  ])
  const called = pending !== 0 && (yield loads.exitCode).lo === EXIT.VMGEXIT
  if (called) {
    const isCall = pending === 1 || !state.behaviour.checksPending
    const stores = isCall
      ? yield* serveCall(state, served, loads.registers)
      : [writeResult(served, SVSM_RESULT.INVALID_FORMAT)]
    if (stores === null) return true
    // REMAP_CA has cleared the old area itself: this is the new one.
    yield sequence([...stores, write(served.caGpa + CALLING_AREA.call_pending, 1, 0)])
    yield* afterCall(state, served.apicId)
  }
  yield write(vmsaGpa + VMSA.efer, 4, efer | EFER_SVME)
  return called
}

/** Where the guest looks for the result code. */
const writeResult = ({ vmsaGpa }: GuestVmsa, result: number): Operation => write(vmsaGpa + VMSA.rax, 8, result)

/**
 * What COCONUT-SVSM does: the exit code comes first, call_pending is cleared before the call is served, and every value
 * but 0 is a call.
 */
function* serveByCoconut(state: SvsmState, served: GuestVmsa): Program<boolean> {
  const { vmsaGpa, caGpa } = served
  const loads = loadsOf(served)
  const efer = (yield loads.efer).lo
  yield write(vmsaGpa + VMSA.efer, 4, efer & ~EFER_SVME)
  let called = (yield loads.exitCode).lo === EXIT.VMGEXIT
  if (called) {
    const { lo: pending } = yield read(caGpa + CALLING_AREA.call_pending, 1)
    yield write(caGpa + CALLING_AREA.call_pending, 1, 0)
    called = pending !== 0
  }
  if (called) {
    const stores = yield* serveCall(state, served, loads.registers)
    if (stores === null) return true
    yield sequence(stores)
    yield* afterCall(state, served.apicId)
  }
  yield write(vmsaGpa + VMSA.efer, 4, efer | EFER_SVME)
  return called
}

/** Serves a call. @returns the stores that answer it; null when there is nobody left to answer */
function* serveCall(
  state: SvsmState,
  served: GuestVmsa,
  registers: RecordedSequence
): Program<ReadonlyArray<Operation> | null> {
  const { vmsaGpa } = served
  yield registers
  const request = requestIn(registers.outcomes, served)
  const outcome = dispatch(state, request)
  const result = typeof outcome === "number" ? outcome : yield* outcome
  if (result === NO_RETURN) return null
  return [
    write(vmsaGpa + VMSA.rcx, 8, request.rcxLo, request.rcxHi),
    write(vmsaGpa + VMSA.rdx, 8, request.rdxLo, request.rdxHi),
    write(vmsaGpa + VMSA.r8, 8, request.r8Lo, request.r8Hi),
    writeResult(served, result)
  ]
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
