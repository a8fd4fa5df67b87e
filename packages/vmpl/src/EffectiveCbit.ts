import { ACCESS } from "@vmpl-lab/rmp"
import { getU64, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import type { Processor } from "./Processor.ts"

/** Whether an access is a data access; all others are private whatever anybody says. */
const isData = (kind: number): boolean =>
  kind === ACCESS.READ || kind === ACCESS.WRITE || (kind & 7) === ACCESS.SHADOW_STACK

/** Whether the current VMPL has SEV_FEATURES.vTOM. */
export const hasVirtualTom = (cpu: Processor): boolean =>
  (cpu.view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.vTOM) !== 0

/**
 * The C-bit that counts: of the mapping (`cbit`), or with vTOM whether the GPA lies below VIRTUAL_TOM. Fetches and
 * page-table accesses are always private.
 * @spec APM2 15.36.8
 */
export const effectiveCbit = (cpu: Processor, gpa: number, kind: number, cbit: boolean): boolean => {
  if (!isData(kind)) return true
  return hasVirtualTom(cpu) ? gpa < getU64(cpu.view, VMSA.virtual_tom) : cbit
}
