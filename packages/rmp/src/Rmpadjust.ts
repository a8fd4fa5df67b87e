// @section 2.3
import { FAULT } from "./Fault.ts"
import { findGuestRow, isMisaligned, isSizeMismatch, sizeFault } from "./GuestPage.ts"
import { PERMISSION_RESERVED } from "./Permission.ts"
import { RETURN_CODE } from "./ReturnCode.ts"
import { indexOf, isRulingInUse, MASKS, type RmpTable, VALIDATED, VMSA } from "./RmpTable.ts"

/**
 * RMPADJUST: EAX 0, 1, 2, 3 or 6, or a fault. Replaces the mask of a numerically higher VMPL; only at VMPL0 it writes
 * the VMSA bit, elsewhere `vmsa` is ignored without a sign.
 * @spec APM3 RMPADJUST
 * @spec APM2 15.36.7
 * @spec-silent U2, U5, U10, U13, U15
 */
export const rmpadjust = (
  table: RmpTable,
  asid: number,
  vmpl: number,
  gfn: number,
  pfn: number,
  nptSize: number,
  size: number,
  targetVmpl: number,
  mask: number,
  vmsa: boolean
): number => {
  if (isMisaligned(table, gfn, size) || targetVmpl >= table.vmpls || (mask & PERMISSION_RESERVED) !== 0)
    return RETURN_CODE.FAIL_INPUT
  const targetAllowed = targetVmpl > vmpl
  if (!targetAllowed && table.switches.U13 === "default") return RETURN_CODE.FAIL_PERMISSION
  const row = findGuestRow(table, asid, gfn, pfn)
  if (row < 0) return -row
  const fault = sizeFault(table, row, nptSize, size)
  if (fault !== FAULT.NONE) return fault
  const { words } = table
  if ((words[row]! & VALIDATED) === 0) return FAULT.VC_NOT_VALIDATED
  if (isSizeMismatch(table, row, nptSize, size)) return RETURN_CODE.FAIL_SIZEMISMATCH
  const masks = words[row + MASKS]!
  if (!targetAllowed || (mask & ~(masks >>> (vmpl * 8)) & 0xff) !== 0) return RETURN_CODE.FAIL_PERMISSION
  if (isRulingInUse(table, indexOf(table, pfn)))
    return table.switches.U2 === "default" ? RETURN_CODE.FAIL_INUSE : RETURN_CODE.FAIL_PERMISSION
  const shift = targetVmpl * 8
  words[row + MASKS] = (masks & ~(0xff << shift)) | (mask << shift)
  if (vmpl === 0) words[row] = vmsa ? words[row]! | VMSA : words[row]! & ~VMSA
  return RETURN_CODE.SUCCESS
}
