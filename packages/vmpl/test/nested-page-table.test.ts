import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { NestedPageTable } from "../src/index.ts"

// Frames at the edges of blocks of 512, so that neighbours and the remembered block are mixed up if they can be.
const gfn = fc.constantFrom(0, 1, 511, 512, 513, 1023, 1024, 0xffff_ffff, 0x1_0000_0000, 0xf_ffff_ffff)
const step = fc.record({
  do: fc.constantFrom("map", "map", "unmap", "lookup"),
  gfn,
  pfn: fc.constantFrom(0, 1, 7, 0xff_ffff_ffff)
})

describe("a nested page table", () => {
  it("is a map from guest to system frames", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80, size: "max" }), gfn, (steps, last) => {
        const table = new NestedPageTable()
        const model = new Map<number, number>()
        for (const { do: what, gfn, pfn } of steps) {
          if (what === "map") {
            table.map(gfn, pfn)
            model.set(gfn, pfn)
          } else if (what === "unmap") expect(table.unmap(gfn)).toBe(model.delete(gfn))
          else expect(table.lookup(gfn)).toBe(model.get(gfn) ?? -1)
          expect(table.mapped).toBe(model.size)
        }
        expect(table.lookup(last)).toBe(model.get(last) ?? -1)
        for (const [frame, pfn] of model) expect(table.lookup(frame)).toBe(pfn)
      }),
      { seed: 20260832, numRuns: 500 }
    )
  })

  it("finds a leaf whose block was missing when it was last looked up", () => {
    const table = new NestedPageTable()
    expect(table.lookup(600)).toBe(-1)
    table.map(600, 3)
    expect(table.lookup(600)).toBe(3)
    expect(table.unmap(601)).toBe(false)
  })
})
