import { PAGES_PER_2M } from "./PageSize.ts"
import { RETURN_CODE } from "./ReturnCode.ts"
import {
  gfnOf,
  IMMUTABLE,
  IN_USE,
  isLarge,
  isRowInUse,
  LARGE,
  MASKS,
  type RmpTable,
  ROW_WORDS,
  rowOf,
  writeRow
} from "./RmpTable.ts"

/**
 * PSMASH by the host: a 2 MiB entry becomes 512 of 4 KiB with consecutive GPAs; all else is copied, Validated included.
 * EAX 0, 1, 2, 3, and 7 (U4: 4) where the page is no 2 MiB entry.
 * @spec APM2 15.36.11
 * @spec-silent the order of the checks and U4
 */
export const psmash = (table: RmpTable, pfn: number): number => {
  const head = rowOf(table, pfn)
  if (head < 0 || pfn % PAGES_PER_2M !== 0) return RETURN_CODE.FAIL_INPUT
  const flags = table.words[head]! & ~(LARGE | IN_USE)
  if ((flags & IMMUTABLE) !== 0) return RETURN_CODE.FAIL_PERMISSION
  if (!isLarge(table, head))
    return table.switches.U4 === "default" ? RETURN_CODE.FAIL_BADADDR : RETURN_CODE.FAIL_OVERLAP
  if (isRowInUse(table, head)) return RETURN_CODE.FAIL_INUSE
  const gfn = gfnOf(table, head)
  const masks = table.words[head + MASKS]!
  for (let page = 0; page < PAGES_PER_2M; page++) writeRow(table, head + page * ROW_WORDS, flags, gfn + page, masks)
  return RETURN_CODE.SUCCESS
}
