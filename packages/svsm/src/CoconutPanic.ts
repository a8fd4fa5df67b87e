/** Where COCONUT-SVSM would have stopped the whole guest, and this SVSM gave an answer. */
export const COCONUT_PANIC = {
  UNVALIDATED_PAGE: "it touches a page that is not validated: #VC 0x404, which its handler asserts not to happen",
  VMSA_IN_USE: "RMPADJUST of a VMSA that runs says FAIL_INUSE, which its code holds to be unreachable",
  INSTRUCTION_STATUS: "PVALIDATE or RMPADJUST leaves an EAX that its code holds to be unreachable",
  HOST_KEEPS_OUT: "the host refuses to take over from the emulated APIC, which its code expects it not to",
  ADDRESS_OVERFLOW: "the end of a range does not fit into 64 bits: an error that it does not tell the guest of"
} as const
export type CoconutPanic = (typeof COCONUT_PANIC)[keyof typeof COCONUT_PANIC]
