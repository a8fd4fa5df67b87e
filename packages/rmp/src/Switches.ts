// @section 7
export type SwitchChoice = "default" | "alternative"

/**
 * Choices that the public documents leave open or answer in two ways: default, then alternative. Where a topic has more
 * than one alternative, the first is modelled.
 * @spec-silent
 */
export const SWITCH_MEANING = {
  U1: [
    "RMPUPDATE changing only Immutable keeps Validated, VMSA and masks",
    "RMPUPDATE changing only Immutable clears Validated, VMSA and masks"
  ],
  U2: ["RMPADJUST on an in-use VMSA: FAIL_INUSE", "RMPADJUST on an in-use VMSA: FAIL_PERMISSION"],
  U3: ["PVALIDATE at VMPL > 0: #GP(0)", "PVALIDATE at VMPL > 0: #UD"],
  U4: ["PSMASH of a page that is no 2 MiB entry: 7", "PSMASH of a page that is no 2 MiB entry: 4"],
  U5: [
    "missing guest mapping in PVALIDATE, RMPADJUST, RMPQUERY: #PF",
    "missing guest mapping in PVALIDATE, RMPADJUST, RMPQUERY: #GP(0)"
  ],
  U6: [
    "RMPQUERY with target equal to the current VMPL: FAIL_PERMISSION",
    "RMPQUERY with target equal to the current VMPL: success"
  ],
  U7: ["VMPL0's mask of a newly assigned page leaves out SSS", "VMPL0's mask of a newly assigned page includes SSS"],
  U8: ["RMPUPDATE checks FAIL_INUSE after everything else", "RMPUPDATE checks FAIL_INUSE before everything else"],
  U9: ["VMRUN with a VMPL that does not exist: VMEXIT_INVALID", "VMRUN with a VMPL that does not exist: #GP(0)"],
  U10: [
    "2 MiB PVALIDATE or RMPADJUST where nested and RMP page sizes differ: NPF",
    "2 MiB PVALIDATE or RMPADJUST where nested and RMP page sizes differ: FAIL_SIZEMISMATCH"
  ],
  U11: ["RMPCHKD: #UD", "RMPCHKD: #UD"],
  U12: ["RMPUPDATE or PSMASH executed by a guest: FAIL_PERMISSION", "RMPUPDATE or PSMASH executed by a guest: #UD"],
  U13: [
    "RMPADJUST checks its target VMPL before translation",
    "RMPADJUST checks its target VMPL after translation and the RMP checks"
  ],
  U14: [
    "data access under a mask with Write but not Read: reads and writes fault",
    "data access under a mask with Write but not Read: only writes fault"
  ],
  U15: [
    "4 KiB PVALIDATE or RMPADJUST, nested 2 MiB, RMP 4 KiB: NPF with RMP",
    "4 KiB PVALIDATE or RMPADJUST, nested 2 MiB, RMP 4 KiB: NPF with RMP and SIZEM"
  ],
  U16: ["PVALIDATE of a page in use: FAIL_INUSE, checked last", "PVALIDATE of a page in use: success"],
  U17: [
    "2 MiB RMPUPDATE over an inner HV-Fixed page: FAIL_PERMISSION",
    "2 MiB RMPUPDATE over an inner HV-Fixed page overwrites it"
  ],
  U18: ["RMPREAD of a 2 MiB page: region status not set", "RMPREAD of a 2 MiB page: region status set"]
} as const satisfies Record<string, readonly [string, string]>

export type SwitchId = keyof typeof SWITCH_MEANING

export type Switches = { readonly [id in SwitchId]: SwitchChoice }

export const SWITCH_IDS = Object.keys(SWITCH_MEANING) as ReadonlyArray<SwitchId>

/** Every switch spelled out, those not given at their default. */
export const resolveSwitches = (given: Partial<Switches> = {}): Switches => {
  const all = {} as Record<SwitchId, SwitchChoice>
  for (const id of SWITCH_IDS) all[id] = given[id] ?? "default"
  return all
}
