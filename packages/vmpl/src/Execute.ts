import { ACCESS } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { assert, PRIMITIVE } from "@vmpl-lab/sim"
import { translate } from "./GuestAccess.ts"
import { ACCESS_RESULT, translateFailure } from "./NestedAccess.ts"
import { OP, type Operation, type OperationResult } from "./Operation.ts"
import type { PhysicalMemory } from "./PhysicalMemory.ts"
import type { Processor } from "./Processor.ts"
import { pvalidate, rmpadjust, rmpquery } from "./RmpInstructions.ts"
import { readMsr, writeMsr } from "./SevMsr.ts"

/** What one operation led to, beside completing. */
export const STEP = {
  DONE: 0,
  /** #VMEXIT(NPF): the operation restarts after the hypervisor has dealt with it. */
  NPF: 1,
  /** #VC PAGE_NOT_VALIDATED. */
  VC_NOT_VALIDATED: 2,
  GP: 3,
  /** A non-automatic exit: #VC with the exit code of the intercepted instruction. */
  VC_NAE: 4,
  VMGEXIT: 5,
  HLT: 6,
  /** #PF by the guest's own page tables. */
  PF: 7
} as const

/** Key under which the access just translated sees memory. */
const keyOf = (cpu: Processor): number => (cpu.cbit ? cpu.asid : 0)

/** The rest of the VMSA's state is not a program's to write: with the byte VMPL it would choose its own level. */
const isGeneralRegister = (offset: number): boolean =>
  offset === VMSA.rax ||
  offset === VMSA.rsp ||
  (offset >= VMSA.rcx && offset <= VMSA.r15 && offset % 8 === 0 && offset !== VMSA.secure_avic_control)

/** Executes one operation of the current VMPL against memory and the RMP. @returns a STEP */
export const execute = (cpu: Processor, operation: Operation, result: OperationResult): number => {
  switch (operation.op) {
    case OP.READ:
      return load(cpu, operation, result, ACCESS.READ)
    case OP.WRITE:
      return store(cpu, operation, ACCESS.WRITE)
    case OP.READ_SHADOW_STACK:
      return load(cpu, operation, result, ACCESS.SHADOW_STACK)
    case OP.WRITE_SHADOW_STACK:
      return store(cpu, operation, ACCESS.SHADOW_STACK)
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
    case OP.PVALIDATE:
      return pvalidate(cpu, operation, result)
    case OP.RMPADJUST:
      return rmpadjust(cpu, operation, result)
    case OP.RMPQUERY:
      return rmpquery(cpu, operation, result)
    case OP.RDMSR:
      return readMsr(cpu, operation.address, result) ? STEP.DONE : STEP.GP
    case OP.WRMSR:
      return writeMsr(cpu, operation) ? STEP.DONE : STEP.GP
    case OP.INVLPGB:
      cpu.hardware.tlb?.flushAsid(cpu.asid)
      return STEP.DONE
    case OP.PAUSE:
      for (let i = 0; i < operation.size; i++) cpu.thread.charge(PRIMITIVE.guest_pause)
      return STEP.DONE
    case OP.LIDT:
      cpu.execution!.vcHandler = operation.handler
      return STEP.DONE
    case OP.CPUID:
      return STEP.VC_NAE
    case OP.VMGEXIT:
      return STEP.VMGEXIT
    default:
      return STEP.HLT
  }
}

/** STEP and ACCESS_RESULT share their numbers, so that a failed translation is a step as it stands. */
const failure = (): number => translateFailure()

const load = (cpu: Processor, { address, size, cbit }: Operation, result: OperationResult, kind: number): number => {
  const pfn = translate(cpu, address, kind, cbit)
  if (pfn < 0) return failure()
  const view = cpu.hardware.memory.read(pfn, keyOf(cpu))
  const offset = address % PAGE_SIZE
  assert(offset + size <= PAGE_SIZE, "a load stays inside one page")
  result.hi = 0
  if (size === 1) result.lo = view.getUint8(offset)
  else if (size === 2) result.lo = view.getUint16(offset, true)
  else {
    result.lo = view.getUint32(offset, true)
    if (size === 8) result.hi = view.getUint32(offset + 4, true)
  }
  return STEP.DONE
}

const store = (cpu: Processor, { address, size, cbit, lo, hi }: Operation, kind: number): number => {
  const pfn = translate(cpu, address, kind, cbit)
  if (pfn < 0) return failure()
  const view = cpu.hardware.memory.write(pfn, keyOf(cpu))
  const offset = address % PAGE_SIZE
  assert(offset + size <= PAGE_SIZE, "a store stays inside one page")
  if (size === 1) view.setUint8(offset, lo)
  else if (size === 2) view.setUint16(offset, lo, true)
  else {
    view.setUint32(offset, lo, true)
    if (size === 8) view.setUint32(offset + 4, hi, true)
  }
  return STEP.DONE
}

const exchange = (cpu: Processor, { address, lo, cbit }: Operation, result: OperationResult): number => {
  const pfn = translate(cpu, address, ACCESS.WRITE, cbit)
  if (pfn < 0) return failure()
  const view = cpu.hardware.memory.write(pfn, keyOf(cpu))
  result.lo = view.getUint8(address % PAGE_SIZE)
  result.hi = 0
  view.setUint8(address % PAGE_SIZE, lo)
  return STEP.DONE
}

const bytesAt = (memory: PhysicalMemory, pfn: number, asid: number, offset: number, length: number, write: boolean) => {
  const view = write ? memory.write(pfn, asid) : memory.read(pfn, asid)
  return new Uint8Array(view.buffer, view.byteOffset + offset, length)
}

const copy = (cpu: Processor, { op, address, cbit, bytes }: Operation): number => {
  const writes = op === OP.WRITE_BYTES
  const pfn = translate(cpu, address, writes ? ACCESS.WRITE : ACCESS.READ, cbit)
  if (pfn < 0) return failure()
  const offset = address % PAGE_SIZE
  assert(offset + bytes!.length <= PAGE_SIZE, "a copy stays inside one page")
  const there = bytesAt(cpu.hardware.memory, pfn, keyOf(cpu), offset, bytes!.length, writes)
  if (writes) there.set(bytes!)
  else bytes!.set(there)
  return STEP.DONE
}

const zero = (cpu: Processor, { address, cbit }: Operation): number => {
  const pfn = translate(cpu, address, ACCESS.WRITE, cbit)
  if (pfn < 0) return failure()
  cpu.hardware.memory.replace(pfn, keyOf(cpu), null)
  cpu.thread.charge(PRIMITIVE.zero_page_4k)
  return STEP.DONE
}

// The numbers that `failure` relies on.
assert(
  ACCESS_RESULT.NPF === STEP.NPF &&
    ACCESS_RESULT.VC_NOT_VALIDATED === STEP.VC_NOT_VALIDATED &&
    ACCESS_RESULT.GP === STEP.GP &&
    ACCESS_RESULT.VC_NPF === STEP.VC_NAE &&
    ACCESS_RESULT.PF === STEP.PF,
  "ACCESS_RESULT and STEP agree"
)
