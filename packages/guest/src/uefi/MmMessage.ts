import { GUID_SIZE, layout, offsetsOf } from "@vmpl-lab/sev-es"

/** Calls of the UEFI MM protocol, version 1: there is no call 0. Source: COCONUT-SVSM, kernel/src/protocols/uefivars.rs */
export const UEFI_MM_CALL = { REQUEST: 1 } as const

/**
 * What RCX points at: a message of management mode, whose header says to whom it goes and how long it is without the
 * header. Source: EDK2, MdePkg/Include/Protocol/MmCommunication.h, EFI_MM_COMMUNICATE_HEADER
 */
export const MM_HEADER_FIELDS = layout([
  ["guid", 0, 16],
  ["length", 16, 8]
])
export const MM_HEADER = { ...offsetsOf(MM_HEADER_FIELDS), SIZE: 24 } as const

/** Largest buffer that COCONUT-SVSM takes; EDK2's firmware has one of 64 KiB. */
export const UEFI_MM_BUFFER_MAX = 256 * 1024

/** Receivers of messages. Source: EDK2, MdeModulePkg.dec and MdePkg.dec */
export const MM_RECEIVER = {
  VARIABLE: "ed32d533-99e6-4209-9cc0-2d72cdd998a7",
  VARIABLE_POLICY: "da1b0d11-d1a7-46c4-9dc9-f3714875c6eb",
  END_OF_DXE: "02ce967a-dd7e-4ffc-9ee7-810cf0470880",
  READY_TO_BOOT: "7ce88fb3-4bd7-4679-87a8-a8d8dee50d2b",
  EXIT_BOOT_SERVICES: "27abf055-b1b8-4c26-8048-748f37baa2df"
} as const

/** Names that variables belong to. Source: EDK2, MdePkg.dec and SecurityPkg.dec */
export const UEFI_VENDOR = {
  GLOBAL: "8be4df61-93ca-11d2-aa0d-00e098032b8c",
  IMAGE_SECURITY_DATABASE: "d719b2cb-3d3a-4596-a3bc-dad00e67656f",
  SECURE_BOOT_ENABLE: "f0a30bc7-af08-4556-99c4-001009c93a44",
  CUSTOM_MODE: "c076ec0c-7028-4399-a072-71ee5c448b9f",
  SHIM: "605dab50-e046-4300-abb6-3dd810dd8b23"
} as const

/** EFI_STATUS without the bit that marks an error, bit 63. Source: UEFI 2.10, appendix D */
export const EFI_STATUS = {
  SUCCESS: 0,
  INVALID_PARAMETER: 2,
  UNSUPPORTED: 3,
  BAD_BUFFER_SIZE: 4,
  BUFFER_TOO_SMALL: 5,
  WRITE_PROTECTED: 8,
  OUT_OF_RESOURCES: 9,
  NOT_FOUND: 14,
  ACCESS_DENIED: 15,
  TIMEOUT: 18,
  ALREADY_STARTED: 20,
  SECURITY_VIOLATION: 26
} as const

/** What the guest reads where a status is none: neither zero nor an error. */
export const NO_STATUS = -1

const ERROR = 0x8000_0000

/** Stores a status of EFI_STATUS as its 8 bytes. */
export const setEfiStatus = (view: DataView, at: number, status: number): void => {
  view.setUint32(at, status, true)
  view.setUint32(at + 4, status === EFI_STATUS.SUCCESS ? 0 : ERROR, true)
}

/** The status in 8 bytes; NO_STATUS where they hold none. */
export const efiStatusOf = (view: DataView, at: number): number => {
  const [lo, hi] = [view.getUint32(at, true), view.getUint32(at + 4, true)]
  if (lo === 0 && hi === 0) return EFI_STATUS.SUCCESS
  return lo !== 0 && hi === ERROR ? lo : NO_STATUS
}

/** Attributes of a variable. Source: UEFI 2.10, 8.2.1 */
export const EFI_VARIABLE = {
  NON_VOLATILE: 1,
  BOOTSERVICE_ACCESS: 2,
  RUNTIME_ACCESS: 4,
  HARDWARE_ERROR_RECORD: 8,
  AUTHENTICATED_WRITE_ACCESS: 0x10,
  TIME_BASED_AUTHENTICATED_WRITE_ACCESS: 0x20,
  APPEND_WRITE: 0x40
} as const

/** Functions of the variable service. Source: EDK2, MdeModulePkg/Include/Guid/SmmVariableCommon.h */
export const MM_VARIABLE = {
  GET_VARIABLE: 1,
  GET_NEXT_VARIABLE_NAME: 2,
  SET_VARIABLE: 3,
  QUERY_VARIABLE_INFO: 4,
  READY_TO_BOOT: 5,
  EXIT_BOOT_SERVICE: 6,
  GET_STATISTICS: 7,
  LOCK_VARIABLE: 8,
  VAR_CHECK_VARIABLE_PROPERTY_SET: 9,
  VAR_CHECK_VARIABLE_PROPERTY_GET: 10,
  GET_PAYLOAD_SIZE: 11,
  INIT_RUNTIME_VARIABLE_CACHE_CONTEXT: 12,
  SYNC_RUNTIME_CACHE: 13,
  GET_RUNTIME_CACHE_INFO: 14
} as const

/** SMM_VARIABLE_COMMUNICATE_HEADER: what a message to the variable service begins with, behind the header. */
export const VARIABLE_HEADER_FIELDS = layout([
  ["function", 0, 8],
  ["status", 8, 8]
])
export const VARIABLE_HEADER = { ...offsetsOf(VARIABLE_HEADER_FIELDS), SIZE: 16 } as const

/** SMM_VARIABLE_COMMUNICATE_ACCESS_VARIABLE: GetVariable and SetVariable; the data follows the name. */
export const ACCESS_VARIABLE_FIELDS = layout([
  ["guid", 0, 16],
  ["data_size", 16, 8],
  ["name_size", 24, 8],
  ["attributes", 32, 4]
])
export const ACCESS_VARIABLE = { ...offsetsOf(ACCESS_VARIABLE_FIELDS), name: 36 } as const

/** SMM_VARIABLE_COMMUNICATE_GET_NEXT_VARIABLE_NAME, and LockVariable's. */
export const NEXT_NAME_FIELDS = layout([
  ["guid", 0, 16],
  ["name_size", 16, 8]
])
export const NEXT_NAME = { ...offsetsOf(NEXT_NAME_FIELDS), name: 24 } as const

/** SMM_VARIABLE_COMMUNICATE_QUERY_VARIABLE_INFO. */
export const QUERY_INFO_FIELDS = layout([
  ["max_storage", 0, 8],
  ["remaining_storage", 8, 8],
  ["max_variable", 16, 8],
  ["attributes", 24, 4]
])
export const QUERY_INFO = { ...offsetsOf(QUERY_INFO_FIELDS), SIZE: 32 } as const

/** SMM_VARIABLE_COMMUNICATE_VAR_CHECK_VARIABLE_PROPERTY with its VAR_CHECK_VARIABLE_PROPERTY. */
export const VARIABLE_PROPERTY_FIELDS = layout([
  ["guid", 0, 16],
  ["name_size", 16, 8],
  ["revision", 24, 2],
  ["property", 26, 2],
  ["attributes", 28, 4],
  ["min_size", 32, 8],
  ["max_size", 40, 8]
])
export const VARIABLE_PROPERTY = {
  ...offsetsOf(VARIABLE_PROPERTY_FIELDS),
  name: 48,
  REVISION: 1,
  /** Of `property`. */
  READ_ONLY: 1
} as const

/** SMM_VARIABLE_COMMUNICATE_GET_PAYLOAD_SIZE: one number. */
export const PAYLOAD_SIZE_SIZE = 8

/** SMM_VARIABLE_COMMUNICATE_GET_RUNTIME_CACHE_INFO. */
export const RUNTIME_CACHE_INFO_FIELDS = layout([
  ["hob", 0, 8],
  ["non_volatile", 8, 8],
  ["volatile", 16, 8],
  ["authenticated", 24, 1]
])
export const RUNTIME_CACHE_INFO = { ...offsetsOf(RUNTIME_CACHE_INFO_FIELDS), SIZE: 32 } as const

/** Commands of variable policies. Source: EDK2, MdeModulePkg/Include/Guid/VarCheckPolicyMmi.h */
export const POLICY_COMMAND = { DISABLE: 1, IS_ENABLED: 2, REGISTER: 3, DUMP: 4, LOCK: 5 } as const

/** VAR_CHECK_POLICY_COMM_HEADER, packed: what a message about policies begins with, behind the header. */
export const POLICY_HEADER_FIELDS = layout([
  ["signature", 0, 4],
  ["revision", 4, 4],
  ["command", 8, 4],
  ["result", 12, 8]
])
export const POLICY_HEADER = {
  ...offsetsOf(POLICY_HEADER_FIELDS),
  SIZE: 20,
  /** VCPC in memory. */
  SIGNATURE: 0x4350_4356,
  REVISION: 1
} as const

/** VAR_CHECK_POLICY_COMM_DUMP_PARAMS, packed; a page of the dump follows. */
export const POLICY_DUMP_FIELDS = layout([
  ["page_requested", 0, 4],
  ["total_size", 4, 4],
  ["page_size", 8, 4],
  ["has_more", 12, 1]
])
/** The buffer of EDK2's firmware has 16 KiB with all headers: the rest is a page of the dump. */
export const POLICY_DUMP = {
  ...offsetsOf(POLICY_DUMP_FIELDS),
  SIZE: 13,
  BUFFER_MAX: 16_384 - MM_HEADER.SIZE,
  PAGE: 16_384 - MM_HEADER.SIZE - POLICY_HEADER.SIZE - 13
} as const

/** VARIABLE_POLICY_ENTRY, packed. Source: EDK2, MdeModulePkg/Include/Protocol/VariablePolicy.h */
export const POLICY_ENTRY_FIELDS = layout([
  ["version", 0, 4],
  ["size", 4, 2],
  ["offset_to_name", 6, 2],
  ["namespace", 8, 16],
  ["min_size", 24, 4],
  ["max_size", 28, 4],
  ["attributes_must_have", 32, 4],
  ["attributes_cant_have", 36, 4],
  ["lock_policy_type", 40, 1]
])
export const POLICY_ENTRY = { ...offsetsOf(POLICY_ENTRY_FIELDS), SIZE: 44, REVISION: 0x1_0000 } as const

/** VARIABLE_LOCK_ON_VAR_STATE_POLICY, packed: behind the entry, before its name. */
export const LOCK_ON_STATE_FIELDS = layout([
  ["namespace", 0, 16],
  ["value", 16, 1]
])
export const LOCK_ON_STATE = { ...offsetsOf(LOCK_ON_STATE_FIELDS), name: 18 } as const

/** `lock_policy_type`. */
export const LOCK_POLICY = { NO_LOCK: 0, LOCK_NOW: 1, LOCK_ON_CREATE: 2, LOCK_ON_VAR_STATE: 3 } as const

/** EFI_VARIABLE_AUTHENTICATION_2: before the data of an authenticated write. Source: UEFI 2.10, 8.2.2 */
export const AUTHENTICATION_2_FIELDS = layout([
  ["timestamp", 0, 16],
  ["length", 16, 4],
  ["revision", 20, 2],
  ["certificate_type", 22, 2],
  ["certificate_guid", 24, GUID_SIZE]
])
export const AUTHENTICATION_2 = {
  ...offsetsOf(AUTHENTICATION_2_FIELDS),
  /** The signature, a PKCS#7 SignedData. */
  data: 40,
  /** `length` of an empty signature: it counts itself and what follows it. */
  LENGTH_MIN: 24,
  REVISION: 0x0200,
  WIN_CERT_TYPE_EFI_GUID: 0x0ef1,
  PKCS7_GUID: "4aafd29d-68df-49ee-8aa9-347d375665a7"
} as const

/** EFI_TIME. Source: UEFI 2.10, 8.3 */
export const EFI_TIME_FIELDS = layout([
  ["year", 0, 2],
  ["month", 2, 1],
  ["day", 3, 1],
  ["hour", 4, 1],
  ["minute", 5, 1],
  ["second", 6, 1],
  ["pad1", 7, 1],
  ["nanosecond", 8, 4],
  ["time_zone", 12, 2],
  ["daylight", 14, 1],
  ["pad2", 15, 1]
])
export const EFI_TIME = { ...offsetsOf(EFI_TIME_FIELDS), SIZE: 16 } as const
