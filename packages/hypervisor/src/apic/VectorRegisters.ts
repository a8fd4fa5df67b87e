/**
 * ISR, TMR and IRR: 256 bits in eight registers of the APIC page. The page is kept as one 32-bit word per register,
 * so `base` is the first register's offset and a vector's word is (base >> 4) + (vector >> 5).
 */
export type ApicPage = Uint32Array

export const setVector = (page: ApicPage, base: number, vector: number): void => {
  page[(base >> 4) + (vector >> 5)]! |= 1 << (vector & 31)
}

export const clearVector = (page: ApicPage, base: number, vector: number): void => {
  page[(base >> 4) + (vector >> 5)]! &= ~(1 << (vector & 31))
}

export const testVector = (page: ApicPage, base: number, vector: number): boolean =>
  ((page[(base >> 4) + (vector >> 5)]! >>> (vector & 31)) & 1) !== 0

/** The highest vector that is set, or -1. */
export const highestVector = (page: ApicPage, base: number): number => {
  for (let word = 7; word >= 0; word--) {
    const bits = page[(base >> 4) + word]!
    if (bits !== 0) return word * 32 + 31 - Math.clz32(bits)
  }
  return -1
}
