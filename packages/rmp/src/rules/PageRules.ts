// @section 3.6
import { FAULT } from "../Fault.ts"
import type { Rmp } from "../Rmp.ts"
import type { PageQuestion } from "./HostInstructionRules.ts"
import type { Rule, Rules } from "./Rule.ts"
import { rulingView } from "./View.ts"

/** VMRUN of the VMSA in frame `pfn`, which the guest has at `gfn`. */
export interface VmsaQuestion {
  readonly rmp: Rmp
  readonly asid: number
  readonly gfn: number
  readonly pfn: number
}

const TABLE = "APM2 15.36.10 table 15-41"

/** Refused: VMRUN exits with this exit code, VMEXIT_INVALID, which is no fault and no return code. */
export const VMSA_REFUSED = -1

const refusal = (name: string, holds: (question: VmsaQuestion) => boolean): Rule<VmsaQuestion> => ({
  name,
  source: TABLE,
  refuses: (question) => (holds(question) ? null : VMSA_REFUSED)
})

/** The sizes of these pages are treated as 4 KiB. */
const isHypervisorOwned = ({ rmp, pfn }: PageQuestion): boolean => !rmp.entry(pfn).assigned

const entryOf = ({ rmp, pfn }: VmsaQuestion) => rulingView(rmp, pfn).entry

/** Page checks of VMRUN on the VMSA of an SNP-active guest: neither Validated nor VMPL is among them. */
export const VMRUN_SNP: Rules<VmsaQuestion> = {
  checks: [
    refusal("RMP-Covered", ({ rmp, pfn }) => rmp.isCovered(pfn)),
    refusal("Guest-Owned", (question) => entryOf(question).assigned && entryOf(question).asid === question.asid),
    refusal("Reverse-Map", ({ rmp, pfn, gfn }) => {
      const { entry, offset } = rulingView(rmp, pfn)
      return entry.gfn === gfn - offset
    }),
    refusal("Mutable", (question) => !entryOf(question).immutable),
    refusal("VMSA", (question) => entryOf(question).vmsa)
  ],
  success: { name: "the page may be run", source: TABLE, outcome: () => FAULT.NONE }
}

/** Page check of VMRUN on the VMSA of an SEV-ES guest without SNP. */
export const VMRUN_NON_SNP: Rules<VmsaQuestion> = {
  checks: [refusal("Hypervisor-Owned", isHypervisorOwned)],
  success: { name: "the page may be run", source: TABLE, outcome: () => FAULT.NONE }
}

/** Check of the VMCB that VMRUN is given, which fails with #GP(0) in the host. */
export const VMRUN_VMCB: Rules<PageQuestion> = {
  checks: [
    {
      name: "Hypervisor-Owned",
      source: TABLE,
      refuses: (question) => (isHypervisorOwned(question) ? null : FAULT.GP)
    }
  ],
  success: { name: "the VMCB may be used", source: TABLE, outcome: () => FAULT.NONE }
}
