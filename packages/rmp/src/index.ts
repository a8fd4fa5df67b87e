/** The Reverse Map Table of SEV-SNP: entries, page states, instructions and access checks. */
export { FAULT, type FaultBit, faultBits, faultName, isFault } from "./Fault.ts"
export { NOT_MAPPED, NUM_VMPLS, PAGE_2M, PAGE_4K, PAGES_PER_2M, type PageSize } from "./PageSize.ts"
export { FIRMWARE_TAG, type PageState } from "./PageState.ts"
export { ACCESS, PERMISSION } from "./Permission.ts"
export { CARRY, carryOf, eaxOf, RETURN_CODE, returnCodeName } from "./ReturnCode.ts"
export { Rmp } from "./Rmp.ts"
export type { RmpEntry } from "./RmpEntry.ts"
export {
  RMP_ENTRY,
  RMP_ENTRY_FIELDS,
  RMP_ENTRY_SIZE,
  RMP_STRUCT_FIELDS,
  type RmpEntryField,
  type RmpStructField
} from "./RmpEntryLayout.ts"
export {
  decodeRmpCfg,
  decodeRstEntry,
  encodeRstEntry,
  type FrameRange,
  flatLayout,
  type RmpLayout,
  type RmpSegment,
  rmpEndFor,
  segmentedLayout
} from "./RmpLayout.ts"
export { RMPOPT_FUNCTION, type RmpoptFunction } from "./Rmpopt.ts"
export type { RmpQueryResult } from "./Rmpquery.ts"
export { decodeRawEntry, encodeRawEntry, type RawEntry } from "./RmpRaw.ts"
export type { RmpReadResult } from "./Rmpread.ts"
export { type RmpOptions, SNAPSHOT } from "./RmpTable.ts"
export type { Decision, GuestAccess, Rule, Rules } from "./rules/index.ts"
export * as RULES from "./rules/index.ts"
export {
  resolveSwitches,
  SWITCH_IDS,
  SWITCH_MEANING,
  type SwitchChoice,
  type Switches,
  type SwitchId
} from "./Switches.ts"
