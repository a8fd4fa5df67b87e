// @section 3.5
import { FAULT, NPF_RMP, NPF_SIZEM } from "./Fault.ts"
import { PAGE_2M } from "./PageSize.ts"
import {
  ASSIGNED,
  IMMUTABLE,
  indexOf,
  isLarge,
  isOwnedAt,
  offsetInRuling,
  type RmpTable,
  rulingRow
} from "./RmpTable.ts"

const OWNERSHIP = ASSIGNED | IMMUTABLE

/**
 * Translation and ownership checks that PVALIDATE, RMPADJUST and RMPQUERY share: the ruling entry must be assigned,
 * mutable, the guest's and of this GPA. Returns its row, or the negated fault.
 * @spec APM2 15.36.10
 * @spec-silent U5
 */
export const findGuestRow = (table: RmpTable, asid: number, gfn: number, pfn: number): number => {
  if (gfn < 0) return table.switches.U5 === "default" ? -FAULT.PF : -FAULT.GP
  if (pfn < 0) return -FAULT.NPF
  const index = indexOf(table, pfn)
  if (index < 0) return -NPF_RMP
  const row = rulingRow(table, index)
  if ((table.words[row]! & OWNERSHIP) !== ASSIGNED) return -NPF_RMP
  return isOwnedAt(table, row, asid, gfn - offsetInRuling(table, index)) ? row : -NPF_RMP
}

/** Whether a 2 MiB operand is misaligned; unknown, hence false, for a GPA that is not mapped. */
export const isMisaligned = (table: RmpTable, gfn: number, size: number): boolean =>
  size === PAGE_2M && gfn >= 0 && gfn % table.pagesPer2M !== 0

/**
 * Size conditions of PVALIDATE and RMPADJUST that fault: FAULT.NONE or a nested page fault.
 * @spec APM2 15.36.10 table 15-40
 * @spec-silent U10, U15
 */
export const sizeFault = (table: RmpTable, row: number, nptSize: number, size: number): number => {
  const large = isLarge(table, row)
  const nptLarge = nptSize === PAGE_2M
  if (size === PAGE_2M) return large !== nptLarge && table.switches.U10 === "default" ? NPF_RMP : FAULT.NONE
  if (large) return NPF_SIZEM
  if (!nptLarge) return FAULT.NONE
  return table.switches.U15 === "default" ? NPF_RMP : NPF_SIZEM
}

/** Size conditions that give FAIL_SIZEMISMATCH, once `sizeFault` has passed. @spec APM2 15.36.10 table 15-40 */
export const isSizeMismatch = (table: RmpTable, row: number, nptSize: number, size: number): boolean =>
  size === PAGE_2M && !(isLarge(table, row) && nptSize === PAGE_2M)
