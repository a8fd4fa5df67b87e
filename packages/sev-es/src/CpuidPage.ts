import { layout, offsetsOf } from "./Layout.ts"

/**
 * Header of the CPUID page that the firmware checks at launch: how many functions follow, then bytes that must be zero.
 * @spec SNP-ABI "CPUID page"; Linux `struct snp_cpuid_table`
 */
export const CPUID_PAGE_FIELDS = layout([
  ["count", 0x0, 4],
  ["reserved1", 0x4, 4],
  ["reserved2", 0x8, 8]
])

/** Byte offsets of the header fields by name. */
export const CPUID_PAGE = offsetsOf(CPUID_PAGE_FIELDS)

/**
 * One function of the CPUID page: the question (EAX, ECX, XCR0, IA32_XSS) and the answer.
 * @spec SNP-ABI "CPUID page"; Linux `struct snp_cpuid_fn`
 */
export const CPUID_FUNCTION_FIELDS = layout([
  ["eax_in", 0x00, 4],
  ["ecx_in", 0x04, 4],
  ["xcr0_in", 0x08, 8],
  ["xss_in", 0x10, 8],
  ["eax", 0x18, 4],
  ["ebx", 0x1c, 4],
  ["ecx", 0x20, 4],
  ["edx", 0x24, 4],
  ["reserved", 0x28, 8]
])

/** Byte offsets inside one function by name. */
export const CPUID_FUNCTION = offsetsOf(CPUID_FUNCTION_FIELDS)

/** Offset of the first function, bytes of each, and how many a page can hold. */
export const CPUID_FUNCTION_BASE = 0x10
export const CPUID_FUNCTION_SIZE = 48
export const CPUID_COUNT_MAX = 64
