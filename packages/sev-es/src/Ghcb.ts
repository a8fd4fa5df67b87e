import { layout, offsetsOf } from "./Layout.ts"

/**
 * Guest-Hypervisor Communication Block, one page shared with the hypervisor.
 * @spec GHCB "GHCB layout"; Linux `struct ghcb`
 */
export const GHCB_FIELDS = layout([
  ["cpl", 0x0cb, 1],
  ["xss", 0x140, 8],
  ["dr7", 0x160, 8],
  ["rip", 0x178, 8],
  ["rsp", 0x1d8, 8],
  ["rax", 0x1f8, 8],
  ["rcx", 0x308, 8],
  ["rdx", 0x310, 8],
  ["rbx", 0x318, 8],
  ["rbp", 0x328, 8],
  ["rsi", 0x330, 8],
  ["rdi", 0x338, 8],
  ["r8", 0x340, 8],
  ["r9", 0x348, 8],
  ["r10", 0x350, 8],
  ["r11", 0x358, 8],
  ["r12", 0x360, 8],
  ["r13", 0x368, 8],
  ["r14", 0x370, 8],
  ["r15", 0x378, 8],
  ["sw_exit_code", 0x390, 8],
  ["sw_exit_info_1", 0x398, 8],
  ["sw_exit_info_2", 0x3a0, 8],
  ["sw_scratch", 0x3a8, 8],
  ["xcr0", 0x3e8, 8],
  ["valid_bitmap", 0x3f0, 16],
  ["x87_state_gpa", 0x400, 8],
  ["shared_buffer", 0x800, 2032],
  ["protocol_version", 0xffa, 2],
  ["ghcb_usage", 0xffc, 4]
])

/** Byte offsets of the GHCB fields by name. */
export const GHCB = offsetsOf(GHCB_FIELDS)

/** Protocol versions that this model's hypervisor speaks; SNP events need 2. */
export const GHCB_VERSION = { MIN: 1, MAX: 2 } as const

/** Byte of the valid bitmap that holds the bit of the quadword at `offset`. @spec GHCB "GHCB layout" */
export const validByte = (offset: number): number => GHCB.valid_bitmap + (offset >> 6)

/** Mask inside that byte. */
export const validMask = (offset: number): number => 1 << ((offset >> 3) & 7)

/** Non-automatic exit events beyond the SVM exit codes. They are 32-bit values with the top bit set. */
export const NAE = {
  SNP_AP_CREATION: 0x8000_0013,
  SNP_RUN_VMPL: 0x8000_0018,
  HV_FEATURES: 0x8000_fffd,
  TERMINATION_REQUEST: 0x8000_fffe
} as const

/** sw_exit_info_1[31:0] of a reply. @spec GHCB "error reporting" */
export const REPLY = { NO_ACTION: 0, INJECT_EXCEPTION: 1, MALFORMED_INPUT: 2 } as const

/** sw_exit_info_2 when the reply is MALFORMED_INPUT. */
export const REASON = {
  GHCB_NOT_REGISTERED: 1,
  INVALID_USAGE: 2,
  INVALID_SCRATCH_AREA: 3,
  MISSING_INPUT: 4,
  INVALID_INPUT: 5,
  INVALID_EVENT: 6
} as const

/** Hypervisor feature bits, answer of HV_FEATURES and of MSR request 0x080. */
export const HV_FEATURE = { SNP: 1, AP_CREATION: 2, MULTI_VMPL: 1 << 5 } as const

/** AP creation request, sw_exit_info_1[15:0]. */
export const AP_CREATION = { CREATE_ON_INIT: 0, CREATE: 1, DESTROY: 2 } as const

/** sw_exit_info_1[31:0] of AP creation: request in [15:0], VMPL in [19:16]; the APIC ID is the upper half. */
export const apCreationInfo1Lo = (request: number, vmpl: number): number => ((vmpl & 0xf) << 16) | (request & 0xffff)
