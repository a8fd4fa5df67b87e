// @section 2.2, 2.3, 2.6, 3.5
import { FAULT, NPF_RMP, NPF_SIZEM } from "../Fault.ts"
import { PAGE_2M, type PageSize } from "../PageSize.ts"
import { PERMISSION_RESERVED } from "../Permission.ts"
import { CARRY, RETURN_CODE } from "../ReturnCode.ts"
import type { Rmp } from "../Rmp.ts"
import type { Rule, Rules } from "./Rule.ts"
import { isRulingInUse, rulingView, type View } from "./View.ts"

/** What PVALIDATE, RMPADJUST and RMPQUERY name: a page of the guest and its nested mapping. */
export interface GuestPageQuestion {
  readonly rmp: Rmp
  readonly asid: number
  readonly vmpl: number
  /** NOT_MAPPED where the guest's own tables do not map the address. */
  readonly gfn: number
  /** NOT_MAPPED where the nested tables do not map the page. */
  readonly pfn: number
  readonly nptSize: PageSize
}

export interface PvalidateQuestion extends GuestPageQuestion {
  readonly size: PageSize
  readonly validate: boolean
}

export interface RmpadjustQuestion extends GuestPageQuestion {
  readonly size: PageSize
  readonly targetVmpl: number
  readonly mask: number
}

export interface RmpqueryQuestion extends GuestPageQuestion {
  readonly targetVmpl: number
}

type Sized = GuestPageQuestion & { readonly size: PageSize }

/** The entry that rules the operand; what it holds is only looked at once the operand was found to be covered. */
const viewOf = ({ rmp, pfn }: GuestPageQuestion): View => rulingView(rmp, pfn)
const isLarge = (question: GuestPageQuestion): boolean => viewOf(question).entry.size === PAGE_2M

const misaligned = (source: string): Rule<Sized> => ({
  name: "FAIL_INPUT: 2 MiB at a misaligned address",
  source,
  refuses: ({ rmp, gfn, size }) =>
    size === PAGE_2M && gfn >= 0 && gfn % rmp.pagesPer2M !== 0 ? RETURN_CODE.FAIL_INPUT : null
})

/** `source`: where the instruction that translates its operand is described. */
const translation = (source: string): ReadonlyArray<Rule<GuestPageQuestion>> => [
  {
    name: "guest translation",
    source,
    switches: ["U5"],
    refuses: ({ rmp, gfn }) => {
      if (gfn >= 0) return null
      return rmp.switches.U5 === "default" ? FAULT.PF : FAULT.GP
    }
  },
  { name: "nested translation", source: "APM2 15.36.10", refuses: ({ pfn }) => (pfn < 0 ? FAULT.NPF : null) },
  {
    name: "RMP-Covered",
    source: "APM2 15.36.10 table 15-39",
    refuses: ({ rmp, pfn }) => (rmp.isCovered(pfn) ? null : NPF_RMP)
  },
  {
    name: "Guest-Owned",
    source: "APM2 15.36.10 table 15-39",
    refuses: (question) => {
      const { entry } = viewOf(question)
      return entry.assigned && entry.asid === question.asid ? null : NPF_RMP
    }
  },
  {
    name: "Reverse-Map",
    source: "APM2 15.36.10 table 15-39",
    refuses: (question) => {
      const { entry, offset } = viewOf(question)
      return entry.gfn === question.gfn - offset ? null : NPF_RMP
    }
  },
  {
    name: "Mutable",
    source: "APM2 15.36.10 table 15-39",
    refuses: (question) => (viewOf(question).entry.immutable ? NPF_RMP : null)
  }
]

const sizes: ReadonlyArray<Rule<Sized>> = [
  {
    name: "SIZEM: 4 KiB operand in a 2 MiB page",
    source: "APM2 15.36.10 table 15-40",
    refuses: (question) => (question.size !== PAGE_2M && isLarge(question) ? NPF_SIZEM : null)
  },
  {
    name: "Page-Size: 4 KiB operand, nested 2 MiB, RMP 4 KiB",
    source: "APM2 15.36.10 table 15-40",
    switches: ["U15"],
    refuses: ({ rmp, size, nptSize }) => {
      if (size === PAGE_2M || nptSize !== PAGE_2M) return null
      return rmp.switches.U15 === "default" ? NPF_RMP : NPF_SIZEM
    }
  },
  {
    name: "Page-Size: 2 MiB operand, nested and RMP sizes differ",
    source: "APM2 15.36.10 table 15-40",
    switches: ["U10"],
    refuses: (question) => {
      const differ = isLarge(question) !== (question.nptSize === PAGE_2M)
      return question.size === PAGE_2M && differ && question.rmp.switches.U10 === "default" ? NPF_RMP : null
    }
  }
]

const sizeMismatch: Rule<Sized> = {
  name: "FAIL_SIZEMISMATCH: 2 MiB operand, but not both sizes are",
  source: "APM2 15.36.10 table 15-40",
  refuses: (question) =>
    question.size === PAGE_2M && !(isLarge(question) && question.nptSize === PAGE_2M)
      ? RETURN_CODE.FAIL_SIZEMISMATCH
      : null
}

const notValidated: Rule<GuestPageQuestion> = {
  name: "Validated",
  source: "APM2 15.36.7",
  refuses: (question) => (viewOf(question).entry.validated ? null : FAULT.VC_NOT_VALIDATED)
}

/** PVALIDATE. */
export const PVALIDATE: Rules<PvalidateQuestion> = {
  checks: [
    {
      name: "VMPL0 only",
      source: "APM2 15.36.6",
      switches: ["U3"],
      refuses: ({ rmp, vmpl }) => {
        if (vmpl === 0) return null
        return rmp.switches.U3 === "default" ? FAULT.GP : FAULT.UD
      }
    },
    misaligned("APM3 PVALIDATE"),
    ...translation("APM3 PVALIDATE"),
    ...sizes,
    sizeMismatch,
    {
      name: "FAIL_INUSE",
      source: "APM2 15.36.12",
      switches: ["U16"],
      refuses: ({ rmp, pfn }) =>
        rmp.switches.U16 === "default" && isRulingInUse(rmp, pfn) ? RETURN_CODE.FAIL_INUSE : null
    }
  ],
  success: {
    name: "Validated takes the value asked for; CF tells that it had it",
    source: "APM2 15.36.6",
    outcome: (question) => (viewOf(question).entry.validated === question.validate ? CARRY : RETURN_CODE.SUCCESS)
  }
}

const isTargetBelow = ({ vmpl, targetVmpl }: RmpadjustQuestion): boolean => targetVmpl > vmpl

const targetRefuses = (when: "default" | "alternative") => (question: RmpadjustQuestion) =>
  question.rmp.switches.U13 === when && !isTargetBelow(question) ? RETURN_CODE.FAIL_PERMISSION : null

const target = (when: "default" | "alternative"): Rule<RmpadjustQuestion> => ({
  name: "FAIL_PERMISSION: target VMPL not below the current one",
  source: "APM3 RMPADJUST",
  switches: ["U13"],
  refuses: targetRefuses(when)
})

/** RMPADJUST. */
export const RMPADJUST: Rules<RmpadjustQuestion> = {
  checks: [
    misaligned("APM3 RMPADJUST"),
    {
      name: "FAIL_INPUT: no such target VMPL",
      source: "APM3 RMPADJUST",
      refuses: ({ rmp, targetVmpl }) => (targetVmpl >= rmp.vmpls ? RETURN_CODE.FAIL_INPUT : null)
    },
    {
      name: "FAIL_INPUT: reserved bits of the mask",
      source: "APM3 RMPADJUST",
      refuses: ({ mask }) => ((mask & PERMISSION_RESERVED) !== 0 ? RETURN_CODE.FAIL_INPUT : null)
    },
    target("default"),
    ...translation("APM3 RMPADJUST"),
    ...sizes,
    notValidated,
    sizeMismatch,
    target("alternative"),
    {
      name: "FAIL_PERMISSION: mask beyond the own one",
      source: "APM2 15.36.7",
      refuses: (question) =>
        (question.mask & ~viewOf(question).entry.perms[question.vmpl]!) === 0 ? null : RETURN_CODE.FAIL_PERMISSION
    },
    {
      name: "FAIL_INUSE",
      source: "APM2 15.36.12",
      switches: ["U2"],
      refuses: ({ rmp, pfn }) => {
        if (!isRulingInUse(rmp, pfn)) return null
        return rmp.switches.U2 === "default" ? RETURN_CODE.FAIL_INUSE : RETURN_CODE.FAIL_PERMISSION
      }
    }
  ],
  success: {
    name: "the mask is replaced; at VMPL0 the VMSA bit too",
    source: "APM2 15.36.7",
    outcome: () => RETURN_CODE.SUCCESS
  }
}

/** RMPQUERY. */
export const RMPQUERY: Rules<RmpqueryQuestion> = {
  checks: [
    {
      name: "FAIL_INPUT: no such target VMPL",
      source: "APM2 15.36.7",
      refuses: ({ rmp, targetVmpl }) => (targetVmpl >= rmp.vmpls ? RETURN_CODE.FAIL_INPUT : null)
    },
    {
      name: "FAIL_PERMISSION: target VMPL not below the current one",
      source: "APM2 15.36.7",
      switches: ["U6"],
      refuses: ({ rmp, vmpl, targetVmpl }) =>
        targetVmpl < vmpl || (targetVmpl === vmpl && rmp.switches.U6 === "default") ? RETURN_CODE.FAIL_PERMISSION : null
    },
    ...translation("APM2 15.36.7"),
    {
      name: "Page-Size",
      source: "APM2 15.36.10 table 15-39",
      refuses: (question) => (viewOf(question).entry.size === question.nptSize ? null : NPF_RMP)
    },
    notValidated
  ],
  success: { name: "mask, VMSA bit and size", source: "APM2 15.36.7", outcome: () => RETURN_CODE.SUCCESS }
}
