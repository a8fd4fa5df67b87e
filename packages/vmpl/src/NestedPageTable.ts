import { PAGE_2M, PAGE_4K, PAGES_PER_2M, type PageSize } from "@vmpl-lab/rmp"
import { assert } from "@vmpl-lab/sim"
import { AccessCache } from "./AccessCache.ts"

/** A nested leaf of 1 GiB, beside PAGE_4K and PAGE_2M. */
export const PAGE_1G = 2
export type LeafSize = PageSize | typeof PAGE_1G

/** What a lookup gives in place of a frame. */
export const NESTED = {
  NOT_MAPPED: -1,
  /** The leaf has a reserved bit set, as KVM's SPTE of an emulated device. */
  RESERVED: -2
} as const

const { NOT_MAPPED, RESERVED } = NESTED
const PAGES_PER_1G = PAGES_PER_2M * PAGES_PER_2M

/** 512 leaves of 4 KiB, as one page of PTEs. */
type Table = Float64Array

/**
 * The second stage of translation of one VM object: guest frame number to system frame number in leaves of 4 KiB, 2 MiB
 * and 1 GiB. The hypervisor owns it and may map anything anywhere; the RMP decides whether an access goes through.
 */
export class NestedPageTable {
  /** By 2 MiB region: its page of PTEs, or the first frame of its 2 MiB leaf. */
  readonly #regions = new Map<number, Table | number>()
  /** By 1 GiB region: the first frame of its 1 GiB leaf. Then there is nothing in `#regions` for it. */
  readonly #gigabytes = new Map<number, number>()
  #lastIndex = -1
  #lastTable: Table | undefined
  /** First frame of the remembered region where it has no page of PTEs, or NOT_MAPPED. */
  #lastFirst: number = NOT_MAPPED
  /** Leaf size of the latest lookup that found a frame. */
  leafSize: LeafSize = PAGE_4K
  /** The same as the RMP counts it: a 1 GiB leaf gives 2 MiB TLB entries only. @spec APM2 15.36.10 */
  pageSize: PageSize = PAGE_4K
  /** Leaves that are present, of whatever size. */
  mapped = 0
  /** Grows with every change: while it stays, equal lookups have equal outcomes. */
  changes = 0
  /** What accesses through this table have been found to pass. */
  readonly accesses = new AccessCache()
  /** GFNs below leaves with the Dirty bit; null while the host does not ask. */
  #dirty: Set<number> | null = null

  /** Whether the host wants to know where the guest writes. */
  get logsDirty(): boolean {
    return this.#dirty !== null
  }

  /** Clears the Dirty bits of all leaves and keeps them from now on, or no longer. */
  logDirty(on: boolean): void {
    this.changes++
    this.#dirty = on ? new Set() : null
  }

  /** The Dirty bit of the leaf of the latest lookup, which was this page's: it stands for all pages of the leaf. */
  markDirty(gfn: number): void {
    if (this.#dirty === null) return
    const pages = this.leafSize === PAGE_4K ? 1 : this.leafSize === PAGE_2M ? PAGES_PER_2M : PAGES_PER_1G
    const first = gfn - (gfn % pages)
    for (let page = first; page < first + pages; page++) this.#dirty.add(page)
  }

  /** Scans for Dirty bits and clears them: the GFNs in ascending order. Whoever does this flushes the TLBs. */
  harvestDirty(): ReadonlyArray<number> {
    const dirty = [...(this.#dirty ?? [])].sort((a, b) => a - b)
    this.logDirty(this.#dirty !== null)
    return dirty
  }

  /** The system frame of this page, or a negative NESTED. `leafSize` and `pageSize` tell of the leaf. */
  lookup(gfn: number): number {
    const index = Math.floor(gfn / PAGES_PER_2M)
    if (index !== this.#lastIndex) this.#remember(index)
    const table = this.#lastTable
    if (table !== undefined) return table[gfn - index * PAGES_PER_2M]!
    return this.#lastFirst < 0 ? NOT_MAPPED : this.#lastFirst + gfn - index * PAGES_PER_2M
  }

  /**
   * Maps a leaf as KVM's TDP MMU does: one above a page of PTEs takes the place of all of them; one below a larger leaf
   * splits that, so that the rest of its range stays mapped.
   */
  map(gfn: number, pfn: number, size: LeafSize = PAGE_4K): void {
    this.#lastIndex = -1
    this.changes++
    if (size === PAGE_4K) {
      this.#setLeaf(gfn, pfn)
      return
    }
    const pages = size === PAGE_2M ? PAGES_PER_2M : PAGES_PER_1G
    assert(gfn % pages === 0 && pfn % pages === 0, "a large leaf is aligned on both sides")
    const index = gfn / PAGES_PER_2M
    if (size === PAGE_2M) {
      this.#splitGigabyte(index)
      this.#drop(index)
      this.#regions.set(index, pfn)
    } else {
      for (let region = 0; region < PAGES_PER_2M; region++) this.#drop(index + region)
      if (this.#gigabytes.has(gfn / PAGES_PER_1G)) this.mapped--
      this.#gigabytes.set(gfn / PAGES_PER_1G, pfn)
    }
    this.mapped++
  }

  /** Makes a 4 KiB leaf with a reserved bit: a guest's access becomes #VC. It does not count as present. */
  mapReserved(gfn: number): void {
    this.#lastIndex = -1
    this.changes++
    this.#setLeaf(gfn, RESERVED)
  }

  /** Zaps the leaf that maps a page, the whole of it if it is a large one; true when it was present. */
  unmap(gfn: number): boolean {
    this.#lastIndex = -1
    this.changes++
    const index = Math.floor(gfn / PAGES_PER_2M)
    const region = this.#regions.get(index)
    if (typeof region === "object") {
      const old = region[gfn % PAGES_PER_2M]!
      region[gfn % PAGES_PER_2M] = NOT_MAPPED
      if (old < 0) return false
    } else if (region !== undefined) this.#regions.delete(index)
    else if (!this.#gigabytes.delete(Math.floor(gfn / PAGES_PER_1G))) return false
    this.mapped--
    return true
  }

  /** 4 KiB pages that the table takes up: PTEs, a page of PDEs for each GiB and one of PDPEs for each 512, the root. */
  get tablePages(): number {
    let leaves = 0
    const gigabytes = new Set<number>()
    const upper = new Set<number>()
    for (const [region, part] of this.#regions) {
      if (typeof part === "object") leaves++
      gigabytes.add(Math.floor(region / PAGES_PER_2M))
    }
    for (const gigabyte of [...gigabytes, ...this.#gigabytes.keys()]) upper.add(Math.floor(gigabyte / PAGES_PER_2M))
    return leaves + gigabytes.size + upper.size + 1
  }

  #remember(index: number): void {
    this.#lastIndex = index
    const region = this.#regions.get(index)
    this.#lastTable = typeof region === "object" ? region : undefined
    this.#lastFirst = typeof region === "number" ? region : NOT_MAPPED
    this.leafSize = typeof region === "number" ? PAGE_2M : PAGE_4K
    if (region === undefined) {
      const first = this.#gigabytes.get(Math.floor(index / PAGES_PER_2M))
      if (first !== undefined) {
        this.#lastFirst = first + (index % PAGES_PER_2M) * PAGES_PER_2M
        this.leafSize = PAGE_1G
      }
    }
    this.pageSize = this.leafSize === PAGE_4K ? PAGE_4K : PAGE_2M
  }

  #setLeaf(gfn: number, pfn: number): void {
    const index = Math.floor(gfn / PAGES_PER_2M)
    const table = this.#tableOf(index)
    const at = gfn - index * PAGES_PER_2M
    if (table[at]! >= 0) this.mapped--
    if (pfn >= 0) this.mapped++
    table[at] = pfn
  }

  /** The region's page of PTEs: made where there is none, out of the large leaf if one is there. */
  #tableOf(index: number): Table {
    this.#splitGigabyte(index)
    const region = this.#regions.get(index)
    if (typeof region === "object") return region
    const table = new Float64Array(PAGES_PER_2M).fill(NOT_MAPPED)
    if (region !== undefined) {
      for (let page = 0; page < PAGES_PER_2M; page++) table[page] = region + page
      this.mapped += PAGES_PER_2M - 1
    }
    this.#regions.set(index, table)
    return table
  }

  #splitGigabyte(index: number): void {
    const gigabyte = Math.floor(index / PAGES_PER_2M)
    const first = this.#gigabytes.get(gigabyte)
    if (first === undefined) return
    this.#gigabytes.delete(gigabyte)
    for (let region = 0; region < PAGES_PER_2M; region++)
      this.#regions.set(gigabyte * PAGES_PER_2M + region, first + region * PAGES_PER_2M)
    this.mapped += PAGES_PER_2M - 1
  }

  /** Takes away whatever maps a 2 MiB region, short of a 1 GiB leaf. */
  #drop(index: number): void {
    const region = this.#regions.get(index)
    if (typeof region === "object") for (const pfn of region) this.mapped -= pfn >= 0 ? 1 : 0
    else if (region !== undefined) this.mapped--
    this.#regions.delete(index)
  }
}
