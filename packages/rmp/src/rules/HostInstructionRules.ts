// @section 2.4, 2.5, 2.7
import { FAULT } from "../Fault.ts"
import { PAGE_2M, type PageSize } from "../PageSize.ts"
import { PERMISSION } from "../Permission.ts"
import { RETURN_CODE } from "../ReturnCode.ts"
import type { Rmp } from "../Rmp.ts"
import type { Rules } from "./Rule.ts"
import { headView, isInsideLarge, isRulingInUse, regionOf } from "./View.ts"

/** Inputs of RMPUPDATE. */
export interface RmpupdateQuestion {
  readonly rmp: Rmp
  readonly pfn: number
  readonly assigned: boolean
  readonly size: PageSize
  readonly immutable: boolean
  readonly gfn: number
  readonly asid: number
}

/** Inputs of PSMASH and RMPREAD. */
export interface PageQuestion {
  readonly rmp: Rmp
  readonly pfn: number
}

const isTargetInUse = ({ rmp, pfn, size }: RmpupdateQuestion): boolean =>
  size === PAGE_2M ? regionOf(rmp, pfn).some((page) => rmp.isInUse(page)) : rmp.isInUse(pfn)

const inUseRefuses = (when: "default" | "alternative") => (question: RmpupdateQuestion) =>
  question.rmp.switches.U8 === when && question.rmp.isCovered(question.pfn) && isTargetInUse(question)
    ? RETURN_CODE.FAIL_INUSE
    : null

/** Whether owner, GPA and size stay: at most Immutable then changes. A page that is no guest's never counts as such. */
const isUnchanged = ({ rmp, pfn, size, gfn, asid }: RmpupdateQuestion): boolean => {
  const old = rmp.entry(pfn)
  return asid !== 0 && old.assigned && old.asid === asid && old.gfn === gfn && old.size === size
}

/** What the entry will hold in the fields that RMPUPDATE is not given. */
const writtenNote = (question: RmpupdateQuestion): string => {
  const { rmp, pfn } = question
  const kept = rmp.switches.U1 === "default" && isUnchanged(question) ? rmp.entry(pfn) : null
  const full = PERMISSION.ALL | (rmp.switches.U7 === "default" ? 0 : PERMISSION.SHADOW_STACK)
  const masks = (kept?.perms ?? [full, 0, 0, 0]).map((mask) => `0x${mask.toString(16)}`).join(" ")
  return `Validated ${Number(kept?.validated ?? false)}, VMSA ${Number(kept?.vmsa ?? false)}, masks ${masks}`
}

/** Set on the first page of a region when another is assigned; whether a 2 MiB page's own inner pages count is U18. */
const hasRegionStatus = ({ rmp, pfn }: PageQuestion): boolean =>
  pfn % rmp.pagesPer2M === 0 &&
  (!isInsideLarge(rmp, pfn) || rmp.switches.U18 === "alternative") &&
  regionOf(rmp, pfn).some((page) => page !== pfn && rmp.entry(page).assigned)

/** RMPUPDATE by the host, in the order of the published pseudocode. */
export const RMPUPDATE: Rules<RmpupdateQuestion> = {
  checks: [
    { name: "FAIL_INUSE", source: "APM2 15.36.12", switches: ["U8"], refuses: inUseRefuses("alternative") },
    {
      name: "FAIL_INPUT: 2 MiB at a misaligned address",
      source: "APM3 RMPUPDATE",
      refuses: ({ rmp, pfn, size }) => (size === PAGE_2M && pfn % rmp.pagesPer2M !== 0 ? RETURN_CODE.FAIL_INPUT : null)
    },
    {
      name: "FAIL_INPUT: unassigned, yet Immutable or with an ASID",
      source: "APM3 RMPUPDATE",
      refuses: ({ assigned, immutable, asid }) =>
        !assigned && (immutable || asid !== 0) ? RETURN_CODE.FAIL_INPUT : null
    },
    {
      name: "FAIL_INPUT: not covered by the RMP",
      source: "APM3 RMPUPDATE",
      refuses: ({ rmp, pfn }) => (rmp.isCovered(pfn) ? null : RETURN_CODE.FAIL_INPUT)
    },
    {
      name: "FAIL_PERMISSION: Immutable",
      source: "APM3 RMPUPDATE",
      refuses: ({ rmp, pfn }) => (rmp.entry(pfn).immutable ? RETURN_CODE.FAIL_PERMISSION : null)
    },
    {
      // Of the text's two cases the inner pages are AMD's addition: hardware was tested.
      name: "FAIL_OVERLAP: 4 KiB in a 2 MiB page",
      source: "APM3 RMPUPDATE",
      refuses: ({ rmp, pfn, size }) => (size !== PAGE_2M && isInsideLarge(rmp, pfn) ? RETURN_CODE.FAIL_OVERLAP : null)
    },
    {
      name: "FAIL_OVERLAP: 2 MiB over assigned 4 KiB pages",
      source: "APM3 RMPUPDATE",
      refuses: ({ rmp, pfn, size }) =>
        size === PAGE_2M && !isInsideLarge(rmp, pfn) && regionOf(rmp, pfn).some((page) => rmp.entry(page).assigned)
          ? RETURN_CODE.FAIL_OVERLAP
          : null
    },
    {
      name: "FAIL_PERMISSION: an inner page is HV-Fixed",
      source: "APM3 RMPUPDATE",
      switches: ["U17"],
      refuses: ({ rmp, pfn, size }) =>
        size === PAGE_2M &&
        rmp.switches.U17 === "default" &&
        regionOf(rmp, pfn).some((page) => page !== pfn && rmp.entry(page).immutable)
          ? RETURN_CODE.FAIL_PERMISSION
          : null
    },
    { name: "FAIL_INUSE", source: "APM2 15.36.12", switches: ["U8"], refuses: inUseRefuses("default") }
  ],
  success: {
    name: "the entry is written",
    source: "APM3 RMPUPDATE",
    switches: ["U1", "U7"],
    outcome: () => RETURN_CODE.SUCCESS,
    note: writtenNote
  }
}

/** PSMASH by the host. */
export const PSMASH: Rules<PageQuestion> = {
  checks: [
    {
      name: "FAIL_INPUT: misaligned",
      source: "APM2 15.36.11",
      refuses: ({ rmp, pfn }) => (pfn % rmp.pagesPer2M !== 0 ? RETURN_CODE.FAIL_INPUT : null)
    },
    {
      name: "FAIL_INPUT: not covered by the RMP",
      source: "APM2 15.36.11",
      refuses: ({ rmp, pfn }) => (rmp.isCovered(pfn) ? null : RETURN_CODE.FAIL_INPUT)
    },
    {
      name: "FAIL_PERMISSION: Immutable",
      source: "APM2 15.36.11",
      refuses: ({ rmp, pfn }) => (headView(rmp, pfn).entry.immutable ? RETURN_CODE.FAIL_PERMISSION : null)
    },
    {
      name: "no 2 MiB entry",
      source: "APM2 15.36.11",
      switches: ["U4"],
      refuses: ({ rmp, pfn }) => {
        if (isInsideLarge(rmp, pfn)) return null
        return rmp.switches.U4 === "default" ? RETURN_CODE.FAIL_BADADDR : RETURN_CODE.FAIL_OVERLAP
      }
    },
    {
      name: "FAIL_INUSE",
      source: "APM2 15.36.12",
      refuses: ({ rmp, pfn }) => (isRulingInUse(rmp, pfn) ? RETURN_CODE.FAIL_INUSE : null)
    }
  ],
  success: { name: "512 entries of 4 KiB", source: "APM2 15.36.11", outcome: () => RETURN_CODE.SUCCESS }
}

/** RMPREAD by the host. */
export const RMPREAD: Rules<PageQuestion> = {
  checks: [
    {
      name: "FAIL_INPUT: not covered by the RMP",
      source: "APM2 15.36.5",
      refuses: ({ rmp, pfn }) => (rmp.isCovered(pfn) ? null : RETURN_CODE.FAIL_INPUT)
    }
  ],
  success: {
    name: "the stored entry",
    source: "APM2 15.36.5",
    switches: ["U18"],
    outcome: () => RETURN_CODE.SUCCESS,
    note: (question) => (hasRegionStatus(question) ? "region status set" : "region status not set")
  }
}

/** RMPUPDATE or PSMASH executed by a guest. */
export const HOST_INSTRUCTION_BY_GUEST: Rules<{ readonly rmp: Rmp }> = {
  checks: [
    {
      name: "executed by a guest",
      source: "APM3 RMPUPDATE",
      switches: ["U12"],
      refuses: ({ rmp }) => (rmp.switches.U12 === "default" ? RETURN_CODE.FAIL_PERMISSION : FAULT.UD)
    }
  ],
  success: { name: "never", source: "APM3 RMPUPDATE", outcome: () => RETURN_CODE.SUCCESS }
}
