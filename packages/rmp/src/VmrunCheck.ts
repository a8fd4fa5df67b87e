import {
  ASID_SHIFT,
  ASSIGNED,
  hasGfn,
  IMMUTABLE,
  IN_USE,
  type RmpTable,
  ROW_WORDS,
  regionOf,
  rowOf,
  rulingRow,
  VMSA
} from "./RmpTable.ts"

const VMSA_PAGE = ASSIGNED | IMMUTABLE | VMSA | (-1 << ASID_SHIFT)

/**
 * VMRUN's check of an SNP guest's VMSA page: Covered, Guest-Owned, Reverse-Map, Mutable, VMSA bit; neither Validated
 * nor Page-Size nor VMPL. False means VMEXIT_INVALID. Whether the page is in use already is asked with `isInUse`.
 * @spec APM2 15.36.10 table 15-41
 */
export const checkVmrunVmsa = (table: RmpTable, asid: number, gfn: number, pfn: number): boolean => {
  const own = rowOf(table, pfn)
  if (own < 0) return false
  const row = rulingRow(table, own)
  if ((table.words[row]! & VMSA_PAGE) !== (ASSIGNED | VMSA | (asid << ASID_SHIFT))) return false
  return hasGfn(table, row, gfn - (own - row) / ROW_WORDS)
}

/** VMRUN starts (true) or #VMEXIT ends (false) the use of a VMCB, AVIC backing or VMSA page. @spec APM2 15.36.12 */
export const setInUse = (table: RmpTable, pfn: number, inUse: boolean): void => {
  const row = rowOf(table, pfn)
  // A page without an entry is not protected by one: nothing is recorded.
  if (row < 0 || ((table.words[row]! & IN_USE) !== 0) === inUse) return
  const region = regionOf(row)
  table.words[row]! ^= IN_USE
  table.inUseIn[region]! += inUse ? 1 : -1
  table.touched[region] = 1
}

export const isInUse = (table: RmpTable, pfn: number): boolean => {
  const row = rowOf(table, pfn)
  return row >= 0 && (table.words[row]! & IN_USE) !== 0
}
