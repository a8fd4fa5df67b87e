import { EXIT, INTERCEPT, intercepts, setU64, VECTOR, VMSA } from "@vmpl-lab/sev-es"
import { assert, PRIMITIVE } from "@vmpl-lab/sim"
import { execute } from "./Execute.ts"
import type { Execution } from "./Execution.ts"
import { advanceRip, vmexit } from "./Exit.ts"
import { canFetch } from "./GuestAccess.ts"
import { type ExceptionName, GuestException, type Operation, work } from "./Operation.ts"
import { linearRip, type Processor } from "./Processor.ts"
import { reflectsVc, reflectVc } from "./Reflect.ts"
import { STEP, type Step } from "./Step.ts"
import { EVENT_VALID, injectEvent, takeEvents } from "./VirtualInterrupt.ts"

/** The core is still in guest mode, but its clock has passed the horizon: let others catch up, then call again. */
export const STILL_IN_GUEST = -1000

/**
 * Loads, stores and register moves are not priced. A guest that does nothing else must not stop the clock: so many in
 * a row pass the time below, which no core could undercut.
 */
const FREE_OPERATIONS = 1_000
const FREE_OPERATIONS_NS = 10_000

/**
 * Runs the loaded VMPL until #VMEXIT or until the core's clock passes `horizon` (virtual ns).
 * @returns the exit code, or STILL_IN_GUEST
 */
export const runGuest = (cpu: Processor, horizon: number): number => {
  const { execution } = cpu
  cpu.horizon = horizon
  // Nothing to fetch at CS:RIP: #UD with no handler ends in a triple fault.
  if (execution === null) return vmexit(cpu, EXIT.SHUTDOWN)
  let free = 0
  let clock = cpu.thread.time
  try {
    // What was injected is delivered by VMRUN itself: no physical event comes before it.
    const code = cpu.eventLo >= EVENT_VALID ? injectEvent(cpu, execution) : 0
    if (code !== 0) return code
    for (;;) {
      if (cpu.thread.time >= cpu.interruptAt) return takeInterrupt(cpu)
      if (cpu.thread.time > horizon) return STILL_IN_GUEST
      if (cpu.attention) {
        const code = takeEvents(cpu, execution)
        if (code !== 0) return code
      }
      if (cpu.halted) {
        // Nothing can become pending while the core waits: only a physical event ends it.
        const until = Math.min(cpu.interruptAt, horizon + 1)
        assert(until !== Infinity, "a core that waits for an event is let run for a time")
        cpu.thread.passInGuest(until)
        continue
      }
      if (cpu.thread.time !== clock) {
        clock = cpu.thread.time
        free = 0
      } else if (++free > FREE_OPERATIONS) {
        cpu.thread.passInGuest(cpu.thread.time + FREE_OPERATIONS_NS)
        continue
      }
      // A pending operation was fetched before the exit that it is restarted after.
      if (execution.pending === null && !canFetch(cpu)) return fetchFault(cpu)
      if (cpu.arrived !== null) {
        cpu.arrived()
        cpu.arrived = null
      }
      const operation = execution.pending ?? execution.next(cpu)
      if (operation === null) {
        if (!execution.ended) continue
        // A program that returned has nothing left to do: it halts for good.
        return vmexit(cpu, EXIT.HLT)
      }
      const code = step(cpu, execution, operation)
      if (code !== 0) return code
    }
  } catch (exception) {
    if (exception instanceof GuestException) return vmexit(cpu, EXIT.SHUTDOWN)
    throw exception
  }
}

/** A physical interrupt, NMI, SMI or INIT: an automatic exit, which carries on the path of the operation that sent it. */
const takeInterrupt = (cpu: Processor): number => {
  if (cpu.interruptSpan !== null) cpu.thread.adopt(cpu.interruptSpan)
  return vmexit(cpu, cpu.interruptCode)
}

/** One operation. @returns an exit code, or 0 when the guest goes on */
const step = (cpu: Processor, execution: Execution, operation: Operation): number => {
  const outcome = execute(cpu, operation, execution.result)
  if (outcome === STEP.DONE) {
    cpu.shadow = false
    if (execution.pending !== null) execution.pending = null
    advanceRip(cpu)
    return 0
  }
  execution.pending = operation
  // An operation that is restarted is still in the shadow of the one before.
  if (outcome === STEP.NPF) return vmexit(cpu, EXIT.NPF, cpu.faultInfoLo, cpu.faultInfoHi, cpu.faultGpa)
  return stepAside(cpu, execution, operation, outcome)
}

/**
 * Work of so many ns may pass before others have caught up, or two cores that work would take turns of 1 ns. What comes
 * for this core meanwhile is late by no more than that.
 */
const WORK_QUANTUM_NS = 1_000

/** Works until it is done, something physical is due, or others must catch up; what is left is restarted. */
const doWork = (cpu: Processor, execution: Execution, { lo: ns }: Operation): number => {
  const { thread } = cpu
  const passed = Math.min(ns, cpu.interruptAt - thread.time, Math.max(cpu.horizon - thread.time, WORK_QUANTUM_NS))
  thread.time += passed
  cpu.shadow = false
  execution.pending = passed < ns ? work(ns - passed) : null
  if (passed === ns) advanceRip(cpu)
  return 0
}

/** An operation that did more than complete. @returns an exit code, or 0 when the guest goes on */
const stepAside = (cpu: Processor, execution: Execution, operation: Operation, outcome: Step): number => {
  switch (outcome) {
    case STEP.WORK:
      return doWork(cpu, execution, operation)
    case STEP.UNANSWERED:
      return STILL_IN_GUEST
    case STEP.JUMPED: {
      cpu.fetchedAt = -1
      cpu.shadow = false
      const entry = cpu.hardware.programs.at(linearRip(cpu))
      // Nothing there: #UD without anybody to take it.
      if (entry === undefined) return vmexit(cpu, EXIT.SHUTDOWN)
      execution.jump(entry())
      return 0
    }
    case STEP.VC_NOT_VALIDATED:
      setCr2(cpu)
      return deliverVc(cpu, execution, operation, EXIT.PAGE_NOT_VALIDATED)
    case STEP.VC_NPF:
      setCr2(cpu)
      return deliverVc(cpu, execution, operation, EXIT.NPF)
    case STEP.VC_NAE:
      return deliverVc(cpu, execution, operation, cpu.exitCode)
    case STEP.PF:
      setCr2(cpu)
      return raise(cpu, execution, operation, VECTOR.PF, "#PF")
    case STEP.UD:
      return raise(cpu, execution, operation, VECTOR.UD, "#UD")
    case STEP.GP:
      return raise(cpu, execution, operation, VECTOR.GP, "#GP")
  }
  cpu.shadow = outcome === STEP.SHADOW
  execution.pending = null
  advanceRip(cpu)
  switch (outcome) {
    case STEP.VMGEXIT:
      return vmexit(cpu, EXIT.VMGEXIT)
    case STEP.EXIT:
      return vmexit(cpu, cpu.exitCode, cpu.exitInfoLo, cpu.exitInfoHi, cpu.exitInfo2)
    case STEP.HALTED:
      cpu.halted = true
      return 0
    default:
      return 0
  }
}

/**
 * An exception of an operation: the program's own to catch, unless the hypervisor intercepts its vector, which is #VC.
 * @spec APM2 15.12, 15.35.4
 */
const raise = (
  cpu: Processor,
  execution: Execution,
  operation: Operation,
  vector: number,
  name: ExceptionName
): number => {
  const errorCode = vector === VECTOR.PF ? cpu.pageFaultCode : 0
  if (intercepts(cpu.intercepts, INTERCEPT.EXCEPTION + vector)) {
    cpu.exitInfoLo = errorCode
    cpu.exitInfoHi = 0
    cpu.exitInfo2 = vector === VECTOR.PF ? cpu.faultLinear : 0
    return deliverVc(cpu, execution, operation, EXIT.EXCEPTION + vector)
  }
  cpu.shadow = false
  execution.pending = execution.raise(new GuestException(name, errorCode), cpu)
  return 0
}

/**
 * The linear address of a failed access, for its #PF or #VC.
 * @spec-silent for the #VC of a reserved nested leaf
 */
const setCr2 = (cpu: Processor): void => setU64(cpu.view, VMSA.cr2, cpu.faultLinear)

/** #VC handlers that can be on the stack at once: what the stack of a guest holds. */
const VC_DEPTH = 4

/**
 * #VC: the handler emulates the operation and leaves its outcome in the result; then the operation counts as done.
 * A handler may itself take a #VC, on the same stack: without a handler or without room the vCPU shuts down.
 */
const deliverVc = (cpu: Processor, execution: Execution, operation: Operation, errorCode: number): number => {
  if (reflectsVc(cpu)) return reflectVc(cpu, errorCode, operation)
  const handler = execution.idt?.vc
  if (handler === undefined || execution.vcDepth === VC_DEPTH) return vmexit(cpu, EXIT.SHUTDOWN)
  cpu.thread.charge(PRIMITIVE.vc_exception)
  cpu.shadow = false
  execution.pending = null
  execution.enterVc(handler(errorCode, operation, execution.result), cpu)
  advanceRip(cpu)
  return 0
}

/**
 * An instruction fetch failed: a nested fault restarts it, a #VC may be reflected. Else there is no code to take the
 * exception: programs take those of their operations only, and this is a triple fault.
 */
const fetchFault = (cpu: Processor): number => {
  if (cpu.failure === STEP.NPF) return vmexit(cpu, EXIT.NPF, cpu.faultInfoLo, cpu.faultInfoHi, cpu.faultGpa)
  if (cpu.failure !== STEP.GP) setCr2(cpu)
  const isVc = cpu.failure === STEP.VC_NOT_VALIDATED || cpu.failure === STEP.VC_NPF
  if (!isVc || !reflectsVc(cpu)) return vmexit(cpu, EXIT.SHUTDOWN)
  return reflectVc(cpu, cpu.failure === STEP.VC_NPF ? EXIT.NPF : EXIT.PAGE_NOT_VALIDATED, null)
}
