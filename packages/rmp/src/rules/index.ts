/** The checks of the RMP as ordered rules: what explains an outcome, and what an explorer leaves out. */
export {
  type GuestAccess,
  guestAccessRules,
  HOST_ACCESS,
  NON_SNP_ACCESS,
  type PlainAccess,
  PRIVATE_ACCESS,
  SHARED_ACCESS
} from "./AccessRules.ts"
export {
  type GuestPageQuestion,
  PVALIDATE,
  type PvalidateQuestion,
  RMPADJUST,
  RMPQUERY,
  type RmpadjustQuestion,
  type RmpqueryQuestion
} from "./GuestInstructionRules.ts"
export {
  HOST_INSTRUCTION_BY_GUEST,
  type PageQuestion,
  PSMASH,
  RMPREAD,
  RMPUPDATE,
  type RmpupdateQuestion
} from "./HostInstructionRules.ts"
export { VMRUN_NON_SNP, VMRUN_SNP, VMRUN_VMCB, VMSA_REFUSED, type VmsaQuestion } from "./PageRules.ts"
export { type Decision, decide, type Rule, type Rules, type Success, switchesOf } from "./Rule.ts"
