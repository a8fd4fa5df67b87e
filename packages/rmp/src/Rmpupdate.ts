import { FAULT } from "./Fault.ts"
import { PAGE_2M, PAGES_PER_2M } from "./PageSize.ts"
import { RETURN_CODE } from "./ReturnCode.ts"
import {
  ASID_SHIFT,
  ASSIGNED,
  asidOf,
  hasGfn,
  headOf,
  IMMUTABLE,
  IN_USE,
  isLarge,
  LARGE,
  MASKS,
  type RmpTable,
  ROW_WORDS,
  regionOf,
  rowOf,
  VALIDATED,
  VMSA,
  writeInnerRows,
  writeRow
} from "./RmpTable.ts"

/** Whether a page other than the first of the region is immutable; only HV-Fixed pages can be, once none is assigned. */
const hasImmutableInnerPage = (table: RmpTable, head: number): boolean => {
  for (let page = 1; page < PAGES_PER_2M; page++)
    if ((table.words[head + page * ROW_WORDS]! & IMMUTABLE) !== 0) return true
  return false
}

/** FAIL_OVERLAP rule. @spec APM3 RMPUPDATE @spec-silent 4 KiB inside a 2 MiB page: tested on hardware, not in the text */
const overlaps = (table: RmpTable, row: number, size: number): boolean => {
  const head = headOf(row)
  if (size !== PAGE_2M) return isLarge(table, head)
  return !isLarge(table, head) && table.assignedIn[regionOf(head)] !== 0
}

const isInUse = (table: RmpTable, row: number, size: number): boolean =>
  size === PAGE_2M ? table.inUseIn[regionOf(row)] !== 0 : (table.words[row]! & IN_USE) !== 0

/** The checks after coverage, in order; SUCCESS where the entry may be written. */
const checkOld = (table: RmpTable, row: number, size: number): number => {
  if ((table.words[row]! & IMMUTABLE) !== 0) return RETURN_CODE.FAIL_PERMISSION
  if (overlaps(table, row, size)) return RETURN_CODE.FAIL_OVERLAP
  if (size === PAGE_2M && table.switches.U17 === "default" && hasImmutableInnerPage(table, row))
    return RETURN_CODE.FAIL_PERMISSION
  return isInUse(table, row, size) ? RETURN_CODE.FAIL_INUSE : RETURN_CODE.SUCCESS
}

/**
 * RMPUPDATE by the host. EAX 0, 1, 2, 3 or 4. Validated, VMSA and the masks survive only where owner, GPA and size stay.
 * @spec APM3 RMPUPDATE
 * @spec APM2 15.36.5
 * @spec-silent U1, U7, U8, U17
 */
export const rmpupdate = (
  table: RmpTable,
  pfn: number,
  assigned: boolean,
  size: number,
  immutable: boolean,
  gfn: number,
  asid: number
): number => {
  const row = rowOf(table, pfn)
  if (table.switches.U8 === "alternative" && row >= 0 && isInUse(table, row, size)) return RETURN_CODE.FAIL_INUSE
  if (size === PAGE_2M && pfn % PAGES_PER_2M !== 0) return RETURN_CODE.FAIL_INPUT
  if (!assigned && (immutable || asid !== 0)) return RETURN_CODE.FAIL_INPUT
  if (row < 0) return RETURN_CODE.FAIL_INPUT
  const failure = checkOld(table, row, size)
  if (failure !== RETURN_CODE.SUCCESS) return failure

  const old = table.words[row]!
  const large = assigned && size === PAGE_2M
  const unchanged =
    table.switches.U1 === "default" &&
    asid !== 0 &&
    (old & (ASSIGNED | LARGE)) === (ASSIGNED | (large ? LARGE : 0)) &&
    asidOf(table, row) === asid &&
    hasGfn(table, row, gfn)
  const kept = unchanged ? old & (VALIDATED | VMSA) : 0
  const masks = unchanged ? table.words[row + MASKS]! : table.initialMasks
  const flags = (assigned ? ASSIGNED : 0) | (large ? LARGE : 0) | (immutable ? IMMUTABLE : 0) | (asid << ASID_SHIFT)
  writeRow(table, row, flags | kept, gfn, masks)
  if (size === PAGE_2M) writeInnerRows(table, row, assigned)
  return RETURN_CODE.SUCCESS
}

/** RMPUPDATE or PSMASH executed by a guest: a return code or #UD. @spec-silent U12 */
export const hostInstructionByGuest = (table: RmpTable): number =>
  table.switches.U12 === "default" ? RETURN_CODE.FAIL_PERMISSION : FAULT.UD
