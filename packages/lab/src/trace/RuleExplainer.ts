import { type Rmp, RULES } from "@vmpl-lab/rmp"
import type { Action, GuestAt } from "./Action.ts"
import type { Explainer, Explanation } from "./Explainer.ts"
import { nptSizeOf, pfnOf, type TraceMachine } from "./TraceMachine.ts"

const explained = <Q extends { readonly rmp: Rmp }>(rules: RULES.Rules<Q>, question: Q): Explanation => {
  const { rule, source } = RULES.decide(rules, question)
  const switches = RULES.switchesOf(rules, question)
  return switches.length === 0 ? { rule, source } : { rule, source, switches }
}

const pageOf = <A extends GuestAt>(action: A, { rmp }: TraceMachine) => ({
  ...action,
  rmp,
  pfn: pfnOf(action, rmp),
  nptSize: nptSizeOf(action)
})

const accessRule = (action: Extract<Action, { op: "access" }>, machine: TraceMachine): Explanation => {
  const { rmp } = machine
  if (action.by === "guest") {
    const access = pageOf(action, machine)
    return explained(RULES.guestAccessRules(access), access)
  }
  return explained(action.by === "host" ? RULES.HOST_ACCESS : RULES.NON_SNP_ACCESS, { ...action, rmp })
}

/** The rule of the RMP that will decide, or the check of the firmware. Null where nothing is decided. */
export const ruleExplainer: Explainer = (action, machine) => {
  const { rmp } = machine
  switch (action.op) {
    case "rmpupdate":
      return explained(RULES.RMPUPDATE, { ...action, rmp })
    case "psmash":
      return explained(RULES.PSMASH, { ...action, rmp })
    case "rmpread":
      return explained(RULES.RMPREAD, { ...action, rmp })
    case "pvalidate":
      return explained(RULES.PVALIDATE, pageOf(action, machine))
    case "rmpadjust":
      return explained(RULES.RMPADJUST, pageOf(action, machine))
    case "rmpquery":
      return explained(RULES.RMPQUERY, pageOf(action, machine))
    case "access":
      return accessRule(action, machine)
    case "vmrun":
      return explained(action.snp ? RULES.VMRUN_SNP : RULES.VMRUN_NON_SNP, { ...action, rmp })
    case "firmware":
      return { rule: machine.pages.decide(action).check, source: `SNP-ABI ${action.command}` }
    default:
      return null
  }
}
