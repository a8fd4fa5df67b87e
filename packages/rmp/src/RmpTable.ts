// @section 1.1, 1.2
import { NUM_VMPLS, PAGES_PER_2M } from "./PageSize.ts"
import { PERMISSION } from "./Permission.ts"
import { contiguousLayout, type RmpLayout } from "./RmpLayout.ts"
import { resolveSwitches, type Switches } from "./Switches.ts"
import { vmplVerdicts } from "./VmplCheck.ts"

/** Words of a row (one RMP entry): flags with ASID and GFN bits 39:32, GFN bits 31:0, one mask byte per VMPL, spare. */
export const ROW_WORDS = 4
export const GFN_LOW = 1
export const MASKS = 2
const ROW_SHIFT = 2

export const ASSIGNED = 1
/** Page_Size = 2 MiB. */
export const LARGE = 2
export const IMMUTABLE = 4
export const VALIDATED = 8
export const VMSA = 0x10
export const IN_USE = 0x20
export const ASID_SHIFT = 8
const ASID_MASK = 0x3ff
export const GFN_HIGH_SHIFT = 18
/** ASID and GFN bits 39:32, in place. */
export const OWNER = -1 << ASID_SHIFT

const TWO_32 = 0x1_0000_0000
const TWO_MINUS_32 = 1 / TWO_32

/** Rows that no page owns: what the pages after the first of a compact region hold. Never written. */
export const UNASSIGNED_ROW = 0
const INNER_ROW = ROW_WORDS
const FIRST_HEAD = 2 * ROW_WORDS

/** Pool words below which the pool doubles when it is full; above, it grows by a sixteenth, so that little stays unused. */
const DOUBLING_WORDS = 0x1_0000

const PAGES_PER_1G = 0x4_0000

/**
 * `pages` 4 KiB pages from frame `basePfn` are covered, both multiples of 512; or those that `layout` names.
 * `pagesPer2M` makes a machine whose "2 MiB" page has fewer sub-pages (a power of two from 2 to 512), small enough to be
 * explored exhaustively. `vmpls` is the number of privilege levels, 1 to 4.
 */
export interface RmpOptions {
  readonly pages?: number
  readonly basePfn?: number
  readonly layout?: RmpLayout
  readonly switches?: Partial<Switches>
  readonly pagesPer2M?: number
  readonly vmpls?: number
}

const checkedPagesPer2M = (pages: number): number => {
  if (!Number.isInteger(Math.log2(pages)) || pages < 2 || pages > PAGES_PER_2M)
    throw new RangeError(`pagesPer2M must be a power of two from 2 to 512, got ${pages}`)
  return pages
}

/**
 * Storage of the RMP. A region is 2 MiB of system memory. While it is a 2 MiB page, or nothing of it is assigned and
 * the pages after its first hold zeros, it is compact: one row, that of its first page, says all, since the other 511
 * pages of a 2 MiB page hold Assigned=1 and zeros as in hardware. Only 4 KiB entries take a row per page.
 *
 * `assignedIn` counts stored Assigned bits per region and answers "is any page of this region assigned" at once
 * (hardware's Subpage_Count leaves out the first page).
 */
export class RmpTable {
  readonly layout: RmpLayout
  /** Pages from the first covered to the last, those between that have no entry included. */
  readonly pages: number
  readonly basePfn: number
  readonly switches: Switches
  readonly pagesPer2M: number
  readonly vmpls: number
  readonly regionShift: number
  readonly pageMask: number
  /** Rows: two constant ones, one per region, then blocks of one per page for the regions that need it. */
  words: Int32Array<ArrayBuffer>
  /** Per region the row of its first page; UNASSIGNED_ROW where it is not covered. */
  readonly rowOfRegion: Int32Array
  /** Per region which bits of a page's position pick its row from there: none in a compact region. */
  readonly rowMaskOfRegion: Int16Array
  /** Rows from this one on are in blocks. */
  readonly firstBlock: number
  #end: number
  readonly #free: Array<number> = []
  readonly assignedIn: Uint16Array
  readonly inUseIn: Uint16Array
  /** 1 for each GiB in which RMPOPT found hypervisor-owned pages only, until one is given away. */
  readonly optimised: Uint8Array
  /** Masks of a page just assigned: VMPL0 may everything, the others nothing. */
  readonly initialMasks: number
  /** The processor has the erratum of false faults: see AccessCheck. */
  hasFalseFaults = false
  /** The VMPL check, precomputed: see vmplVerdicts. */
  readonly verdicts: Int32Array

  constructor(options: RmpOptions) {
    this.pagesPer2M = checkedPagesPer2M(options.pagesPer2M ?? PAGES_PER_2M)
    this.vmpls = options.vmpls ?? NUM_VMPLS
    if (!Number.isInteger(this.vmpls) || this.vmpls < 1 || this.vmpls > NUM_VMPLS)
      throw new RangeError(`vmpls must be from 1 to ${NUM_VMPLS}, got ${this.vmpls}`)
    this.layout = options.layout ?? contiguousLayout(options.basePfn ?? 0, options.pages ?? 0, this.pagesPer2M)
    this.pages = this.layout.pages
    this.basePfn = this.layout.basePfn
    this.regionShift = Math.log2(this.pagesPer2M)
    this.pageMask = this.pagesPer2M - 1
    this.switches = resolveSwitches(options.switches)
    const regions = this.pages / this.pagesPer2M
    this.firstBlock = FIRST_HEAD + regions * ROW_WORDS
    this.#end = this.firstBlock
    this.words = new Int32Array(this.firstBlock)
    this.words[INNER_ROW] = ASSIGNED
    this.rowOfRegion = new Int32Array(regions)
    for (let region = 0; region < regions; region++)
      this.rowOfRegion[region] = this.layout.covers(this.basePfn + region * this.pagesPer2M)
        ? FIRST_HEAD + region * ROW_WORDS
        : UNASSIGNED_ROW
    this.rowMaskOfRegion = new Int16Array(regions)
    this.assignedIn = new Uint16Array(regions)
    this.inUseIn = new Uint16Array(regions)
    this.optimised = new Uint8Array(Math.ceil(this.pages / PAGES_PER_1G))
    this.verdicts = vmplVerdicts(this.switches)
    this.initialMasks = PERMISSION.ALL | (this.switches.U7 === "alternative" ? PERMISSION.SHADOW_STACK : 0)
  }

  /** Bytes that the table holds on to. */
  get bytes(): number {
    const { words, rowOfRegion, assignedIn, inUseIn, optimised } = this
    return [words, rowOfRegion, assignedIn, inUseIn, optimised].reduce((sum, array) => sum + array.byteLength, 0)
  }

  /** First row of a zeroed block for a region. */
  allocateBlock(): number {
    const block = this.#free.pop()
    if (block !== undefined) return block
    const start = this.#end
    const words = this.pagesPer2M * ROW_WORDS
    this.#end += words
    if (this.#end > this.words.length) {
      const { buffer, length } = this.words
      const spare = length < DOUBLING_WORDS ? length : Math.floor(length / 16)
      // The old buffer is given back at once, not when garbage is collected.
      this.words = new Int32Array(buffer.transfer(4 * Math.max(this.#end, length + spare)))
    }
    return start
  }

  freeBlock(start: number): void {
    this.words.fill(0, start, start + this.pagesPer2M * ROW_WORDS)
    this.#free.push(start)
  }
}

/** Position of a page in the table, or -1 where the RMP does not cover it. */
export const indexOf = (table: RmpTable, pfn: number): number => {
  const index = pfn - table.basePfn
  return index >= 0 && index < table.pages && table.rowOfRegion[index >>> table.regionShift] !== UNASSIGNED_ROW
    ? index
    : -1
}

/** Number of the 2 MiB region of a page. */
export const regionOf = (table: RmpTable, index: number): number => index >>> table.regionShift

/** Row of the first page of a page's region. */
export const headRowOf = (table: RmpTable, index: number): number => table.rowOfRegion[index >>> table.regionShift]!

/** Row with the stored entry of a page, to be read only: the pages of a compact region share one. */
export const rowOf = (table: RmpTable, index: number): number => {
  const head = headRowOf(table, index)
  const page = index & table.pageMask
  if (head >= table.firstBlock) return head + (page << ROW_SHIFT)
  if (page === 0) return head
  return isLarge(table, head) ? INNER_ROW : UNASSIGNED_ROW
}

/** Row of a page, to be written: its region stops being compact. */
const expandedRowOf = (table: RmpTable, index: number): number => {
  expand(table, index)
  return headRowOf(table, index) + ((index & table.pageMask) << ROW_SHIFT)
}

/** Row of the first page of a region, else as above: for changes after which the region can still be compact. */
export const ownRowOf = (table: RmpTable, index: number): number =>
  (index & table.pageMask) === 0 ? headRowOf(table, index) : expandedRowOf(table, index)

/** Gives every page of a region a row of its own. */
export const expand = (table: RmpTable, index: number): void => {
  const region = regionOf(table, index)
  const head = table.rowOfRegion[region]!
  if (head >= table.firstBlock) return
  const block = table.allocateBlock()
  const { words } = table
  words.copyWithin(block, head, head + ROW_WORDS)
  if (isLarge(table, head))
    for (let row = block + ROW_WORDS; row < block + table.pagesPer2M * ROW_WORDS; row += ROW_WORDS)
      words[row] = ASSIGNED
  words.fill(0, head, head + ROW_WORDS)
  table.rowOfRegion[region] = block
  table.rowMaskOfRegion[region] = table.pageMask
}

/** Makes a region compact: what its pages after the first held is gone. None of them may be in use. */
export const collapse = (table: RmpTable, index: number): void => {
  const region = regionOf(table, index)
  const block = table.rowOfRegion[region]!
  if (block < table.firstBlock) return
  const head = FIRST_HEAD + region * ROW_WORDS
  table.words.copyWithin(head, block, block + ROW_WORDS)
  table.rowOfRegion[region] = head
  table.rowMaskOfRegion[region] = 0
  table.freeBlock(block)
}

/** Whether the row stores an assigned 2 MiB entry. */
export const isLarge = (table: RmpTable, row: number): boolean =>
  (table.words[row]! & (ASSIGNED | LARGE)) === (ASSIGNED | LARGE)

/** Row of the entry that rules a page: that of the 2 MiB page it lies in, else its own. Safe to write if assigned. */
export const rulingRow = (table: RmpTable, index: number): number => {
  const head = headRowOf(table, index)
  return isLarge(table, head) ? head : rowOf(table, index)
}

/** Pages between the page and the one whose entry rules it. */
export const offsetInRuling = (table: RmpTable, index: number): number =>
  isLarge(table, headRowOf(table, index)) ? index & table.pageMask : 0

/** Whether a page is in use; for one of a 2 MiB page, whether any part of that is. */
export const isRulingInUse = (table: RmpTable, index: number): boolean =>
  isLarge(table, headRowOf(table, index))
    ? table.inUseIn[regionOf(table, index)] !== 0
    : (table.words[rowOf(table, index)]! & IN_USE) !== 0

/** GFN bits 39:32 as they lie in the flags word. */
export const gfnHighBits = (gfn: number): number =>
  gfn >= TWO_32 ? Math.floor(gfn * TWO_MINUS_32) << GFN_HIGH_SHIFT : 0

/** ASID and GFN bits 39:32 as they lie in the flags word. */
export const ownerBits = (asid: number, gfn: number): number => (asid << ASID_SHIFT) | gfnHighBits(gfn)

/** Stored guest frame number. */
export const gfnOf = (table: RmpTable, row: number): number =>
  (table.words[row]! >>> GFN_HIGH_SHIFT) * TWO_32 + (table.words[row + GFN_LOW]! >>> 0)

/** Whether the row stores this ASID and guest frame number; a frame number below 0 never. */
export const isOwnedAt = (table: RmpTable, row: number, asid: number, gfn: number): boolean =>
  gfn >= 0 && table.words[row + GFN_LOW] === (gfn | 0) && (table.words[row]! & OWNER) === ownerBits(asid, gfn)

export const asidOf = (table: RmpTable, row: number): number => (table.words[row]! >>> ASID_SHIFT) & ASID_MASK

/** Writes the whole entry of a page and keeps its region's counts; `flags` is without ASID and GFN. */
export const writeEntry = (
  table: RmpTable,
  index: number,
  flags: number,
  asid: number,
  gfn: number,
  masks: number
): void => {
  const row = (flags & (ASSIGNED | LARGE)) === ASSIGNED ? expandedRowOf(table, index) : ownRowOf(table, index)
  const { words } = table
  const region = regionOf(table, index)
  const old = words[row]!
  table.assignedIn[region]! += (flags & ASSIGNED) - (old & ASSIGNED)
  table.inUseIn[region]! += ((flags & IN_USE) - (old & IN_USE)) / IN_USE
  words[row] = flags | ownerBits(asid, gfn)
  words[row + GFN_LOW] = gfn | 0
  words[row + MASKS] = masks
  forgetOptimisation(table, index)
}

/** Turns a region into one entry of 2 MiB (`flags` with ASSIGNED and LARGE) or into unassigned pages. */
export const writeRegion = (
  table: RmpTable,
  index: number,
  flags: number,
  asid: number,
  gfn: number,
  masks: number
): void => {
  collapse(table, index)
  writeEntry(table, index, flags, asid, gfn, masks)
  table.assignedIn[regionOf(table, index)] = (flags & ASSIGNED) === 0 ? 0 : table.pagesPer2M
}

/** What hardware does when RMPUPDATE or PSMASH changes anything in a GiB. @spec Linux RMPOPT series */
const forgetOptimisation = (table: RmpTable, index: number): void => {
  table.optimised[Math.floor(index / PAGES_PER_1G)] = 0
}

/** Form of a page in a snapshot: words, position of ASID in the first, words with GFN bits 31:0 and masks. */
export const SNAPSHOT = { WORDS: 3, ASID_SHIFT, GFN: GFN_LOW, MASKS } as const
const SNAPSHOT_WORDS = SNAPSHOT.WORDS

/** Copies the stored entries of all pages, SNAPSHOT.WORDS for each. For machines small enough to be explored. */
export const saveEntries = (table: RmpTable, into: Int32Array): void => {
  for (let index = 0; index < table.pages; index++) {
    const row = rowOf(table, index)
    for (let word = 0; word < SNAPSHOT_WORDS; word++) into[index * SNAPSHOT_WORDS + word] = table.words[row + word]!
  }
}

/** Puts back what saveEntries copied. */
export const restoreEntries = (table: RmpTable, from: Int32Array): void => {
  table.assignedIn.fill(0)
  table.inUseIn.fill(0)
  for (let index = 0; index < table.pages; index++) {
    expand(table, index)
    const row = rowOf(table, index)
    for (let word = 0; word < SNAPSHOT_WORDS; word++) table.words[row + word] = from[index * SNAPSHOT_WORDS + word]!
    const flags = table.words[row]!
    table.assignedIn[regionOf(table, index)]! += flags & ASSIGNED
    table.inUseIn[regionOf(table, index)]! += (flags & IN_USE) / IN_USE
  }
}
