/** Frames of one block of the table: 512 leaves, as one page of PTEs. */
const BLOCK = 512
const FRAMES_PER_1G = BLOCK * BLOCK
const NOT_MAPPED = -1

/** The leaf is there, but with reserved bits set: how KVM marks what it emulates (MMIO). */
export const RESERVED_LEAF = -2

/** Size of a leaf. */
export type LeafSize = "4K" | "2M" | "1G"

const framesOf = (size: LeafSize): number => (size === "4K" ? 1 : size === "2M" ? BLOCK : FRAMES_PER_1G)

/**
 * The second stage of translation of one VM object: guest frame number to system frame number, with leaves of 4 KiB,
 * 2 MiB and 1 GiB. The hypervisor owns it and may map anything anywhere; the RMP decides whether an access goes through.
 *
 * As in KVM a leaf replaces what is there: a larger one the table below it, a smaller one the whole larger leaf, which
 * is zapped and faults in again.
 */
export class NestedPageTable {
  readonly #blocks = new Map<number, Float64Array>()
  /** First system frame by number of the 2 MiB and of the 1 GiB. */
  readonly #large = new Map<number, number>()
  readonly #huge = new Map<number, number>()
  #lastIndex = -1
  #lastBlock: Float64Array | undefined
  /** Leaves that are present. */
  mapped = 0
  /** Size of the leaf that the latest `lookup` found, as the RMP compares it: 0 for 4 KiB, 1 for all larger. */
  leafSize: 0 | 1 = 0

  /** The system frame; -1 when no leaf is present, RESERVED_LEAF when it has reserved bits set. */
  lookup(gfn: number): number {
    const index = Math.floor(gfn / BLOCK)
    if (index !== this.#lastIndex) {
      this.#lastIndex = index
      this.#lastBlock = this.#blocks.get(index)
    }
    const pfn = this.#lastBlock === undefined ? NOT_MAPPED : this.#lastBlock[gfn - index * BLOCK]!
    this.leafSize = 0
    return pfn === NOT_MAPPED && this.#large.size + this.#huge.size > 0 ? this.#lookupLarge(gfn, index) : pfn
  }

  #lookupLarge(gfn: number, index: number): number {
    const large = this.#large.get(index)
    const huge = Math.floor(gfn / FRAMES_PER_1G)
    const first = large ?? this.#huge.get(huge)
    if (first === undefined) return NOT_MAPPED
    this.leafSize = 1
    return first + (large === undefined ? gfn - huge * FRAMES_PER_1G : gfn - index * BLOCK)
  }

  /** Installs a leaf; frames must be aligned to its size. */
  map(gfn: number, pfn: number, size: LeafSize = "4K"): void {
    const frames = framesOf(size)
    if (gfn % frames !== 0 || pfn % frames !== 0)
      throw new RangeError(
        `a ${size} leaf maps frames 0x${gfn.toString(16)} and 0x${pfn.toString(16)}, which are not aligned`
      )
    this.#zapLarge(gfn, size)
    if (size === "4K") this.#mapSmall(gfn, pfn)
    else {
      this.#zapBelow(gfn, frames)
      const table = size === "2M" ? this.#large : this.#huge
      if (!table.has(gfn / frames)) this.mapped++
      table.set(gfn / frames, pfn)
    }
  }

  /** Installs a 4 KiB leaf with reserved bits set: an access by an SEV-ES guest is #VC instead of an exit. */
  mapReserved(gfn: number): void {
    this.#zapLarge(gfn, "4K")
    this.#mapSmall(gfn, RESERVED_LEAF)
  }

  /** Zaps the leaf that maps a frame, whatever its size; true when one was present. */
  unmap(gfn: number): boolean {
    const index = Math.floor(gfn / BLOCK)
    const block = this.#blocks.get(index)
    if (block !== undefined && block[gfn - index * BLOCK] !== NOT_MAPPED) {
      block[gfn - index * BLOCK] = NOT_MAPPED
      this.mapped--
      return true
    }
    return this.#zapLarge(gfn, "4K")
  }

  #mapSmall(gfn: number, pfn: number): void {
    const index = Math.floor(gfn / BLOCK)
    let block = this.#blocks.get(index)
    if (block === undefined) {
      block = new Float64Array(BLOCK).fill(NOT_MAPPED)
      this.#blocks.set(index, block)
      this.#lastIndex = -1
    }
    if (block[gfn - index * BLOCK] === NOT_MAPPED) this.mapped++
    block[gfn - index * BLOCK] = pfn
  }

  /** Zaps leaves larger than `size` over a frame. */
  #zapLarge(gfn: number, size: LeafSize): boolean {
    const large = size === "4K" && this.#large.delete(Math.floor(gfn / BLOCK))
    const huge = size !== "1G" && this.#huge.delete(Math.floor(gfn / FRAMES_PER_1G))
    if (large) this.mapped--
    if (huge) this.mapped--
    return large || huge
  }

  /** Zaps all leaves below a new one. */
  #zapBelow(gfn: number, frames: number): void {
    this.#lastIndex = -1
    for (let index = gfn / BLOCK; index < (gfn + frames) / BLOCK; index++) {
      const block = this.#blocks.get(index)
      if (block !== undefined) this.mapped -= block.reduce((sum, pfn) => sum + (pfn === NOT_MAPPED ? 0 : 1), 0)
      this.#blocks.delete(index)
      if (frames === FRAMES_PER_1G && this.#large.delete(index)) this.mapped--
    }
  }
}
