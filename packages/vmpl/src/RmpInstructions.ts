import { ACCESS, carryOf, eaxOf, isFault, NOT_MAPPED, PAGE_2M, PAGE_4K, type RmpQueryResult } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { PRIMITIVE } from "@vmpl-lab/sim"
import { operandAddress } from "./GuestAccess.ts"
import { ACCESS_RESULT, recordFault, translateFailure } from "./NestedAccess.ts"
import type { Operation, OperationResult } from "./Operation.ts"
import type { Processor } from "./Processor.ts"

/** The operand's page, for the instruction to check in its own order. */
const operand = { gpa: 0, gfn: 0, pfn: 0 }

/**
 * Finds the operand's frames. A GPA that the nested table lacks, and an address that the guest's own tables lack, are
 * NOT_MAPPED: the instruction decides what it checks first.
 * @returns OK, or why the walk of the guest's tables failed
 */
const findOperand = (cpu: Processor, address: number): number => {
  const gpa = operandAddress(cpu, address)
  if (gpa === -2) return translateFailure()
  operand.gpa = gpa
  operand.gfn = gpa < 0 ? NOT_MAPPED : Math.floor(gpa / PAGE_SIZE)
  operand.pfn = gpa < 0 ? NOT_MAPPED : cpu.npt!.lookup(operand.gfn)
  return ACCESS_RESULT.OK
}

/** Kernel only. @spec-silent what CPL > 0 gives */
const isUser = (cpu: Processor): boolean => cpu.registers[VMSA.cpl] !== 0

/** @returns what a fault of the RMP is to the guest */
const fail = (cpu: Processor, outcome: number): number => recordFault(cpu, outcome, operand.gpa, ACCESS.WRITE, true)

/** @returns an ACCESS_RESULT */
export const pvalidate = (cpu: Processor, { address, lo, hi }: Operation, result: OperationResult): number => {
  if (isUser(cpu)) return ACCESS_RESULT.GP
  const found = findOperand(cpu, address)
  if (found !== ACCESS_RESULT.OK) return found
  const { gfn, pfn } = operand
  const size = hi === 1 ? PAGE_2M : PAGE_4K
  const outcome = cpu.hardware.rmp.pvalidate(cpu.asid, cpu.vmpl, gfn, pfn, cpu.npt!.leafSize, size, lo === 1)
  if (isFault(outcome)) return fail(cpu, outcome)
  result.lo = eaxOf(outcome)
  result.carry = carryOf(outcome) === 1
  cpu.thread.charge(PRIMITIVE.pvalidate_4k)
  return ACCESS_RESULT.OK
}

/** @returns an ACCESS_RESULT */
export const rmpadjust = (cpu: Processor, { address, lo, hi }: Operation, result: OperationResult): number => {
  if (isUser(cpu)) return ACCESS_RESULT.GP
  const found = findOperand(cpu, address)
  if (found !== ACCESS_RESULT.OK) return found
  const { gfn, pfn } = operand
  const size = hi === 1 ? PAGE_2M : PAGE_4K
  const { rmp } = cpu.hardware
  const [target, mask, vmsa] = [lo & 0xff, (lo >>> 8) & 0xff, (lo & 0x1_0000) !== 0]
  const outcome = rmp.rmpadjust(cpu.asid, cpu.vmpl, gfn, pfn, cpu.npt!.leafSize, size, target, mask, vmsa)
  if (isFault(outcome)) return fail(cpu, outcome)
  result.lo = eaxOf(outcome)
  cpu.thread.charge(PRIMITIVE.rmpadjust_4k)
  return ACCESS_RESULT.OK
}

const queried: RmpQueryResult = { mask: 0, vmsa: false, size: PAGE_4K }

/** RDX in `edx`, RCX in `ecx`. Not priced: no figure is known. @returns an ACCESS_RESULT */
export const rmpquery = (cpu: Processor, { address, lo }: Operation, result: OperationResult): number => {
  if (isUser(cpu)) return ACCESS_RESULT.GP
  const found = findOperand(cpu, address)
  if (found !== ACCESS_RESULT.OK) return found
  const { gfn, pfn } = operand
  const outcome = cpu.hardware.rmp.rmpquery(cpu.asid, cpu.vmpl, gfn, pfn, cpu.npt!.leafSize, lo, queried)
  if (isFault(outcome)) return fail(cpu, outcome)
  result.lo = eaxOf(outcome)
  if (outcome === 0) {
    result.edx = lo | (queried.mask << 8) | (queried.vmsa ? 0x1_0000 : 0)
    result.ecx = queried.size
  }
  return ACCESS_RESULT.OK
}
