/** Page_Size of an RMP entry, of an instruction's operand and of a nested mapping (1 GiB counts as 2 MiB). @spec APM2 15.36.3 */
export const PAGE_4K = 0
export const PAGE_2M = 1

export type PageSize = typeof PAGE_4K | typeof PAGE_2M

/** 4 KiB pages in a 2 MiB page. */
export const PAGES_PER_2M = 512

/** Virtual machine privilege levels on shipping parts. @spec APM2 CPUID 8000_001F EBX[15:12] */
export const NUM_VMPLS = 4

/**
 * In place of a frame number: as `gfn`, the guest's own page tables do not map the address; as `pfn`, the nested ones
 * do not. The fault then carries no RMP bit.
 */
export const NOT_MAPPED = -1
