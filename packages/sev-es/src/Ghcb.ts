import { decodeEventInjection, type EventInjection } from "./Event.ts"
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

/**
 * Non-automatic exit events beyond the SVM exit codes. They are 32-bit values with the top bit set. The three last ones
 * before HV_FEATURES are a proposal of 2024 that KVM does not take.
 * @spec GHCB "VMGEXIT events"
 */
export const NAE = {
  MMIO_READ: 0x8000_0001,
  MMIO_WRITE: 0x8000_0002,
  NMI_COMPLETE: 0x8000_0003,
  AP_RESET_HOLD: 0x8000_0004,
  AP_JUMP_TABLE: 0x8000_0005,
  PAGE_STATE_CHANGE: 0x8000_0010,
  GUEST_REQUEST: 0x8000_0011,
  EXTENDED_GUEST_REQUEST: 0x8000_0012,
  SNP_AP_CREATION: 0x8000_0013,
  HV_DOORBELL_PAGE: 0x8000_0014,
  HV_IPI: 0x8000_0015,
  HV_TIMER: 0x8000_0016,
  APIC_ID_LIST: 0x8000_0017,
  SNP_RUN_VMPL: 0x8000_0018,
  SECURE_AVIC: 0x8000_001a,
  CONFIGURE_INTERRUPT_INJECTION: 0x8000_001b,
  DISABLE_ALTERNATE_INJECTION: 0x8000_001c,
  SPECIFIC_EOI: 0x8000_001d,
  HV_FEATURES: 0x8000_fffd,
  TERMINATION_REQUEST: 0x8000_fffe,
  UNSUPPORTED_EVENT: 0x8000_ffff
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
export const HV_FEATURE = {
  SNP: 1 << 0,
  AP_CREATION: 1 << 1,
  RESTRICTED_INJECTION: 1 << 2,
  RESTRICTED_INJECTION_TIMER: 1 << 3,
  APIC_ID_LIST: 1 << 4,
  MULTI_VMPL: 1 << 5,
  PAGE_STATE_CHANGE: 1 << 6,
  ALTERNATE_INJECTION: 1 << 9
} as const

/** AP creation request, sw_exit_info_1[15:0]. */
export const AP_CREATION = { CREATE_ON_INIT: 0, CREATE: 1, DESTROY: 2 } as const

/** sw_exit_info_1[31:0] of AP creation: request in [15:0], VMPL in [19:16]; the APIC ID is the upper half. */
export const apCreationInfo1Lo = (request: number, vmpl: number): number => ((vmpl & 0xf) << 16) | (request & 0xffff)

/** AP jump table, sw_exit_info_1. */
export const AP_JUMP_TABLE = { SET: 0, GET: 1 } as const

/** #HV doorbell page, sw_exit_info_1. */
export const HV_DOORBELL = { GET_PREFERRED: 0, SET: 1, QUERY: 2, CLEAR: 3 } as const

/** Secure AVIC, sw_exit_info_1. */
export const SECURE_AVIC = { REGISTER: 0, UNREGISTER: 1 } as const

/** VMM errors of a guest request, upper half of sw_exit_info_2; the firmware's status is the lower half. */
export const GUEST_REQUEST_ERROR = { INVALID_LEN: 1, BUSY: 2 } as const

/** Bytes of the buffer that the page itself offers for scratch areas: [0x800, 0xff0). */
export const SHARED_BUFFER_SIZE = 0x7f0

/** Most that a scratch area outside of the page may hold: 16 pages. @spec Linux GHCB_SCRATCH_AREA_LIMIT */
export const SCRATCH_AREA_LIMIT = 16 * 4096

/** The information word of a port access, sw_exit_info_1. @spec APM2 15.10.2 */
export interface IoioInfo {
  readonly port: number
  /** Bytes of one element: 1, 2 or 4. */
  readonly size: number
  readonly in: boolean
  readonly string: boolean
  readonly rep: boolean
}

const IOIO = { IN: 1, STRING: 4, REP: 8, SIZE_SHIFT: 4, ADDRESS_64: 0x200, SEGMENT_SHIFT: 10, PORT_SHIFT: 16 } as const
const SEGMENT_DS = 3

/** INS writes through ES, OUTS reads through DS, both with 64-bit addresses here. */
export const encodeIoio = ({ port, size, in: isIn, string, rep }: IoioInfo): number =>
  ((port << IOIO.PORT_SHIFT) |
    (isIn ? IOIO.IN : 0) |
    (string ? IOIO.STRING | ((isIn ? 0 : SEGMENT_DS) << IOIO.SEGMENT_SHIFT) : 0) |
    (rep ? IOIO.REP : 0) |
    (size << IOIO.SIZE_SHIFT) |
    IOIO.ADDRESS_64) >>>
  0

/** The word's fields; size 0 when not exactly one of the three operand size bits is set. */
export const decodeIoio = (info: number): IoioInfo => {
  const size = (info >>> IOIO.SIZE_SHIFT) & 7
  return {
    port: info >>> IOIO.PORT_SHIFT,
    size: size === 1 || size === 2 || size === 4 ? size : 0,
    in: (info & IOIO.IN) !== 0,
    string: (info & IOIO.STRING) !== 0,
    rep: (info & IOIO.REP) !== 0
  }
}

/** APIC ID list: u32 count, then the IDs. Pages that a list of so many IDs takes. */
export const apicIdListPages = (ids: number): number => Math.ceil((4 + 4 * ids) / 4096)

/** Reply INJECT_EXCEPTION: sw_exit_info_2 holds the event, its error code in the upper half. */
export const eventOf = (info2Lo: number, info2Hi: number): EventInjection & { readonly errorCode: number } => ({
  ...decodeEventInjection(info2Lo),
  errorCode: info2Hi
})
