// @section 2.2
import { FAULT } from "./Fault.ts"
import { findGuestRow, isMisaligned, isSizeMismatch, sizeFault } from "./GuestPage.ts"
import { CARRY, RETURN_CODE } from "./ReturnCode.ts"
import { indexOf, isRulingInUse, type RmpTable, VALIDATED } from "./RmpTable.ts"

/**
 * PVALIDATE: EAX 0, 1, 3 or 6, with CARRY on success that changed nothing, or a fault. Only VMPL0 may execute it.
 * @spec APM2 15.36.6
 * @spec-silent U3, U5, U10, U15, U16
 */
export const pvalidate = (
  table: RmpTable,
  asid: number,
  vmpl: number,
  gfn: number,
  pfn: number,
  nptSize: number,
  size: number,
  validate: boolean
): number => {
  if (vmpl > 0) return table.switches.U3 === "default" ? FAULT.GP : FAULT.UD
  if (isMisaligned(table, gfn, size)) return RETURN_CODE.FAIL_INPUT
  const row = findGuestRow(table, asid, gfn, pfn)
  if (row < 0) return -row
  const fault = sizeFault(table, row, nptSize, size)
  if (fault !== FAULT.NONE) return fault
  if (isSizeMismatch(table, row, nptSize, size)) return RETURN_CODE.FAIL_SIZEMISMATCH
  if (table.switches.U16 === "default" && isRulingInUse(table, indexOf(table, pfn))) return RETURN_CODE.FAIL_INUSE
  const old = table.words[row]!
  const flags = validate ? old | VALIDATED : old & ~VALIDATED
  table.words[row] = flags
  return flags === old ? CARRY : RETURN_CODE.SUCCESS
}
