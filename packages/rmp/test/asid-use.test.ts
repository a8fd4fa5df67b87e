import { describe, expect, it } from "vitest"
import { PAGE_2M, PAGE_4K, PAGES_PER_2M, Rmp } from "../src/index.ts"

describe("pages of an ASID", () => {
  it.each([
    ["4 KiB", PAGES_PER_2M + 7, PAGE_4K],
    ["2 MiB", PAGES_PER_2M, PAGE_2M]
  ] as const)("are seen while one %s page is assigned to it", (_name, pfn, size) => {
    const rmp = new Rmp({ pages: 3 * PAGES_PER_2M })
    expect(rmp.hasPagesOf(5)).toBe(false)
    rmp.rmpupdate(pfn, true, size, false, 0x400, 5)
    expect([4, 5, 6].map((asid) => rmp.hasPagesOf(asid))).toEqual([false, true, false])
    rmp.rmpupdate(pfn, false, size, false, 0, 0)
    expect(rmp.hasPagesOf(5)).toBe(false)
  })

  it("are seen in the parts of a smashed page", () => {
    const rmp = new Rmp({ pages: PAGES_PER_2M })
    rmp.rmpupdate(0, true, PAGE_2M, false, 0x400, 5)
    rmp.psmash(0)
    for (let pfn = 0; pfn < PAGES_PER_2M - 1; pfn++) rmp.rmpupdate(pfn, false, PAGE_4K, false, 0, 0)
    expect(rmp.hasPagesOf(5)).toBe(true)
    rmp.rmpupdate(PAGES_PER_2M - 1, false, PAGE_4K, false, 0, 0)
    expect(rmp.hasPagesOf(5)).toBe(false)
  })
})
