import { PAGE_2M, PAGE_4K } from "@vmpl-lab/rmp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type LeafSize, NESTED, NestedPageTable, PAGE_1G } from "../src/index.ts"

const { NOT_MAPPED, RESERVED } = NESTED
const PAGES = [1, 512, 512 * 512] as const
const G = PAGES[PAGE_1G]

// Frames at the edges of leaves of every size, so that neighbours and the remembered region are mixed up if they can be.
const gfn = fc.constantFrom(
  0,
  1,
  511,
  512,
  513,
  1023,
  G - 1,
  G,
  G + 512,
  2 * G - 1,
  2 * G,
  0x1_0000_0000,
  0xf_ffff_ffff
)
const step = fc.record({
  do: fc.constantFrom("map", "map", "map", "unmap", "lookup", "reserve"),
  gfn,
  pfn: fc.constantFrom(0, 1, 512, 7 * G, 0xff_ffff_ffff),
  size: fc.constantFrom<LeafSize>(PAGE_4K, PAGE_4K, PAGE_2M, PAGE_1G)
})

interface Leaf {
  first: number
  pfn: number
  size: LeafSize
}

/** A plain list of leaves: what overlaps is cut by the rule in words. */
class Leaves {
  leaves: Array<Leaf> = []

  at(gfn: number): Leaf | undefined {
    return this.leaves.find(({ first, size }) => gfn >= first && gfn < first + PAGES[size])
  }

  put(leaf: Leaf): void {
    for (let above = this.at(leaf.first); above !== undefined && above.size > leaf.size; above = this.at(leaf.first)) {
      const small = (above.size - 1) as LeafSize
      this.leaves.splice(this.leaves.indexOf(above), 1)
      const { first, pfn } = above
      for (let i = 0; i < 512; i++)
        this.leaves.push({ first: first + i * PAGES[small], pfn: pfn + i * PAGES[small], size: small })
    }
    const end = leaf.first + PAGES[leaf.size]
    this.leaves = this.leaves.filter(({ first }) => first < leaf.first || first >= end)
    this.leaves.push(leaf)
  }

  remove(leaf: Leaf): void {
    this.leaves.splice(this.leaves.indexOf(leaf), 1)
  }
}

describe("a nested page table", () => {
  it("is a set of leaves of which the latest wins, larger ones being split", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40, size: "max" }), (steps) => {
        const table = new NestedPageTable()
        const model = new Leaves()
        for (const { do: what, gfn, pfn, size } of steps) {
          const mask = PAGES[size]
          const leaf = { first: gfn - (gfn % mask), pfn: pfn - (pfn % mask), size }
          if (what === "map") {
            table.map(leaf.first, leaf.pfn, size)
            model.put(leaf)
          } else if (what === "reserve") {
            table.mapReserved(gfn)
            model.put({ first: gfn, pfn: RESERVED, size: PAGE_4K })
          } else if (what === "unmap") {
            const found = model.at(gfn)
            expect(table.unmap(gfn)).toBe(found !== undefined && found.pfn >= 0)
            if (found !== undefined) model.remove(found)
          }
          for (const probe of [gfn, gfn + 1, leaf.first, leaf.first + mask - 1]) {
            const found = model.at(probe)
            const pfnThere =
              found === undefined ? NOT_MAPPED : found.pfn < 0 ? RESERVED : found.pfn + probe - found.first
            expect(table.lookup(probe)).toBe(pfnThere)
            if (pfnThere < 0) continue
            expect(table.leafSize).toBe(found!.size)
            expect(table.pageSize).toBe(found!.size === PAGE_4K ? PAGE_4K : PAGE_2M)
          }
          expect(table.mapped).toBe(model.leaves.filter(({ pfn }) => pfn >= 0).length)
        }
      }),
      { seed: 20260832, numRuns: 200 }
    )
  })

  it("finds a leaf whose region was missing when it was last looked up", () => {
    const table = new NestedPageTable()
    expect(table.lookup(600)).toBe(NOT_MAPPED)
    table.map(600, 3)
    expect(table.lookup(600)).toBe(3)
    expect(table.unmap(601)).toBe(false)
  })

  it.each([
    ["2 MiB", PAGE_2M, 512, "the GFN", 1, 0],
    ["2 MiB", PAGE_2M, 512, "the frame", 0, 1],
    ["1 GiB", PAGE_1G, G, "the GFN", 512, 0],
    ["1 GiB", PAGE_1G, G, "the frame", 0, 512]
  ] as const)("takes no %s leaf off its alignment of %s", (_, size, pages, __, gfnOff, pfnOff) => {
    expect(() => new NestedPageTable().map(pages + gfnOff, pages + pfnOff, size)).toThrow("aligned")
  })
})
