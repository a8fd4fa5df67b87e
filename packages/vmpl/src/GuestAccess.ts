import { ACCESS } from "@vmpl-lab/rmp"
import { PAGE_SIZE, setU64, VMSA } from "@vmpl-lab/sev-es"
import { effectiveCbit } from "./EffectiveCbit.ts"
import { ACCESS_RESULT, failTranslation, translateNested } from "./NestedAccess.ts"
import { WALK_PAGE_FAULT, walk, walked } from "./PageWalk.ts"
import type { Processor } from "./Processor.ts"

/**
 * The system frame behind an access by the current VMPL, or -1 with the reason in `translateFailure`. `cbit` is the
 * C-bit of the mapping that a program without page tables of its own imagines; what counted is left in `cpu.cbit`.
 * `address` is a GPA, or a virtual address where the VMPL has paging on.
 */
export const translate = (cpu: Processor, address: number, kind: number, cbit: boolean): number => {
  if (cpu.isPlain) {
    cpu.cbit = cbit
    return translateNested(cpu, address, kind, cbit)
  }
  return translateFully(cpu, address, kind, cbit)
}

/** With paging, vTOM or a TLB. */
const translateFully = (cpu: Processor, address: number, kind: number, cbit: boolean): number => {
  const { tlb } = cpu.hardware
  const core = cpu.thread.core
  const page = Math.floor(address / PAGE_SIZE)
  const cpl = cpu.registers[VMSA.cpl]!
  const known = tlb?.lookup(cpu.asid, cpu.vmpl, core, page, kind, cpl, cbit)
  if (known !== undefined) {
    cpu.cbit = known.cbit
    return known.pfn
  }
  const gpa = cpu.hasPaging ? walk(cpu, address, kind, cpl) : address
  if (gpa < 0) return gpa === WALK_PAGE_FAULT ? pageFault(cpu, address) : -1
  cpu.cbit = effectiveCbit(cpu, gpa, kind, cpu.hasPaging ? walked.cbit : cbit)
  const pfn = translateNested(cpu, gpa, kind, cpu.cbit)
  if (pfn >= 0) tlb?.insert(cpu.asid, cpu.vmpl, core, page, kind, cpl, cbit, { pfn, cbit: cpu.cbit })
  return pfn
}

const pageFault = (cpu: Processor, address: number): number => {
  setU64(cpu.view, VMSA.cr2, address)
  return failTranslation(ACCESS_RESULT.PF)
}

/**
 * GPA of the operand of PVALIDATE, RMPADJUST or RMPQUERY, which the guest's own tables translate first; -1 where they
 * do not map it (the instruction decides what that gives), -2 where the walk itself failed.
 */
export const operandAddress = (cpu: Processor, address: number): number => {
  if (!cpu.hasPaging) return address
  const gpa = walk(cpu, address, ACCESS.READ, 0)
  if (gpa === WALK_PAGE_FAULT) {
    setU64(cpu.view, VMSA.cr2, address)
    return -1
  }
  return gpa < 0 ? -2 : gpa
}
