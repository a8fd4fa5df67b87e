import type { SwitchId } from "@vmpl-lab/rmp"
import type { Action } from "./Action.ts"
import type { Explainer, Explanation } from "./Explainer.ts"

const explanation = (rule: string, source: string, ...switches: ReadonlyArray<SwitchId>): Explanation =>
  switches.length === 0 ? { rule, source } : { rule, source, switches }

const BY_OP: { readonly [K in Exclude<Action["op"], "access" | "vmrun" | "firmware">]: Explanation | null } = {
  rmpupdate: explanation("RMPUPDATE", "APM3 RMPUPDATE", "U1", "U7", "U8", "U17"),
  psmash: explanation("PSMASH", "APM2 15.36.11", "U4"),
  rmpread: explanation("RMPREAD", "APM2 15.36.5", "U18"),
  pvalidate: explanation("PVALIDATE", "APM2 15.36.6", "U3", "U10", "U15", "U16"),
  rmpadjust: explanation("RMPADJUST", "APM3 RMPADJUST", "U2", "U10", "U13", "U15"),
  rmpquery: explanation("RMPQUERY", "APM2 15.36.7", "U6"),
  vmexit: null,
  entry: null,
  digest: null
}

const ACCESS_OF = {
  host: explanation("host access", "APM2 15.36.10 table 15-39"),
  "non-snp": explanation("non-SNP guest access", "APM2 15.36.10 table 15-39"),
  guest: explanation("SNP guest access", "APM2 15.36.10 table 15-39", "U14")
}

const VMRUN = {
  snp: explanation("VMSA page of an SNP-active guest", "APM2 15.36.10 table 15-41"),
  plain: explanation("VMSA page of a non-SNP guest", "APM2 15.36.10 table 15-41")
}

/** Names the instruction or list of checks that an action goes through, its source, and the switches in it. */
export const documentExplainer: Explainer = (action) => {
  switch (action.op) {
    case "access":
      return ACCESS_OF[action.by]
    case "vmrun":
      return action.snp ? VMRUN.snp : VMRUN.plain
    case "firmware":
      return explanation(action.command, `SNP-ABI ${action.command}`)
    default:
      return BY_OP[action.op]
  }
}
