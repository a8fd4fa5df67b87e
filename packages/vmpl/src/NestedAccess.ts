import { ACCESS, FAULT } from "@vmpl-lab/rmp"
import { NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { RESERVED_LEAF } from "./NestedPageTable.ts"
import type { Processor } from "./Processor.ts"

/** Outcome of an access or instruction in guest mode. */
export const ACCESS_RESULT = {
  OK: 0,
  NPF: 1,
  VC_NOT_VALIDATED: 2,
  GP: 3,
  /** A nested fault with reserved bits set is no automatic exit: the guest gets #VC. @spec APM2 15.35 */
  VC_NPF: 4,
  PF: 7
} as const

export type AccessResult = (typeof ACCESS_RESULT)[keyof typeof ACCESS_RESULT]

/** Which part of a translation an access is: bits 32 and 33 of EXITINFO1. */
export const WALK = { FINAL: NPF_INFO1_HI.FINAL, PAGE_TABLE: NPF_INFO1_HI.PAGE_TABLE } as const

/**
 * Takes a fault number of the RMP into the exit information of this core.
 * @returns which of ACCESS_RESULT it is
 * @spec APM2 15.36.10
 */
export const recordFault = (
  cpu: Processor,
  fault: number,
  gpa: number,
  kind: number,
  cbit: boolean,
  part: number = WALK.FINAL
): AccessResult => {
  cpu.faultGpa = gpa
  if ((fault & FAULT.VC_NOT_VALIDATED) !== 0) return ACCESS_RESULT.VC_NOT_VALIDATED
  if ((fault & FAULT.PF) !== 0) return ACCESS_RESULT.PF
  if ((fault & (FAULT.GP | FAULT.UD)) !== 0) return ACCESS_RESULT.GP
  const access = kind & 7
  const writes = access === ACCESS.WRITE || access === ACCESS.PAGE_TABLE_WRITE || access === ACCESS.SHADOW_STACK
  // U is set: the guest part of a nested walk is a user access. P only with an RMP fault: the leaf was there.
  cpu.faultInfoLo =
    (NPF_INFO1.U |
      (writes ? NPF_INFO1.W : 0) |
      (access === ACCESS.FETCH ? NPF_INFO1.ID : 0) |
      (access === ACCESS.SHADOW_STACK ? NPF_INFO1.SS : 0) |
      ((fault & FAULT.RMP) !== 0 ? NPF_INFO1.RMP | NPF_INFO1.P : 0)) >>>
    0
  cpu.faultInfoHi =
    part |
    (cbit ? NPF_INFO1_HI.ENC : 0) |
    ((fault & FAULT.SIZEM) !== 0 ? NPF_INFO1_HI.SIZEM : 0) |
    ((fault & FAULT.VMPL) !== 0 ? NPF_INFO1_HI.VMPL : 0) |
    ((fault & FAULT.SSS) !== 0 ? NPF_INFO1_HI.SSS : 0)
  return ACCESS_RESULT.NPF
}

/** Why the latest translation gave -1. A module variable, as the hot path allocates nothing. */
let lastResult: AccessResult = ACCESS_RESULT.OK
export const translateFailure = (): AccessResult => lastResult

/** Notes why a translation failed. @returns -1 */
export const failTranslation = (result: AccessResult): number => {
  lastResult = result
  return -1
}

/** The system frame behind a GPA, after nested table and RMP have let the access through; else -1. */
export const translateNested = (
  cpu: Processor,
  gpa: number,
  kind: number,
  cbit: boolean,
  part: number = WALK.FINAL
): number => {
  const npt = cpu.npt!
  const gfn = Math.floor(gpa / PAGE_SIZE)
  const pfn = npt.lookup(gfn)
  if (pfn < 0) {
    if (pfn === RESERVED_LEAF) {
      cpu.faultGpa = gpa
      return failTranslation(ACCESS_RESULT.VC_NPF)
    }
    return failTranslation(recordFault(cpu, FAULT.NPF, gpa, kind, cbit, part))
  }
  const cpl = cpu.registers[VMSA.cpl]!
  const checked = cpu.hasVmplSss ? kind | ACCESS.VMPL_SSS : kind
  const { rmp } = cpu.hardware
  const fault = cpu.isSnp
    ? rmp.checkGuest(cpu.asid, cpu.vmpl, cpl, checked, cbit, gfn, pfn, npt.leafSize)
    : rmp.checkNonSnpGuest(pfn, kind, npt.leafSize)
  if (fault === FAULT.NONE) return pfn
  return failTranslation(recordFault(cpu, fault, gpa, kind, cbit, part))
}
