// @section 2.5
import { RETURN_CODE } from "./ReturnCode.ts"
import {
  asidOf,
  expand,
  gfnOf,
  headRowOf,
  IMMUTABLE,
  IN_USE,
  indexOf,
  isLarge,
  isRulingInUse,
  LARGE,
  MASKS,
  OWNER,
  type RmpTable,
  writeEntry
} from "./RmpTable.ts"

/**
 * PSMASH by the host: a 2 MiB entry becomes 512 of 4 KiB with consecutive GPAs; all else is copied, Validated included.
 * EAX 0, 1, 2, 3, and 7 (U4: 4) where the page is no 2 MiB entry.
 * @spec APM2 15.36.11
 * @spec-silent the order of the checks and U4
 */
export const psmash = (table: RmpTable, pfn: number): number => {
  const head = indexOf(table, pfn)
  if (head < 0 || pfn % table.pagesPer2M !== 0) return RETURN_CODE.FAIL_INPUT
  const row = headRowOf(table, head)
  const old = table.words[row]!
  if ((old & IMMUTABLE) !== 0) return RETURN_CODE.FAIL_PERMISSION
  if (!isLarge(table, row)) return table.switches.U4 === "default" ? RETURN_CODE.FAIL_BADADDR : RETURN_CODE.FAIL_OVERLAP
  if (isRulingInUse(table, head)) return RETURN_CODE.FAIL_INUSE
  const flags = old & ~(LARGE | IN_USE | OWNER)
  const asid = asidOf(table, row)
  const gfn = gfnOf(table, row)
  const masks = table.words[row + MASKS]!
  expand(table, head)
  for (let page = 0; page < table.pagesPer2M; page++) writeEntry(table, head + page, flags, asid, gfn + page, masks)
  return RETURN_CODE.SUCCESS
}
