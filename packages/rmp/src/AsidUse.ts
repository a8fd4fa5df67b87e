import { ASSIGNED, asidOf, headRowOf, type RmpTable, ROW_WORDS, UNASSIGNED_ROW } from "./RmpTable.ts"

/**
 * Whether any page is assigned to a guest's ASID. Hardware keeps a counter per ASID in front of the entries; here the
 * rows are looked through, of which a 2 MiB page has one. @spec SNP-ABI ACTIVATE
 */
export const hasPagesOf = (table: RmpTable, asid: number): boolean => {
  for (let region = 0; region < table.rowOfRegion.length; region++) {
    if (table.assignedIn[region] === 0) continue
    const head = headRowOf(table, region * table.pagesPer2M)
    if (head === UNASSIGNED_ROW) continue
    const rows = head < table.firstBlock ? 1 : table.pagesPer2M
    for (let row = head; row < head + rows * ROW_WORDS; row += ROW_WORDS)
      if ((table.words[row]! & ASSIGNED) !== 0 && asidOf(table, row) === asid) return true
  }
  return false
}
