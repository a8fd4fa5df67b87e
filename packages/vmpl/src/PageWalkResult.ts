/** Rights of a guest mapping as its page tables give them; a bit set in all levels but for NX, where one is enough. */
export const MAPPING = {
  WRITABLE: 1,
  USER: 2,
  NO_EXECUTE: 4,
  /** The leaf's Dirty bit. */
  DIRTY: 8,
  /** Writable in all levels but the leaf, which with DIRTY marks a shadow-stack page. @spec APM2 18 */
  SHADOW_STACK: 0x10
} as const

/** Where a guest page walk leaves what it found. One per core, overwritten by the next walk. */
export class PageWalkResult {
  /** Guest physical address, exact. */
  gpa = 0
  /** C-bit of the leaf. */
  cbit = false
  /** Bits of MAPPING. */
  mapping = 0
}
