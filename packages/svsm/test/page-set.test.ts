import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { PageSet } from "../src/PageSet.ts"

const REGION = 512
const REGIONS = 3

/** What can be done to the set: to one page, or to a whole region. */
const step = fc.oneof(
  fc.record({ what: fc.constantFrom("add", "delete"), gfn: fc.integer({ min: 0, max: REGIONS * REGION - 1 }) }),
  fc.record({ what: fc.constantFrom("addAll", "deleteAll", "addRegion", "deleteRegion"), gfn: fc.nat(REGIONS - 1) })
)

describe("a set of pages", () => {
  it("holds what a plain set of page numbers would", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const set = new PageSet()
        const plain = new Set<number>()
        for (const { what, gfn } of steps) {
          const region = Array.from({ length: REGION }, (_, i) => gfn * REGION + i)
          if (what === "add" || what === "delete") {
            set[what](gfn)
            plain[what](gfn)
          } else {
            const change = what.startsWith("add") ? "add" : "delete"
            if (what === "addRegion") set.addRegion(gfn * REGION)
            else if (what === "deleteRegion") set.deleteRegion(gfn * REGION)
            else for (const page of region) set[change](page)
            for (const page of region) plain[change](page)
          }
        }
        for (let page = 0; page < REGIONS * REGION; page++) expect(set.has(page)).toBe(plain.has(page))
        for (let first = 0; first < REGIONS * REGION; first += REGION) {
          const inside = Array.from({ length: REGION }, (_, i) => plain.has(first + i))
          expect([set.hasRegion(first), set.touchesRegion(first)]).toEqual([
            inside.every(Boolean),
            inside.some(Boolean)
          ])
        }
      }),
      { numRuns: 150, seed: 3 }
    )
  })
})
