// @section 2.1
import {
  ACCESS,
  carryOf,
  eaxOf,
  FAULT,
  isFault,
  NOT_MAPPED,
  PAGE_2M,
  PAGE_4K,
  PAGES_PER_2M,
  type PageSize,
  RETURN_CODE,
  type RmpQueryResult
} from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { PRIMITIVE } from "@vmpl-lab/sim"
import { PHASE, recordFault, recordReserved } from "./NestedAccess.ts"
import { NESTED } from "./NestedPageTable.ts"
import type { Operation, OperationResult } from "./Operation.ts"
import { PF, pageFault } from "./PageFault.ts"
import { walkPages } from "./PageWalk.ts"
import type { Processor } from "./Processor.ts"
import { STEP, type Step } from "./Step.ts"
import { TRANSLATION } from "./Translation.ts"

/** One of the instructions, its other operands given: return code or fault of the RMP. Frames may be NOT_MAPPED. */
type Instruction = (gfn: number, pfn: number, nptSize: PageSize) => number

const FAILED = -1
/** Stands for any GFN that is not 2 MiB aligned. */
const MISALIGNED_GFN = 1
/** RDX[16]. */
const VMSA_BIT = 0x1_0000

/**
 * Translates the operand and has the RMP carry the instruction out; the TLB is not used. With paging on, what the RMP
 * answers without a mapping (level, target, alignment) comes before the walk, and the walk is that of a load. Of a 2 MiB
 * operand the first page is translated.
 * @param vmpl0Only whether the instruction faults at any other level before all else
 * @returns EAX with CARRY, or FAILED with the reason in `cpu.failure`
 * @spec-silent U5; whether a walk for these instructions needs more of the mapping than a load
 */
const onOperand = (
  cpu: Processor,
  address: number,
  size: PageSize,
  vmpl0Only: boolean,
  instruct: Instruction
): number => {
  const npt = cpu.npt!
  let gpa = address
  cpu.faultLinear = address
  if ((cpu.translation & TRANSLATION.PAGING) !== 0) {
    const misaligned = size === PAGE_2M && Math.floor(address / PAGE_SIZE) % PAGES_PER_2M !== 0
    const unmapped = instruct(misaligned ? MISALIGNED_GFN : NOT_MAPPED, NOT_MAPPED, PAGE_4K)
    if (!isFault(unmapped) || (vmpl0Only && cpu.vmpl > 0)) return faultOrCode(cpu, unmapped, address, NOT_MAPPED)
    if (!walkPages(cpu, address, ACCESS.READ)) {
      const absent = cpu.failure === STEP.PF && (cpu.pageFaultCode & PF.P) === 0
      return absent ? faultOrCode(cpu, unmapped, address, NOT_MAPPED) : FAILED
    }
    gpa = cpu.walk.gpa
  }
  const gfn = Math.floor(gpa / PAGE_SIZE)
  const pfn = npt.lookup(gfn)
  return faultOrCode(cpu, instruct(gfn, pfn < 0 ? NOT_MAPPED : pfn, npt.pageSize), gpa, pfn)
}

const faultOrCode = (cpu: Processor, outcome: number, gpa: number, pfn: number): number => {
  if (!isFault(outcome)) return outcome
  if ((outcome & FAULT.PF) !== 0) {
    pageFault(cpu, ACCESS.READ, 0)
    return FAILED
  }
  if (outcome === FAULT.NPF && pfn === NESTED.RESERVED) return recordReserved(cpu, gpa, ACCESS.WRITE, true, PHASE.FINAL)
  return recordFault(cpu, outcome, gpa, ACCESS.WRITE, true, PHASE.FINAL)
}

const sizeOf = (rcx: number): PageSize => ((rcx & 1) === 1 ? PAGE_2M : PAGE_4K)

/** @spec APM2 15.36.6 */
export const pvalidate = (cpu: Processor, { address, lo, hi }: Operation, result: OperationResult): Step => {
  const { rmp } = cpu.hardware
  const size = sizeOf(hi)
  const outcome = onOperand(cpu, address, size, true, (gfn, pfn, nptSize) =>
    rmp.pvalidate(cpu.asid, cpu.vmpl, gfn, pfn, nptSize, size, lo === 1)
  )
  if (outcome === FAILED) return cpu.failure
  result.lo = eaxOf(outcome)
  result.carry = carryOf(outcome) === 1
  cpu.thread.charge(size === PAGE_2M ? PRIMITIVE.pvalidate_2m : PRIMITIVE.pvalidate_4k)
  return STEP.DONE
}

/** @spec APM2 15.36.7 */
export const rmpadjust = (cpu: Processor, { address, lo, hi }: Operation, result: OperationResult): Step => {
  const { rmp } = cpu.hardware
  const size = sizeOf(hi)
  const outcome = onOperand(cpu, address, size, false, (gfn, pfn, nptSize) =>
    rmp.rmpadjust(cpu.asid, cpu.vmpl, gfn, pfn, nptSize, size, lo & 0xff, (lo >>> 8) & 0xff, (lo & VMSA_BIT) !== 0)
  )
  if (outcome === FAILED) return cpu.failure
  result.lo = eaxOf(outcome)
  cpu.thread.charge(size === PAGE_2M ? PRIMITIVE.rmpadjust_2m : PRIMITIVE.rmpadjust_4k)
  return STEP.DONE
}

/** Not charged: no profile prices it. RDX keeps the target. @spec APM2 15.36.7 */
export const rmpquery = (cpu: Processor, { address, lo }: Operation, result: OperationResult): Step => {
  const { rmp } = cpu.hardware
  const found: RmpQueryResult = { mask: 0, vmsa: false, size: PAGE_4K }
  const outcome = onOperand(cpu, address, PAGE_4K, false, (gfn, pfn, nptSize) =>
    rmp.rmpquery(cpu.asid, cpu.vmpl, gfn, pfn, nptSize, lo & 0xff, found)
  )
  if (outcome === FAILED) return cpu.failure
  result.lo = eaxOf(outcome)
  result.edx = lo
  result.ecx = 0
  if (outcome === RETURN_CODE.SUCCESS) {
    result.edx = (lo & 0xff) | (found.mask << 8) | (found.vmsa ? VMSA_BIT : 0)
    result.ecx = found.size
  }
  return STEP.DONE
}
