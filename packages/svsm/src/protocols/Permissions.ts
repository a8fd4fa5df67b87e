import { SVSM_RESULT } from "@vmpl-lab/guest"
import { PERMISSION, RETURN_CODE } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { invlpgb, type Program, rmpadjust, sequence, tlbsync } from "@vmpl-lab/vmpl"
import { SIZE_2M } from "../GuestAddress.ts"
import type { SvsmState } from "../State.ts"
import { instructionResult, KNOWN_STATUS } from "./Request.ts"

/** Full rights for the caller's level, `vmpl`, and the more privileged ones but 0. @spec SVSM 6.2 */
export function* grant(state: SvsmState, gpa: number, vmpl: number): Program<number> {
  for (const level of state.behaviour.grantedLevels(vmpl)) {
    const { lo } = yield rmpadjust(gpa, level, PERMISSION.ALL, false)
    if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.RMPADJUST)
  }
  return SVSM_RESULT.SUCCESS
}

/**
 * Drops all translations of this guest on every core: rights that were taken hold as long as a TLB remembers them. In one
 * go, so that no other CPU comes in between.
 */
export const FLUSH_TLBS = sequence([invlpgb(), tlbsync()])

/** No rights for any level but 0. Cores may use what they have cached until `FLUSH_TLBS`. */
export function* revoke(state: SvsmState, gpa: number): Program<number> {
  for (const level of state.behaviour.revokedLevels) {
    const { lo } = yield rmpadjust(gpa, level, 0, false)
    if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.RMPADJUST)
  }
  return SVSM_RESULT.SUCCESS
}

/**
 * Full rights to a validated 2 MiB region for the levels that `grant` serves; page by page where the host has smashed
 * its entry since.
 */
export function* grantRegion(state: SvsmState, gpa: number, vmpl: number): Program<number> {
  for (const level of state.behaviour.grantedLevels(vmpl)) {
    const { lo } = yield rmpadjust(gpa, level, PERMISSION.ALL, false, 1)
    if (lo === RETURN_CODE.FAIL_SIZEMISMATCH) {
      for (let page = gpa; page < gpa + SIZE_2M; page += PAGE_SIZE) {
        const result = yield* grant(state, page, vmpl)
        if (result !== SVSM_RESULT.SUCCESS) return result
      }
      return SVSM_RESULT.SUCCESS
    }
    if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.RMPADJUST)
  }
  return SVSM_RESULT.SUCCESS
}

/** No rights to a 2 MiB region for any level but 0. */
export function* revokeRegion(state: SvsmState, gpa: number): Program<number> {
  for (const level of state.behaviour.revokedLevels) {
    const { lo } = yield rmpadjust(gpa, level, 0, false, 1)
    if (lo !== 0) return instructionResult(state, lo, KNOWN_STATUS.RMPADJUST)
  }
  return SVSM_RESULT.SUCCESS
}
