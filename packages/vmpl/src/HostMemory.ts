import { ACCESS, FAULT, PAGE_4K, type Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE, toNumber } from "@vmpl-lab/sev-es"
import { HOST_ASID, type PhysicalMemory } from "./PhysicalMemory.ts"

const pfnOf = (spa: number): number => Math.floor(spa / PAGE_SIZE)
/** A mask: the remainder of a number that may be beyond 32 bits is a call in itself. */
const offsetOf = (spa: number): number => spa & (PAGE_SIZE - 1)

/**
 * System memory as host software sees it: loads are never checked by the RMP (a guest's private page reads as
 * ciphertext), stores are refused with #PF when the page is not hypervisor-owned. Addresses are system physical ones;
 * an access stays inside one page.
 * @spec APM2 15.36.10 table 15-39
 */
export class HostMemory {
  readonly #memory: PhysicalMemory
  readonly #rmp: Rmp
  /**
   * Pages of late: the host looks at the same VMCBs and GHCBs again and again. An entry holds while its sum of changes
   * does, of memory for loads, of memory and RMP for stores, so that no access is answered otherwise than without.
   */
  readonly #loaded = new RecentPages()
  readonly #stored = new RecentPages()
  #fault: number = FAULT.NONE

  constructor(memory: PhysicalMemory, rmp: Rmp) {
    this.#memory = memory
    this.#rmp = rmp
  }

  read8(spa: number): number {
    return this.#load(pfnOf(spa)).getUint8(offsetOf(spa))
  }

  read16(spa: number): number {
    return this.#load(pfnOf(spa)).getUint16(offsetOf(spa), true)
  }

  read32(spa: number): number {
    return this.#load(pfnOf(spa)).getUint32(offsetOf(spa), true)
  }

  /** Exact below 2^53; use two read32 for fields that software fills. */
  read64(spa: number): number {
    return toNumber(this.read32(spa), this.read32(spa + 4))
  }

  /** A copy of a page's bytes as the host sees them. */
  readPage(pfn: number): Uint8Array {
    const view = this.#memory.read(pfn, HOST_ASID)
    return Uint8Array.from(new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE))
  }

  /** @returns FAULT.NONE, or the #PF that the store takes */
  write8(spa: number, value: number): number {
    const page = this.#store(pfnOf(spa))
    if (page === null) return this.#fault
    page.setUint8(offsetOf(spa), value)
    return FAULT.NONE
  }

  /** @returns FAULT.NONE, or the #PF that the store takes */
  write32(spa: number, value: number): number {
    const page = this.#store(pfnOf(spa))
    if (page === null) return this.#fault
    page.setUint32(offsetOf(spa), value, true)
    return FAULT.NONE
  }

  /** @returns FAULT.NONE, or the #PF that the store takes */
  write64(spa: number, lo: number, hi: number): number {
    const fault = this.write32(spa, lo)
    return fault === FAULT.NONE ? this.write32(spa + 4, hi) : fault
  }

  /** Replaces a page, or zeroes it with null. @returns FAULT.NONE, or the #PF that the store takes */
  writePage(pfn: number, bytes: Uint8Array | null): number {
    const fault = this.#rmp.checkHost(pfn, ACCESS.WRITE, PAGE_4K)
    if (fault === FAULT.NONE) this.#memory.replace(pfn, HOST_ASID, bytes)
    return fault
  }

  #load(pfn: number): DataView {
    const { changes } = this.#memory
    const recent = this.#loaded.find(pfn, changes)
    if (recent !== null) return recent
    const live = this.#memory.live(pfn, HOST_ASID)
    if (live === null) return this.#memory.read(pfn, HOST_ASID)
    this.#loaded.keep(pfn, changes, live)
    return live
  }

  /** The page of a store, or null with the fault in `#fault`. */
  #store(pfn: number): DataView | null {
    const recent = this.#stored.find(pfn, this.#memory.changes + this.#rmp.changes)
    if (recent !== null) return recent
    this.#fault = this.#rmp.checkHost(pfn, ACCESS.WRITE, PAGE_4K)
    if (this.#fault !== FAULT.NONE) return null
    const page = this.#memory.write(pfn, HOST_ASID)
    this.#stored.keep(pfn, this.#memory.changes + this.#rmp.changes, page)
    return page
  }
}

/** Pages that are remembered: a power of two. */
const RECENT = 256

/** A small table of pages, each with the count of changes under which it holds. */
class RecentPages {
  readonly #pfns = new Float64Array(RECENT).fill(-1)
  readonly #changes = new Float64Array(RECENT)
  readonly #views: Array<DataView | null> = new Array<DataView | null>(RECENT).fill(null)

  find(pfn: number, changes: number): DataView | null {
    const at = pfn & (RECENT - 1)
    return this.#pfns[at] === pfn && this.#changes[at] === changes ? this.#views[at]! : null
  }

  keep(pfn: number, changes: number, view: DataView): void {
    const at = pfn & (RECENT - 1)
    this.#pfns[at] = pfn
    this.#changes[at] = changes
    this.#views[at] = view
  }
}
