// @section 3.3
import { ACCESS } from "@vmpl-lab/rmp"
import { getU64, VMSA } from "@vmpl-lab/sev-es"
import type { Processor } from "./Processor.ts"
import { TRANSLATION } from "./Translation.ts"

/**
 * Whether an access is made with the guest's key: a fetch or an access to page tables always; data by its address under
 * virtual top of memory, else by the C-bit of its mapping.
 * @param kind of ACCESS, with no modifier
 * @spec APM2 15.36.8
 */
export const effectiveCbit = (cpu: Processor, kind: number, gpa: number, cbit: boolean): boolean => {
  if (kind === ACCESS.FETCH || kind === ACCESS.PAGE_TABLE_READ || kind === ACCESS.PAGE_TABLE_WRITE) return true
  return (cpu.translation & TRANSLATION.VTOM) === 0 ? cbit : gpa < getU64(cpu.view, VMSA.virtual_tom)
}
