import { CALLING_AREA } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { SvsmState } from "./State.ts"

const overlaps = (a: number, aSize: number, b: number, bSize: number): boolean => a < b + bSize && b < a + aSize

/**
 * True when a range is guest memory that a guest may name: inside guest RAM or the firmware's range, hence outside of
 * the SVSM's own; no live VMSA page and no live calling area in it.
 * @spec SVSM 6, conflict rules
 */
export const validRegion = (state: SvsmState, gpa: number, size: number): boolean => {
  const { ramSize, firmware, highRam } = state.parameters
  const end = gpa + size
  const inRam = end <= ramSize
  const inFirmware = gpa >= firmware.gpa && end <= firmware.gpa + firmware.size
  const inHighRam = gpa >= highRam.gpa && end <= highRam.gpa + highRam.size
  if (!Number.isSafeInteger(end) || !(inRam || inFirmware || inHighRam)) return false
  return !state.registry.some(
    ({ vmsaGpa, caGpa }) => overlaps(gpa, size, vmsaGpa, PAGE_SIZE) || overlaps(gpa, size, caGpa, CALLING_AREA.SIZE)
  )
}

/** True when every page of the range is known to be validated: touching it cannot raise #VC. */
export const isValidated = (state: SvsmState, gpa: number, size: number): boolean => {
  for (let gfn = Math.floor(gpa / PAGE_SIZE); gfn * PAGE_SIZE < gpa + size; gfn++) {
    if (!state.validated.has(gfn)) return false
  }
  return true
}
