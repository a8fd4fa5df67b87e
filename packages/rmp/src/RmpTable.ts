import { PAGES_PER_2M } from "./PageSize.ts"
import { PERMISSION } from "./Permission.ts"
import { resolveSwitches, type Switches } from "./Switches.ts"

/** Words of a row (one RMP entry): flags with ASID, GFN bits 31:0, GFN bits above, one mask byte per VMPL from bit 0. */
export const ROW_WORDS = 4
export const GFN_LOW = 1
export const GFN_HIGH = 2
export const MASKS = 3

export const ASSIGNED = 1
/** Page_Size = 2 MiB. */
export const LARGE = 2
export const IMMUTABLE = 4
export const VALIDATED = 8
export const VMSA = 0x10
export const IN_USE = 0x20
export const ASID_SHIFT = 8

const REGION_WORDS = PAGES_PER_2M * ROW_WORDS
const TWO_32 = 0x1_0000_0000
const TWO_MINUS_32 = 1 / TWO_32

/** `pages` 4 KiB pages from frame `basePfn` are covered; both are multiples of 512. */
export interface RmpOptions {
  readonly pages: number
  readonly basePfn?: number
  readonly switches?: Partial<Switches>
}

/**
 * Storage of a flat RMP. The 511 pages after the first of a 2 MiB page hold Assigned=1 and zeros, as in hardware, so
 * `assignedIn` counts stored Assigned bits per 2 MiB region and answers "is any page of this region assigned" at once
 * (hardware's Subpage_Count leaves out the first page).
 */
export class RmpTable {
  readonly pages: number
  readonly basePfn: number
  readonly switches: Switches
  readonly words: Int32Array
  readonly assignedIn: Uint16Array
  readonly inUseIn: Uint16Array
  /** 1 for regions that were ever written: the others are known to be zero. */
  readonly touched: Uint8Array
  /** Masks of a page just assigned: VMPL0 may everything, the others nothing. */
  readonly initialMasks: number

  constructor(options: RmpOptions) {
    const { pages, basePfn = 0 } = options
    if (!Number.isSafeInteger(pages) || pages < 0 || pages > 2 ** 28 || pages % PAGES_PER_2M !== 0)
      throw new RangeError(`pages must be a multiple of 512 up to 2^28, got ${pages}`)
    if (!Number.isSafeInteger(basePfn) || basePfn < 0 || basePfn >= 2 ** 40 || basePfn % PAGES_PER_2M !== 0)
      throw new RangeError(`basePfn must be a multiple of 512 below 2^40, got ${basePfn}`)
    this.pages = pages
    this.basePfn = basePfn
    this.switches = resolveSwitches(options.switches)
    this.words = new Int32Array(pages * ROW_WORDS)
    const regions = pages / PAGES_PER_2M
    this.assignedIn = new Uint16Array(regions)
    this.inUseIn = new Uint16Array(regions)
    this.touched = new Uint8Array(regions)
    this.initialMasks = PERMISSION.ALL | (this.switches.U7 === "alternative" ? PERMISSION.SHADOW_STACK : 0)
  }
}

/** First word of the page's stored entry, -1 where the RMP does not cover it. */
export const rowOf = (table: RmpTable, pfn: number): number => {
  const index = pfn - table.basePfn
  return index >= 0 && index < table.pages ? index * ROW_WORDS : -1
}

/** Number of the 2 MiB region of a row. */
export const regionOf = (row: number): number => Math.floor(row / REGION_WORDS)

/** Row of the first page of a row's 2 MiB region. */
export const headOf = (row: number): number => row - (row % REGION_WORDS)

/** Whether the row stores an assigned 2 MiB entry. */
export const isLarge = (table: RmpTable, row: number): boolean =>
  (table.words[row]! & (ASSIGNED | LARGE)) === (ASSIGNED | LARGE)

/** Row of the entry that rules a page: that of the 2 MiB page it lies in, else its own. */
export const rulingRow = (table: RmpTable, row: number): number => {
  const head = headOf(row)
  return isLarge(table, head) ? head : row
}

/** Whether the page of a row is in use; for a 2 MiB page, whether any part of it is. */
export const isRowInUse = (table: RmpTable, row: number): boolean =>
  isLarge(table, row) ? table.inUseIn[regionOf(row)] !== 0 : (table.words[row]! & IN_USE) !== 0

/** Stored guest frame number. */
export const gfnOf = (table: RmpTable, row: number): number =>
  table.words[row + GFN_HIGH]! * TWO_32 + (table.words[row + GFN_LOW]! >>> 0)

/** Whether the row stores this guest frame number; below 0 never. */
export const hasGfn = (table: RmpTable, row: number, gfn: number): boolean =>
  table.words[row + GFN_LOW] === (gfn | 0) && table.words[row + GFN_HIGH] === Math.floor(gfn * TWO_MINUS_32)

export const asidOf = (table: RmpTable, row: number): number => table.words[row]! >>> ASID_SHIFT

/** Writes a whole entry and keeps the region's counts; `flags` holds the ASID too. */
export const writeRow = (table: RmpTable, row: number, flags: number, gfn: number, masks: number): void => {
  const { words } = table
  const region = regionOf(row)
  const old = words[row]!
  table.assignedIn[region]! += (flags & ASSIGNED) - (old & ASSIGNED)
  table.inUseIn[region]! += ((flags & IN_USE) - (old & IN_USE)) / IN_USE
  table.touched[region] = 1
  words[row] = flags
  words[row + GFN_LOW] = gfn | 0
  words[row + GFN_HIGH] = Math.floor(gfn * TWO_MINUS_32)
  words[row + MASKS] = masks
}

/** Zeroes the 511 entries after `head` but for Assigned. None of them may be in use. */
export const writeInnerRows = (table: RmpTable, head: number, assigned: boolean): void => {
  const { words } = table
  const end = head + REGION_WORDS
  words.fill(0, head + ROW_WORDS, end)
  if (assigned) for (let row = head + ROW_WORDS; row < end; row += ROW_WORDS) words[row] = ASSIGNED
  const region = regionOf(head)
  table.assignedIn[region] = (words[head]! & ASSIGNED) + (assigned ? PAGES_PER_2M - 1 : 0)
  table.touched[region] = 1
}
