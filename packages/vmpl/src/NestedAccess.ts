// @section 3.4
import { ACCESS, FAULT } from "@vmpl-lab/rmp"
import { NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { NESTED } from "./NestedPageTable.ts"
import type { Processor } from "./Processor.ts"
import { STEP } from "./Step.ts"

/** An access kind that is a supervisor shadow-stack store; ACCESS.SHADOW_STACK alone is a load. */
export const SHADOW_STACK_STORE = ACCESS.SHADOW_STACK | 0x10

/** The kind as the RMP knows it, without modifiers. */
export const KIND_MASK = 7

/** On whose behalf a guest physical address is translated: for the access itself, or for the guest's page walk. */
export const PHASE = { FINAL: NPF_INFO1_HI.FINAL, PAGE_TABLE: NPF_INFO1_HI.PAGE_TABLE } as const

/** Whether an access counts as a write. Nested translation takes every access to page tables for one. @spec APM2 15.25.6 */
export const isWrite = (kind: number): boolean =>
  kind === ACCESS.WRITE ||
  kind === ACCESS.PAGE_TABLE_READ ||
  kind === ACCESS.PAGE_TABLE_WRITE ||
  kind === SHADOW_STACK_STORE

/**
 * Notes EXITINFO1 and EXITINFO2 of a nested page fault. U is set, as the guest's part of a nested walk is a user access.
 * @param own the bits of EXITINFO1's lower half that tell why
 * @spec APM2 15.25.6, 15.36.10
 */
const noteNpf = (
  cpu: Processor,
  own: number,
  ownHi: number,
  gpa: number,
  kind: number,
  cbit: boolean,
  phase: number
) => {
  cpu.faultGpa = gpa
  cpu.faultInfoLo =
    (own |
      NPF_INFO1.U |
      (isWrite(kind) ? NPF_INFO1.W : 0) |
      (kind === ACCESS.FETCH ? NPF_INFO1.ID : 0) |
      ((kind & KIND_MASK) === ACCESS.SHADOW_STACK ? NPF_INFO1.SS : 0)) >>>
    0
  cpu.faultInfoHi = ownHi | phase | (cbit ? NPF_INFO1_HI.ENC : 0)
}

/**
 * Takes a fault of the RMP, or of a nested leaf that is absent, into the exit information of this core and sets
 * `cpu.failure`. P only with an RMP fault: then the leaf was there.
 * @returns -1, in place of a frame
 * @spec APM2 15.36.10
 */
export const recordFault = (
  cpu: Processor,
  fault: number,
  gpa: number,
  kind: number,
  cbit: boolean,
  phase: number
): -1 => {
  const own = (fault & FAULT.RMP) !== 0 ? NPF_INFO1.RMP | NPF_INFO1.P : 0
  const ownHi =
    ((fault & FAULT.SIZEM) !== 0 ? NPF_INFO1_HI.SIZEM : 0) |
    ((fault & FAULT.VMPL) !== 0 ? NPF_INFO1_HI.VMPL : 0) |
    ((fault & FAULT.SSS) !== 0 ? NPF_INFO1_HI.SSS : 0)
  noteNpf(cpu, own, ownHi, gpa, kind, cbit, phase)
  cpu.failure = STEP.NPF
  if ((fault & FAULT.VC_NOT_VALIDATED) !== 0) cpu.failure = STEP.VC_NOT_VALIDATED
  else if ((fault & FAULT.GP) !== 0) cpu.failure = STEP.GP
  else if ((fault & FAULT.UD) !== 0) cpu.failure = STEP.UD
  return -1
}

/** The same for a leaf with a reserved bit: no automatic exit, but #VC. @returns -1 @spec APM2 15.35.4 */
export const recordReserved = (cpu: Processor, gpa: number, kind: number, cbit: boolean, phase: number): -1 => {
  noteNpf(cpu, NPF_INFO1.P | NPF_INFO1.RSVD, 0, gpa, kind, cbit, phase)
  cpu.failure = STEP.VC_NPF
  return -1
}

/**
 * The system frame behind a guest physical access, after the nested table and the RMP have let it through; else -1,
 * with the reason in `cpu.failure`.
 * @param kind of ACCESS, or SHADOW_STACK_STORE; @param cbit the effective one; @param phase of PHASE
 * @spec APM2 15.36.10
 */
export const accessGpa = (cpu: Processor, gpa: number, kind: number, cbit: boolean, phase: number): number => {
  const gfn = Math.floor(gpa / PAGE_SIZE)
  const npt = cpu.npt!
  const pfn = npt.lookup(gfn)
  if (pfn < 0) {
    return pfn === NESTED.RESERVED
      ? recordReserved(cpu, gpa, kind, cbit, phase)
      : recordFault(cpu, FAULT.NPF, gpa, kind, cbit, phase)
  }
  const cpl = cpu.registers[VMSA.cpl]!
  const asked = (kind & KIND_MASK) | cpu.vmplSss
  const { rmp } = cpu.hardware
  const fault = cpu.isSnp
    ? rmp.checkGuest(cpu.asid, cpu.vmpl, cpl, asked, cbit, gfn, pfn, npt.pageSize)
    : rmp.checkNonSnpGuest(pfn, kind & KIND_MASK, npt.pageSize)
  if (fault !== FAULT.NONE) return recordFault(cpu, fault, gpa, kind, cbit, phase)
  if (npt.logsDirty && isWrite(kind)) npt.markDirty(gfn)
  return pfn
}
