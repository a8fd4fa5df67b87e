// @section 1.7, 2.4
import { FAULT } from "./Fault.ts"
import { PAGE_2M } from "./PageSize.ts"
import { RETURN_CODE } from "./ReturnCode.ts"
import {
  ASSIGNED,
  headRowOf,
  IMMUTABLE,
  IN_USE,
  indexOf,
  isLarge,
  isOwnedAt,
  LARGE,
  MASKS,
  type RmpTable,
  ROW_WORDS,
  regionOf,
  rowOf,
  VALIDATED,
  VMSA,
  writeEntry,
  writeRegion
} from "./RmpTable.ts"

/** Whether a page other than the first of the region is immutable; only HV-Fixed pages can be, once none is assigned. */
const hasImmutableInnerPage = (table: RmpTable, head: number): boolean => {
  const first = headRowOf(table, head)
  if (first < table.firstBlock) return false
  for (let row = first + ROW_WORDS; row < first + table.pagesPer2M * ROW_WORDS; row += ROW_WORDS)
    if ((table.words[row]! & IMMUTABLE) !== 0) return true
  return false
}

/** FAIL_OVERLAP rule. @spec APM3 RMPUPDATE @spec-silent 4 KiB inside a 2 MiB page: tested on hardware, not in the text */
const overlaps = (table: RmpTable, index: number, size: number): boolean => {
  const large = isLarge(table, headRowOf(table, index))
  return size === PAGE_2M ? !large && table.assignedIn[regionOf(table, index)] !== 0 : large
}

const isInUse = (table: RmpTable, index: number, size: number): boolean =>
  size === PAGE_2M ? table.inUseIn[regionOf(table, index)] !== 0 : (table.words[rowOf(table, index)]! & IN_USE) !== 0

/** The checks after coverage, in order; SUCCESS where the entry may be written. */
const checkOld = (table: RmpTable, index: number, size: number): number => {
  if ((table.words[rowOf(table, index)]! & IMMUTABLE) !== 0) return RETURN_CODE.FAIL_PERMISSION
  if (overlaps(table, index, size)) return RETURN_CODE.FAIL_OVERLAP
  if (size === PAGE_2M && table.switches.U17 === "default" && hasImmutableInnerPage(table, index))
    return RETURN_CODE.FAIL_PERMISSION
  return isInUse(table, index, size) ? RETURN_CODE.FAIL_INUSE : RETURN_CODE.SUCCESS
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
  const index = indexOf(table, pfn)
  if (table.switches.U8 === "alternative" && index >= 0 && isInUse(table, index, size)) return RETURN_CODE.FAIL_INUSE
  if (size === PAGE_2M && pfn % table.pagesPer2M !== 0) return RETURN_CODE.FAIL_INPUT
  if (!assigned && (immutable || asid !== 0)) return RETURN_CODE.FAIL_INPUT
  if (index < 0) return RETURN_CODE.FAIL_INPUT
  const failure = checkOld(table, index, size)
  if (failure !== RETURN_CODE.SUCCESS) return failure

  const row = rowOf(table, index)
  const old = table.words[row]!
  const pageSize = assigned && size === PAGE_2M ? LARGE : 0
  const unchanged =
    table.switches.U1 === "default" &&
    asid !== 0 &&
    (old & (ASSIGNED | LARGE)) === (ASSIGNED | pageSize) &&
    isOwnedAt(table, row, asid, gfn)
  const kept = unchanged ? old & (VALIDATED | VMSA) : 0
  const masks = unchanged ? table.words[row + MASKS]! : table.initialMasks
  const flags = (assigned ? ASSIGNED : 0) | pageSize | (immutable ? IMMUTABLE : 0) | kept
  if (size === PAGE_2M) writeRegion(table, index, flags, asid, gfn, masks)
  else writeEntry(table, index, flags, asid, gfn, masks)
  return RETURN_CODE.SUCCESS
}

/** RMPUPDATE or PSMASH executed by a guest: a return code or #UD. @spec-silent U12 */
export const hostInstructionByGuest = (table: RmpTable): number =>
  table.switches.U12 === "default" ? RETURN_CODE.FAIL_PERMISSION : FAULT.UD
