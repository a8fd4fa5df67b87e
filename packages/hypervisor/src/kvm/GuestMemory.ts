import type { HostFrames } from "./HostFrames.ts"

/** A range of guest frames that user space has given to the guest. */
export interface MemorySlot {
  readonly gfn: number
  readonly pages: number
}

/**
 * What backs a guest's frames: a guest_memfd for private pages and ordinary user memory for shared ones. It belongs to
 * the guest, not to one VM object: VM objects of the same guest link to it.
 */
export class GuestMemory {
  readonly #frames: HostFrames
  readonly #private = new Map<number, number>()
  readonly #shared = new Map<number, number>()

  constructor(frames: HostFrames) {
    this.#frames = frames
  }

  /** The private frame of a GFN, allocated on first use. */
  privateFrame(gfn: number): number {
    return this.#frame(this.#private, gfn)
  }

  /** The private frame of a GFN if there is one, else -1. */
  privateFrameIfPresent(gfn: number): number {
    return this.#private.get(gfn) ?? -1
  }

  /** The shared frame of a GFN, allocated on first use. */
  sharedFrame(gfn: number): number {
    return this.#frame(this.#shared, gfn)
  }

  /** Gives a private frame back to the host; the caller has made it hypervisor-owned. */
  freePrivate(gfn: number): void {
    const pfn = this.#private.get(gfn)
    if (pfn === undefined) return
    this.#private.delete(gfn)
    this.#frames.free(pfn)
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
