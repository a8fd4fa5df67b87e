/** Frames of one block of the table: 512 leaves, as one page of PTEs. */
const BLOCK = 512
const NOT_MAPPED = -1

/**
 * The second stage of translation of one VM object: guest frame number to system frame number, 4 KiB leaves. The
 * hypervisor owns it and may map anything anywhere; the RMP decides whether an access goes through.
 */
export class NestedPageTable {
  readonly #blocks = new Map<number, Float64Array>()
  #lastIndex = -1
  #lastBlock: Float64Array | undefined
  /** Leaves that are present. */
  mapped = 0

  /** The system frame, or -1 when the leaf is not present. */
  lookup(gfn: number): number {
    const index = Math.floor(gfn / BLOCK)
    if (index !== this.#lastIndex) {
      this.#lastIndex = index
      this.#lastBlock = this.#blocks.get(index)
    }
    return this.#lastBlock === undefined ? NOT_MAPPED : this.#lastBlock[gfn - index * BLOCK]!
  }

  map(gfn: number, pfn: number): void {
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

  /** Zaps a leaf; true when it was present. */
  unmap(gfn: number): boolean {
    const index = Math.floor(gfn / BLOCK)
    const block = this.#blocks.get(index)
    if (block === undefined || block[gfn - index * BLOCK] === NOT_MAPPED) return false
    block[gfn - index * BLOCK] = NOT_MAPPED
    this.mapped--
    return true
  }
}
