/** 4 KiB pages of a 2 MiB region. */
const REGION = 512

/** The pages of one region that are in the set, and how many. */
interface Part {
  readonly pages: Uint8Array
  count: number
}

/** A set of guest frame numbers that keeps whole 2 MiB regions as one element: a guest may have millions of pages. */
export class PageSet {
  /** By region: null when all of it is in the set. */
  readonly #regions = new Map<number, Part | null>()

  has(gfn: number): boolean {
    const part = this.#regions.get(Math.floor(gfn / REGION))
    return part === null || (part !== undefined && part.pages[gfn % REGION] === 1)
  }

  add(gfn: number): void {
    const region = Math.floor(gfn / REGION)
    let part = this.#regions.get(region)
    if (part === null) return
    if (part === undefined) {
      part = { pages: new Uint8Array(REGION), count: 0 }
      this.#regions.set(region, part)
    }
    part.count += 1 - part.pages[gfn % REGION]!
    part.pages[gfn % REGION] = 1
    if (part.count === REGION) this.#regions.set(region, null)
  }

  delete(gfn: number): void {
    const region = Math.floor(gfn / REGION)
    let part = this.#regions.get(region)
    if (part === undefined) return
    if (part === null) {
      part = { pages: new Uint8Array(REGION).fill(1), count: REGION }
      this.#regions.set(region, part)
    }
    part.count -= part.pages[gfn % REGION]!
    part.pages[gfn % REGION] = 0
    if (part.count === 0) this.#regions.delete(region)
  }

  /** Every GFN in the set, regions in the order in which they came. */
  *gfns(): Generator<number> {
    for (const [region, part] of this.#regions) {
      for (let page = 0; page < REGION; page++) {
        if (part === null || part.pages[page] === 1) yield region * REGION + page
      }
    }
  }

  /** True when every page of the region that begins at `gfn` is in the set. */
  hasRegion(gfn: number): boolean {
    return this.#regions.get(gfn / REGION) === null
  }

  /** True when any page of the region that begins at `gfn` is in the set. */
  touchesRegion(gfn: number): boolean {
    return this.#regions.has(gfn / REGION)
  }

  addRegion(gfn: number): void {
    this.#regions.set(gfn / REGION, null)
  }

  deleteRegion(gfn: number): void {
    this.#regions.delete(gfn / REGION)
  }
}
