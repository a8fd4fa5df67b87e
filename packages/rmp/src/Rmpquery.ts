// @section 2.6
import { FAULT, NPF_RMP } from "./Fault.ts"
import { findGuestRow } from "./GuestPage.ts"
import { PAGE_2M, type PageSize } from "./PageSize.ts"
import { RETURN_CODE } from "./ReturnCode.ts"
import { isLarge, MASKS, type RmpTable, VALIDATED, VMSA } from "./RmpTable.ts"

/** RDX[15:8], RDX[16] and RCX[0]. */
export interface RmpQueryResult {
  mask: number
  vmsa: boolean
  size: PageSize
}

/**
 * RMPQUERY: EAX 0, 1 or 2, or a fault. `out` is written only on success.
 * @spec APM2 15.36.7
 * @spec-silent the target comes first, a VMPL that does not exist is FAIL_INPUT, and the Page-Size rule of a plain
 * access holds; U5, U6
 */
export const rmpquery = (
  table: RmpTable,
  asid: number,
  vmpl: number,
  gfn: number,
  pfn: number,
  nptSize: number,
  targetVmpl: number,
  out?: RmpQueryResult
): number => {
  if (targetVmpl >= table.vmpls) return RETURN_CODE.FAIL_INPUT
  const lowest = table.switches.U6 === "default" ? vmpl + 1 : vmpl
  if (targetVmpl < lowest) return RETURN_CODE.FAIL_PERMISSION
  const row = findGuestRow(table, asid, gfn, pfn)
  if (row < 0) return -row
  const large = isLarge(table, row)
  if (large !== (nptSize === PAGE_2M)) return NPF_RMP
  const flags = table.words[row]!
  if ((flags & VALIDATED) === 0) return FAULT.VC_NOT_VALIDATED
  if (out !== undefined) {
    out.mask = (table.words[row + MASKS]! >>> (targetVmpl * 8)) & 0xff
    out.vmsa = (flags & VMSA) !== 0
    out.size = large ? 1 : 0
  }
  return RETURN_CODE.SUCCESS
}
