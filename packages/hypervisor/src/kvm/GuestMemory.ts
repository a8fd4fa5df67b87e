import type { HostFrames } from "./HostFrames.ts"

/** 4 KiB pages of a 2 MiB region. */
const REGION = 512

/** A range of guest frames that user space has given to the guest. */
export interface MemorySlot {
  readonly gfn: number
  readonly pages: number
  /** Regions of 2 MiB (GFN / 512) for which the host has one page of 2 MiB; all others have pages of 4 KiB. */
  readonly large?: ReadonlySet<number>
}

/**
 * What backs a guest's frames: a guest_memfd for private pages and ordinary user memory for shared ones. It belongs to
 * the guest, not to one VM object: VM objects of the same guest link to it.
 */
export class GuestMemory {
  readonly #frames: HostFrames
  readonly #private = new Map<number, number>()
  /** First private frame of the regions that one page of 2 MiB backs. */
  readonly #regions = new Map<number, number>()
  readonly #shared = new Map<number, number>()

  constructor(frames: HostFrames) {
    this.#frames = frames
  }

  /** The private frame of a GFN, allocated on first use. */
  privateFrame(gfn: number): number {
    const inRegion = this.#inRegion(gfn)
    return inRegion < 0 ? this.#frame(this.#private, gfn) : inRegion
  }

  /** The private frame of a GFN if there is one, else -1. */
  privateFrameIfPresent(gfn: number): number {
    const inRegion = this.#inRegion(gfn)
    return inRegion < 0 ? (this.#private.get(gfn) ?? -1) : inRegion
  }

  /** Backs the whole 2 MiB region of a GFN with one page, if nothing of it has a private frame yet. */
  backRegion(gfn: number): void {
    const region = Math.floor(gfn / REGION)
    if (this.#regions.has(region)) return
    for (let page = region * REGION; page < (region + 1) * REGION; page++) if (this.#private.has(page)) return
    this.#regions.set(region, this.#frames.allocateRegion())
  }

  /** Whether one page of 2 MiB backs the region of a GFN. */
  isRegion(gfn: number): boolean {
    return this.#regions.has(Math.floor(gfn / REGION))
  }

  /** The shared frame of a GFN, allocated on first use. */
  sharedFrame(gfn: number): number {
    return this.#frame(this.#shared, gfn)
  }

  /** Gives a private frame back to the host; the caller has made it hypervisor-owned. */
  freePrivate(gfn: number): void {
    this.#splitRegion(Math.floor(gfn / REGION))
    const pfn = this.#private.get(gfn)
    if (pfn === undefined) return
    this.#private.delete(gfn)
    this.#frames.free(pfn)
  }

  #inRegion(gfn: number): number {
    if (this.#regions.size === 0) return -1
    const region = Math.floor(gfn / REGION)
    const first = this.#regions.get(region)
    return first === undefined ? -1 : first + gfn - region * REGION
  }

  /** Its frames are given back one by one from now on. */
  #splitRegion(region: number): void {
    const first = this.#regions.get(region)
    if (first === undefined) return
    this.#regions.delete(region)
    for (let page = 0; page < REGION; page++) this.#private.set(region * REGION + page, first + page)
  }

  #frame(map: Map<number, number>, gfn: number): number {
    let pfn = map.get(gfn)
    if (pfn === undefined) {
      pfn = gfn % 512 === 0 ? this.#frames.allocate() : this.#frames.allocateNot2mAligned()
      map.set(gfn, pfn)
    }
    return pfn
  }
}
