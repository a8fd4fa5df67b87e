import { SVSM_RESULT } from "@vmpl-lab/guest"
import { PERMISSION, RETURN_CODE } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Program, rmpadjust } from "@vmpl-lab/vmpl"
import { instructionResult } from "./Request.ts"

const LEAST_PRIVILEGED = 3
const SIZE_2M = 0x20_0000

/** Full rights for the levels 1 to `vmpl`. */
export function* grant(gpa: number, vmpl: number): Program<number> {
  for (let level = 1; level <= vmpl; level++) {
    const { lo } = yield rmpadjust(gpa, level, PERMISSION.ALL, false)
    if (lo !== 0) return instructionResult(lo)
  }
  return SVSM_RESULT.SUCCESS
}

/** No rights for any level but 0. */
export function* revoke(gpa: number): Program<number> {
  for (let level = 1; level <= LEAST_PRIVILEGED; level++) {
    const { lo } = yield rmpadjust(gpa, level, 0, false)
    if (lo !== 0) return instructionResult(lo)
  }
  return SVSM_RESULT.SUCCESS
}

/**
 * Full rights to a validated 2 MiB region for the levels 1 to `vmpl`; page by page where the host has smashed its entry
 * since.
 */
export function* grantRegion(gpa: number, vmpl: number): Program<number> {
  for (let level = 1; level <= vmpl; level++) {
    const { lo } = yield rmpadjust(gpa, level, PERMISSION.ALL, false, 1)
    if (lo === RETURN_CODE.FAIL_SIZEMISMATCH) {
      for (let page = gpa; page < gpa + SIZE_2M; page += PAGE_SIZE) {
        const result = yield* grant(page, vmpl)
        if (result !== SVSM_RESULT.SUCCESS) return result
      }
      return SVSM_RESULT.SUCCESS
    }
    if (lo !== 0) return instructionResult(lo)
  }
  return SVSM_RESULT.SUCCESS
}

/** No rights to a 2 MiB region for any level but 0. */
export function* revokeRegion(gpa: number): Program<number> {
  for (let level = 1; level <= LEAST_PRIVILEGED; level++) {
    const { lo } = yield rmpadjust(gpa, level, 0, false, 1)
    if (lo !== 0) return instructionResult(lo)
  }
  return SVSM_RESULT.SUCCESS
}
