// @section 3.6
import {
  ASSIGNED,
  IMMUTABLE,
  IN_USE,
  indexOf,
  isOwnedAt,
  offsetInRuling,
  ownRowOf,
  type RmpTable,
  regionOf,
  rowOf,
  rulingRow,
  VMSA
} from "./RmpTable.ts"

const VMSA_PAGE = ASSIGNED | IMMUTABLE | VMSA

/**
 * VMRUN's check of an SNP guest's VMSA page: Covered, Guest-Owned, Reverse-Map, Mutable, VMSA bit; neither Validated
 * nor Page-Size nor VMPL. False means VMEXIT_INVALID. Whether the page is in use already is asked with `isInUse`.
 * @spec APM2 15.36.10 table 15-41
 */
export const checkVmrunVmsa = (table: RmpTable, asid: number, gfn: number, pfn: number): boolean => {
  const index = indexOf(table, pfn)
  if (index < 0) return false
  const row = rulingRow(table, index)
  if ((table.words[row]! & VMSA_PAGE) !== (ASSIGNED | VMSA)) return false
  return isOwnedAt(table, row, asid, gfn - offsetInRuling(table, index))
}

/** VMRUN starts (true) or #VMEXIT ends (false) the use of a VMCB, AVIC backing or VMSA page. @spec APM2 15.36.12 */
export const setInUse = (table: RmpTable, pfn: number, inUse: boolean): void => {
  const index = indexOf(table, pfn)
  // A page without an entry is not protected by one: nothing is recorded.
  if (index < 0 || ((table.words[rowOf(table, index)]! & IN_USE) !== 0) === inUse) return
  const row = ownRowOf(table, index)
  table.words[row]! ^= IN_USE
  table.inUseIn[regionOf(table, index)]! += inUse ? 1 : -1
}

export const isInUse = (table: RmpTable, pfn: number): boolean => {
  const index = indexOf(table, pfn)
  return index >= 0 && (table.words[rowOf(table, index)]! & IN_USE) !== 0
}
