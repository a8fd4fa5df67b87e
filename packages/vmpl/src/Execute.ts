import { ACCESS } from "@vmpl-lab/rmp"
import { EXIT, INTERCEPT, intercepts, SEGMENT, setU64, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { assert, PRIMITIVE } from "@vmpl-lab/sim"
import { copy, exchange, load, store, zero } from "./DataOperation.ts"
import { executeInstruction, hostTsc } from "./Instruction.ts"
import { rdmsr, wrmsr } from "./Msr.ts"
import { SHADOW_STACK_STORE } from "./NestedAccess.ts"
import { OP, type Operation, type OperationResult, type Outside } from "./Operation.ts"
import type { Processor } from "./Processor.ts"
import { pvalidate, rmpadjust, rmpquery } from "./RmpInstruction.ts"
import { STEP, type Step } from "./Step.ts"
import { executeTlb } from "./TlbInstruction.ts"

/** The rest of the VMSA's state is not a program's to write: with the byte VMPL it would choose its own level. */
const isGeneralRegister = (offset: number): boolean =>
  offset === VMSA.rax ||
  offset === VMSA.rsp ||
  (offset >= VMSA.rcx && offset <= VMSA.r15 && offset % 8 === 0 && offset !== VMSA.secure_avic_control)

/** Executes one operation of the current VMPL against memory and the RMP. */
export const execute = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  switch (operation.op) {
    case OP.READ:
      return load(cpu, operation, result, ACCESS.READ)
    case OP.WRITE:
      return store(cpu, operation, ACCESS.WRITE)
    case OP.READ_SHADOW_STACK:
      return load(cpu, operation, result, ACCESS.SHADOW_STACK)
    case OP.WRITE_SHADOW_STACK:
      return store(cpu, operation, SHADOW_STACK_STORE)
    case OP.XCHG8:
      return exchange(cpu, operation, result)
    case OP.READ_BYTES:
    case OP.WRITE_BYTES:
      return copy(cpu, operation)
    case OP.ZERO_PAGE:
      return zero(cpu, operation)
    case OP.READ_REGISTER:
      result.lo = cpu.view.getUint32(operation.address, true)
      result.hi = cpu.view.getUint32(operation.address + 4, true)
      return STEP.DONE
    case OP.WRITE_REGISTER:
      assert(isGeneralRegister(operation.address), "a program writes general registers only")
      cpu.view.setUint32(operation.address, operation.lo, true)
      cpu.view.setUint32(operation.address + 4, operation.hi, true)
      return STEP.DONE
    case OP.PAUSE:
      return pause(cpu, operation.size)
    case OP.LIDT:
      cpu.execution!.idt = operation.idt
      return STEP.DONE
    case OP.CPUID:
      cpu.exitCode = EXIT.CPUID
      cpu.exitInfoLo = 0
      cpu.exitInfoHi = 0
      cpu.exitInfo2 = 0
      return STEP.VC_NAE
    case OP.VMGEXIT:
      return STEP.VMGEXIT
    case OP.WORK:
      return STEP.WORK
    case OP.OUTSIDE:
      return (operation as Outside).isAnswered() ? STEP.DONE : STEP.UNANSWERED
    case OP.JMP_FAR:
      return jumpFar(cpu, operation)
    default:
      if (operation.op >= OP.IN) return executeInstruction(cpu, operation, result)
      // What is left is privileged: at CPL 1 to 3 it is #GP(0). @spec-silent for PVALIDATE, RMPADJUST and RMPQUERY
      return cpu.registers[VMSA.cpl] === 0 ? executePrivileged(cpu, operation, result) : STEP.GP
  }
}

const executePrivileged = (cpu: Processor, operation: Operation, result: OperationResult): Step => {
  switch (operation.op) {
    case OP.HLT:
      return halt(cpu)
    case OP.PVALIDATE:
      return pvalidate(cpu, operation, result)
    case OP.RMPADJUST:
      return rmpadjust(cpu, operation, result)
    case OP.RMPQUERY:
      return rmpquery(cpu, operation, result)
    case OP.RDMSR:
      return rdmsr(cpu, operation.address, result)
    case OP.WRMSR:
      return wrmsr(cpu, operation)
    default:
      return executeTlb(cpu, operation)
  }
}

/** HLT leaves where it is intercepted, else the core waits. */
const halt = (cpu: Processor): Step => {
  if (!intercepts(cpu.intercepts, INTERCEPT.HLT)) return STEP.HALTED
  return exit(cpu, EXIT.HLT)
}

const exit = (cpu: Processor, code: number): Step => {
  cpu.exitCode = code
  cpu.exitInfoLo = 0
  cpu.exitInfoHi = 0
  cpu.exitInfo2 = 0
  return STEP.EXIT
}

/**
 * PAUSE, several in a row. Where it is intercepted, each takes one from the filter's count, or has it begin anew when
 * the one before was longer ago than the threshold; below zero the guest leaves.
 * @spec APM2 15.14.4
 */
const pause = (cpu: Processor, times: number): Step => {
  const intercepted = intercepts(cpu.intercepts, INTERCEPT.PAUSE)
  for (let i = 0; i < times; i++) {
    cpu.thread.charge(PRIMITIVE.guest_pause)
    if (!intercepted) continue
    const { host } = cpu.hardware
    const threshold = host.read16(cpu.vmcb + VMCB.pause_filter_thresh)
    const since = hostTsc(cpu.thread.time) - hostTsc(cpu.pauseAt)
    cpu.pauseAt = cpu.thread.time
    if (threshold !== 0 && since > threshold) cpu.pauseCount = host.read16(cpu.vmcb + VMCB.pause_filter_count)
    else if (--cpu.pauseCount < 0) return exit(cpu, EXIT.PAUSE)
  }
  return STEP.DONE
}

/** Real-mode CS: the selector is the base in paragraphs. What lies at the target is fetched as any other code is. */
const jumpFar = (cpu: Processor, { address, lo }: Operation): Step => {
  const { view } = cpu
  view.setUint16(VMSA.cs + SEGMENT.selector, address >>> 4, true)
  setU64(view, VMSA.cs + SEGMENT.base, address)
  setU64(view, VMSA.rip, lo)
  return STEP.JUMPED
}
