import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { translateLinear } from "./LinearAccess.ts"
import { accessGpa, PHASE } from "./NestedAccess.ts"
import { HOST_ASID } from "./PhysicalMemory.ts"
import type { Processor } from "./Processor.ts"

/**
 * The system frame behind a guest access, after page tables, nested table and RMP have let it through; else -1, with
 * the reason in `cpu.failure`. `cpu.key` tells with whose key the access sees the frame.
 * @param address linear: guest physical where the VMSA has paging off, and then `cbit` is the C-bit of the mapping
 * @param kind of ACCESS, or SHADOW_STACK_STORE
 */
export const translate = (cpu: Processor, address: number, kind: number, cbit: boolean): number => {
  if (cpu.translation !== 0) return translateLinear(cpu, address, kind, cbit)
  cpu.key = cbit ? cpu.asid : HOST_ASID
  const pfn = accessGpa(cpu, address, kind, cbit, PHASE.FINAL)
  if (pfn < 0) cpu.faultLinear = address
  return pfn
}

/** Offset of an address in its page, for addresses of the upper half too. */
export const offsetInPage = (address: number): number => {
  const offset = address % PAGE_SIZE
  return offset < 0 ? offset + PAGE_SIZE : offset
}
