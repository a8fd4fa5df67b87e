import type { CpuidFunction, CpuidPolicy } from "./CpuidMessage.ts"

const XSAVE_LEAF = 0xd

/** Bits of XCR0 for state beyond x87 and SSE. @spec APM2 "XFEATURE_ENABLED_MASK" */
const XCR0 = { AVX: 1n << 2n, KREGS: 1n << 5n, ZMMHI: 1n << 6n, HIZMM: 1n << 7n, MPK: 1n << 9n } as const
/** Bits of XSS. */
const XSS = { CET_U: 1n << 11n, CET_S: 1n << 12n } as const

/** Legacy area and header. */
const XSAVE_LEGACY_SIZE = 0x240

/** Where the standard form ends with a state and all that lie before it: the last one that is on decides. */
const STANDARD_ENDS: ReadonlyArray<readonly [bit: bigint, end: number]> = [
  [XCR0.MPK, 0x988],
  [XCR0.HIZMM, 0x980],
  [XCR0.ZMMHI, 0x580],
  [XCR0.KREGS, 0x380],
  [XCR0.AVX, 0x340]
]

/** What each state adds to the compacted form. */
const COMPACTED_SIZES: ReadonlyArray<readonly [bit: bigint, size: number]> = [
  [XCR0.MPK, 0x8],
  [XCR0.HIZMM, 0x400],
  [XCR0.ZMMHI, 0x200],
  [XCR0.KREGS, 0x40],
  [XCR0.AVX, 0x100]
]
const COMPACTED_XSS_SIZES: ReadonlyArray<readonly [bit: bigint, size: number]> = [
  [XSS.CET_U, 0x10],
  [XSS.CET_S, 0x18]
]

const sumOf = (state: bigint, sizes: ReadonlyArray<readonly [bit: bigint, size: number]>): number =>
  sizes.reduce((sum, [bit, size]) => sum + ((state & bit) === 0n ? 0 : size), 0)

const standardSize = ({ xcr0In }: CpuidFunction): number =>
  STANDARD_ENDS.find(([bit]) => (xcr0In & bit) !== 0n)?.[1] ?? XSAVE_LEGACY_SIZE

const compactedSize = ({ xcr0In, xssIn }: CpuidFunction): number =>
  XSAVE_LEGACY_SIZE + sumOf(xcr0In, COMPACTED_SIZES) + sumOf(xssIn, COMPACTED_XSS_SIZES)

/** x87 and SSE, which every processor has. */
const ALWAYS_ON = 3

/**
 * Of all that real firmware looks at, the leaf whose wrong values a guest pays for with its memory: a save area that is
 * said to be smaller than it is. Its EBX follows from XCR0 and XSS as the table says that they are. The rest is taken at
 * the hypervisor's word. Sizes are those of Genoa.
 * @spec SNP-ABI "CPUID page"
 */
export const XSAVE_CPUID: CpuidPolicy = (claimed) => {
  if (claimed.eaxIn !== XSAVE_LEAF) return claimed
  if (claimed.ecxIn === 0) return { ...claimed, eax: claimed.eax | ALWAYS_ON, ebx: standardSize(claimed), edx: 0 }
  return claimed.ecxIn === 1 ? { ...claimed, ebx: compactedSize(claimed) } : claimed
}
