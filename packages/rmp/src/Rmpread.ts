// @section 1.5, 2.7
import type { PageSize } from "./PageSize.ts"
import { RETURN_CODE } from "./ReturnCode.ts"
import { subpageCount } from "./RmpEntry.ts"
import { ASSIGNED, asidOf, gfnOf, IMMUTABLE, indexOf, isLarge, LARGE, type RmpTable, rowOf } from "./RmpTable.ts"

/** What RMPREAD shows of an entry: Validated, VMSA and the masks stay hidden from the hypervisor. */
export interface RmpReadResult {
  assigned: boolean
  size: PageSize
  immutable: boolean
  gfn: number
  asid: number
  /** On a 2 MiB-aligned page: some other page of its region is assigned. */
  regionStatus: boolean
}

/**
 * RMPREAD by the host, of the entry as stored. EAX 0, or 1 where the page is not covered (2 in a guest, see Rmp).
 * @spec APM2 15.36.5
 * @spec-silent U18
 */
export const rmpread = (table: RmpTable, pfn: number, out?: RmpReadResult): number => {
  const index = indexOf(table, pfn)
  if (index < 0) return RETURN_CODE.FAIL_INPUT
  if (out === undefined) return RETURN_CODE.SUCCESS
  const row = rowOf(table, index)
  const flags = table.words[row]!
  out.assigned = (flags & ASSIGNED) !== 0
  out.size = (flags & LARGE) === 0 ? 0 : 1
  out.immutable = (flags & IMMUTABLE) !== 0
  out.gfn = gfnOf(table, row)
  out.asid = asidOf(table, row)
  const others = isLarge(table, row) ? table.switches.U18 === "alternative" : subpageCount(table, pfn) > 0
  out.regionStatus = pfn % table.pagesPer2M === 0 && others
  return RETURN_CODE.SUCCESS
}
