// @section 1.3, 1.4
/** Frames from `first` on. */
export interface FrameRange {
  readonly first: number
  readonly count: number
}

/** Which pages have an RMP entry, and where in system memory the entries lie. */
export interface RmpLayout {
  /** First frame of the span that the RMP covers, a multiple of 512. */
  readonly basePfn: number
  /** 4 KiB pages from the first covered to the last. */
  readonly pages: number
  /** Zen 5's form, with a table for each segment of memory. */
  readonly segmented: boolean
  /** Whether a page has an entry. Constant over each 2 MiB. */
  covers(pfn: number): boolean
  /** System physical address of a page's 16-byte entry, null where that is not said or the page has none. */
  entryAddress(pfn: number): number | null
  /** Frames of the RMP itself: bookkeeping, segment table, entries. */
  readonly ownFrames: ReadonlyArray<FrameRange>
}

const PAGE = 0x1000
const ENTRY_BYTES = 16
/** Most pages that one table covers here: 4 TiB. Their rows still have numbers below 2^31 when few are of 4 KiB. */
const PAGES_MAX = 2 ** 30
const ADDRESS_END = 2 ** 52
const BOOKKEEPING_BYTES = 0x4000

const hex = (value: number): string => `0x${value.toString(16)}`

/** `pages` from frame `basePfn` on, in a table whose place in memory is not said. */
export const contiguousLayout = (basePfn: number, pages: number, pagesPer2M: number): RmpLayout => {
  if (!Number.isSafeInteger(pages) || pages < 0 || pages > PAGES_MAX || pages % pagesPer2M !== 0)
    throw new RangeError(`pages must be a multiple of ${pagesPer2M} up to 2^30, got ${pages}`)
  if (!Number.isSafeInteger(basePfn) || basePfn < 0 || basePfn >= 2 ** 40 || basePfn % pagesPer2M !== 0)
    throw new RangeError(`basePfn must be a multiple of ${pagesPer2M} below 2^40, got ${basePfn}`)
  return {
    basePfn,
    pages,
    segmented: false,
    covers: (pfn) => pfn >= basePfn && pfn < basePfn + pages,
    entryAddress: () => null,
    ownFrames: []
  }
}

const checkBase = (base: number, alignment: number): void => {
  if (!Number.isSafeInteger(base) || base < 0 || base >= ADDRESS_END || base % alignment !== 0)
    throw new RangeError(`RMP_BASE must be a multiple of ${hex(alignment)} below 2^52, got ${hex(base)}`)
}

/**
 * The flat RMP between the MSRs RMP_BASE and RMP_END (its last byte): 16 KiB of bookkeeping, then the entries of all
 * pages from address 0 on. Coverage is rounded down to whole 2 MiB.
 * @spec APM2 15.36.4
 */
export const flatLayout = (rmpBase: number, rmpEnd: number): RmpLayout => {
  checkBase(rmpBase, 0x2000)
  if (!Number.isSafeInteger(rmpEnd) || (rmpEnd + 1) % 0x2000 !== 0 || rmpEnd + 1 < rmpBase + BOOKKEEPING_BYTES)
    throw new RangeError(`RMP_END + 1 must be a multiple of 0x2000 from RMP_BASE + 0x4000 on, got ${hex(rmpEnd)}`)
  const entries = (rmpEnd + 1 - rmpBase - BOOKKEEPING_BYTES) / ENTRY_BYTES
  const pages = entries - (entries % 512)
  if (pages > PAGES_MAX) throw new RangeError(`an RMP of ${pages} entries is more than the 2^30 that fit`)
  const covers = (pfn: number): boolean => pfn >= 0 && pfn < pages
  return {
    basePfn: 0,
    pages,
    segmented: false,
    covers,
    entryAddress: (pfn) => (covers(pfn) ? rmpBase + BOOKKEEPING_BYTES + pfn * ENTRY_BYTES : null),
    ownFrames: [
      { first: Math.floor(rmpBase / PAGE), count: Math.ceil((rmpEnd + 1) / PAGE) - Math.floor(rmpBase / PAGE) }
    ]
  }
}

/** RMP_END for a flat RMP at `rmpBase` that covers the addresses below `bytes`. @spec APM2 15.36.4 */
export const rmpEndFor = (rmpBase: number, bytes: number): number =>
  rmpBase + BOOKKEEPING_BYTES + (bytes / PAGE) * ENTRY_BYTES - 1

const SEGMENTS = 512
const RST_BYTES = SEGMENTS * 8
const GIB = 2 ** 30
const PAGES_PER_GIB = GIB / PAGE
const MIB = 2 ** 20

/** RMP_CFG: bit 0 SegmentedRmpEn, bits 13:8 the segment size as a power of two. @spec APM2 15.36.22 */
export const decodeRmpCfg = (value: number): { readonly enabled: boolean; readonly segmentShift: number } => {
  if (!Number.isSafeInteger(value) || value < 0 || value > 0x3fff || (value & 0xfe) !== 0)
    throw new RangeError(`RMP_CFG: bits other than 0 and 13:8 must be zero, got ${hex(value)}`)
  return { enabled: (value & 1) === 1, segmentShift: value >>> 8 }
}

/** An entry of the RMP segment table. */
export interface RmpSegment {
  /** System physical address of the segment's entries, a multiple of 1 MiB. */
  readonly base: number
  /** Covered GiB, 0 for none. */
  readonly coveredGib: number
}

/** Bits 19:0 covered GiB, bits 51:20 base; a reserved bit is null: a page fault in hardware. @spec APM2 15.36.22 */
export const decodeRstEntry = (entry: bigint): RmpSegment | null =>
  entry < 0n || entry >> 52n !== 0n ? null : { coveredGib: Number(entry & 0xfffffn), base: Number(entry & ~0xfffffn) }

export const encodeRstEntry = ({ base, coveredGib }: RmpSegment): bigint => BigInt(base) | BigInt(coveredGib)

/**
 * The segmented RMP of Zen 5: at RMP_BASE 16 KiB of bookkeeping and a segment table of 512 entries; each segment of
 * system memory has its entries in a table of its own, sized by what it covers (clipped to the segment). What has no
 * segment-table entry is hypervisor-owned.
 * @param rst entries from index 0 on, those left out are 0
 * @spec APM2 15.36.22
 */
export const segmentedLayout = (rmpBase: number, rmpCfg: number, rst: ReadonlyArray<bigint>): RmpLayout => {
  checkBase(rmpBase, MIB)
  const { enabled, segmentShift } = decodeRmpCfg(rmpCfg)
  // A segment smaller than the GiB in which coverage is counted cannot be described. @spec-silent
  if (!enabled || segmentShift < 30 || segmentShift > 52)
    throw new RangeError(`RMP_CFG must enable segments of 2^30 to 2^52 bytes, got ${hex(rmpCfg)}`)
  if (rst.length > SEGMENTS) throw new RangeError(`a segment table has 512 entries, got ${rst.length}`)
  const segmentPages = 2 ** (segmentShift - 12)
  const segments = rst.map((entry, number) => {
    const segment = decodeRstEntry(entry)
    if (segment === null) throw new RangeError(`segment ${number}: reserved bits 63:52 are set`)
    return { base: segment.base, pages: Math.min(segment.coveredGib * PAGES_PER_GIB, segmentPages) }
  })
  const last = segments.findLastIndex(({ pages }) => pages > 0)
  const pages = last < 0 ? 0 : last * segmentPages + segments[last]!.pages
  if (pages > PAGES_MAX) throw new RangeError(`segments span ${pages} pages, more than the 2^30 that fit`)
  const offsetInSegment = (pfn: number): number => pfn % segmentPages
  const segmentOf = (pfn: number) => segments[Math.floor(pfn / segmentPages)]
  const covers = (pfn: number): boolean => pfn >= 0 && offsetInSegment(pfn) < (segmentOf(pfn)?.pages ?? 0)
  return {
    basePfn: 0,
    pages,
    segmented: true,
    covers,
    entryAddress: (pfn) => (covers(pfn) ? segmentOf(pfn)!.base + offsetInSegment(pfn) * ENTRY_BYTES : null),
    ownFrames: [
      { first: rmpBase / PAGE, count: (BOOKKEEPING_BYTES + RST_BYTES) / PAGE },
      ...segments
        .filter((segment) => segment.pages > 0)
        .map((segment) => ({ first: segment.base / PAGE, count: (segment.pages * ENTRY_BYTES) / PAGE }))
    ]
  }
}
