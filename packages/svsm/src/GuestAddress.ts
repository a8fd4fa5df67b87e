import { CALLING_AREA } from "@vmpl-lab/guest"
import { PERMISSION } from "@vmpl-lab/rmp"
import { INITIAL_VMSA_GPA, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, rmpquery } from "@vmpl-lab/vmpl"
import { COCONUT_PANIC } from "./CoconutPanic.ts"
import type { SvsmState } from "./State.ts"

/** Bytes of a large page. */
export const SIZE_2M = 0x20_0000

const overlaps = (a: number, aSize: number, b: number, bSize: number): boolean => a < b + bSize && b < a + aSize

/**
 * True when a range is guest memory that a guest may name: wholly inside one of guest RAM, the firmware's range and high
 * RAM, hence outside of the SVSM's own; no live VMSA page, no live calling area and no deposited page in it, and not the
 * page where KVM launches the SVSM's VMSA.
 * @spec SVSM 6, conflict rules
 */
export const validRegion = (state: SvsmState, gpa: number, size: number): boolean => {
  const { ramSize, firmware, highRam } = state.parameters
  const end = gpa + size
  const inRam = end <= ramSize
  const inFirmware = gpa >= firmware.gpa && end <= firmware.gpa + firmware.size
  const inHighRam = gpa >= highRam.gpa && end <= highRam.gpa + highRam.size
  if (!Number.isSafeInteger(end) || !(inRam || inFirmware || inHighRam)) return false
  if (overlaps(gpa, size, INITIAL_VMSA_GPA, PAGE_SIZE)) return false
  if (isDeposited(state, gpa, end)) return false
  return !state.registry.some(
    ({ vmsaGpa, caGpa }) => overlaps(gpa, size, vmsaGpa, PAGE_SIZE) || overlaps(gpa, size, caGpa, CALLING_AREA.SIZE)
  )
}

const isDeposited = ({ deposited }: SvsmState, gpa: number, end: number): boolean => {
  if (deposited.size === 0) return false
  for (let gfn = Math.floor(gpa / PAGE_SIZE); gfn * PAGE_SIZE < end; gfn++) if (deposited.has(gfn)) return true
  return false
}

/**
 * True when every page of the range is known to be validated, and no CPU is just changing that: touching it cannot raise
 * #VC.
 */
export const isValidated = (state: SvsmState, gpa: number, size: number): boolean => {
  for (let gfn = Math.floor(gpa / PAGE_SIZE); gfn * PAGE_SIZE < gpa + size; gfn++) {
    if (!state.validated.has(gfn)) {
      state.wouldPanic(COCONUT_PANIC.UNVALIDATED_PAGE)
      return false
    }
    if (state.changing.has(gfn)) return false
  }
  return true
}

/** True when a range is the guest's to name and every page of it can be touched. */
export const isGuestBuffer = (state: SvsmState, gpa: number, size: number): boolean =>
  validRegion(state, gpa, size) && isValidated(state, gpa, size)

/**
 * True when the calling level has itself the right to write a range of validated memory. What the SVSM does for it must
 * not reach further: it runs at VMPL0, where nothing stops it. The guest's most privileged level has all rights, so only
 * the others are looked up. The caller keeps the range from being rescinded meanwhile.
 * @spec-silent whether an SVSM tests what the caller's level could access
 */
export function* mayWrite(state: SvsmState, callerVmpl: number, gpa: number, size: number): Program<boolean> {
  if (callerVmpl <= state.parameters.guestVmpl) return true
  for (let page = gpa - (gpa % PAGE_SIZE); page < gpa + size; page += PAGE_SIZE) {
    const { lo: eax, edx } = yield rmpquery(page, callerVmpl)
    if (eax !== 0 || ((edx >>> 8) & PERMISSION.WRITE) === 0) return false
  }
  return true
}
