import { ACCESS, FAULT, PAGE_4K } from "@vmpl-lab/rmp"
import { NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import type { Processor } from "./Processor.ts"

/** Outcome of an access or instruction in guest mode. */
export const ACCESS_RESULT = { OK: 0, NPF: 1, VC_NOT_VALIDATED: 2, GP: 3 } as const

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
  cbit: boolean
): (typeof ACCESS_RESULT)[keyof typeof ACCESS_RESULT] => {
  cpu.faultGpa = gpa
  if ((fault & FAULT.VC_NOT_VALIDATED) !== 0) return ACCESS_RESULT.VC_NOT_VALIDATED
  if ((fault & (FAULT.GP | FAULT.UD)) !== 0) return ACCESS_RESULT.GP
  const writes = kind === ACCESS.WRITE || kind === ACCESS.PAGE_TABLE_WRITE
  // U is set: the guest part of a nested walk is a user access. P only with an RMP fault: the leaf was there.
  cpu.faultInfoLo =
    (NPF_INFO1.U |
      (writes ? NPF_INFO1.W : 0) |
      (kind === ACCESS.FETCH ? NPF_INFO1.ID : 0) |
      ((fault & FAULT.RMP) !== 0 ? NPF_INFO1.RMP | NPF_INFO1.P : 0)) >>>
    0
  cpu.faultInfoHi =
    NPF_INFO1_HI.FINAL |
    (cbit ? NPF_INFO1_HI.ENC : 0) |
    ((fault & FAULT.SIZEM) !== 0 ? NPF_INFO1_HI.SIZEM : 0) |
    ((fault & FAULT.VMPL) !== 0 ? NPF_INFO1_HI.VMPL : 0) |
    ((fault & FAULT.SSS) !== 0 ? NPF_INFO1_HI.SSS : 0)
  return ACCESS_RESULT.NPF
}

/** The system frame behind a guest access, after the nested table and the RMP have let it through; else -1. */
export const translate = (cpu: Processor, gpa: number, kind: number, cbit: boolean): number => {
  const gfn = Math.floor(gpa / PAGE_SIZE)
  const pfn = cpu.npt!.lookup(gfn)
  if (pfn < 0) {
    lastResult = recordFault(cpu, FAULT.NPF, gpa, kind, cbit)
    return -1
  }
  const cpl = cpu.registers[VMSA.cpl]!
  const fault = cpu.hardware.rmp.checkGuest(cpu.asid, cpu.vmpl, cpl, kind, cbit, gfn, pfn, PAGE_4K)
  if (fault === FAULT.NONE) return pfn
  lastResult = recordFault(cpu, fault, gpa, kind, cbit)
  return -1
}

/** Why the latest translate gave -1. A module variable, as the hot path allocates nothing. */
let lastResult: (typeof ACCESS_RESULT)[keyof typeof ACCESS_RESULT] = ACCESS_RESULT.OK
export const translateFailure = (): (typeof ACCESS_RESULT)[keyof typeof ACCESS_RESULT] => lastResult
