import { assert } from "@vmpl-lab/sim"

/** The host's page allocator: hands out free system frames, lowest first, and takes them back. */
export class HostFrames {
  readonly #limit: number
  #next: number
  readonly #free: Array<number> = []

  /** Frames from `first` up to `limit` (excluded) are free. */
  constructor(first: number, limit: number) {
    this.#next = first
    this.#limit = limit
  }

  allocate(): number {
    const recycled = this.#free.pop()
    if (recycled !== undefined) return recycled
    assert(this.#next < this.#limit, `the host's ${this.#limit} frames are all in use`)
    return this.#next++
  }

  /** The first of several frames in a row. */
  allocateContiguous(frames: number): number {
    const first = this.#next
    assert(first + frames <= this.#limit, `the host's ${this.#limit} frames are all in use`)
    this.#next += frames
    return first
  }

  /** The first frame of a whole, aligned 2 MiB region. Frames passed over on the way to it are free for others. */
  allocateRegion(): number {
    const passedOver = (512 - (this.#next % 512)) % 512
    const first = this.allocateContiguous(passedOver + 512) + passedOver
    for (let i = passedOver; i > 0; i--) this.#free.push(first - i)
    return first
  }

  /** A frame that does not start a 2 MiB region: VMCB and VMSA pages avoid those (false RMP #PF while in use). */
  allocateNot2mAligned(): number {
    const passedOver: Array<number> = []
    let pfn = this.allocate()
    while (pfn % 512 === 0) {
      passedOver.push(pfn)
      pfn = this.allocate()
    }
    this.#free.push(...passedOver)
    return pfn
  }

  free(pfn: number): void {
    this.#free.push(pfn)
  }
}
