// @section 1.2
/**
 * Permission mask of one VMPL, one byte of an RMP entry; bits 7:5 are reserved.
 * @spec APM2 15.36.7 table 15-36
 */
export const PERMISSION = {
  READ: 1,
  WRITE: 2,
  EXECUTE_USER: 4,
  EXECUTE_SUPERVISOR: 8,
  SHADOW_STACK: 0x10,
  ALL: 0xf
} as const

/** Bits 7:5 of a mask, which must be zero. */
export const PERMISSION_RESERVED = 0xe0

/**
 * Kinds of memory access. `SHADOW_STACK` is a supervisor shadow-stack access; `VMPL_SSS` is no kind but is added to one
 * when the guest's SEV_FEATURES enable VmplSSS: only then the mask's SSS bit is looked at and reported.
 * @spec APM2 15.36.10
 */
export const ACCESS = {
  READ: 0,
  WRITE: 1,
  FETCH: 2,
  PAGE_TABLE_READ: 3,
  /** Update of an Accessed or Dirty bit. */
  PAGE_TABLE_WRITE: 4,
  SHADOW_STACK: 5,
  VMPL_SSS: 8
} as const

/** The kind without its VMPL_SSS modifier. */
export const ACCESS_KIND_MASK = 7
