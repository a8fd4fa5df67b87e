// @section 1.3, 1.4
import { describe, expect, it } from "vitest"
import {
  decodeRmpCfg,
  decodeRstEntry,
  encodeRstEntry,
  flatLayout,
  PAGE_2M,
  PAGE_4K,
  Rmp,
  rmpEndFor,
  segmentedLayout
} from "../src/index.ts"

const GIB = 2 ** 30
const PAGES_PER_GIB = GIB / 0x1000
const SEGMENTS_OF_64_GIB = 0x2401

describe("the flat RMP", () => {
  it("has the place and coverage of APM2's example: 4 GiB from 0x100000 end at 0x1103fff", () => {
    expect(rmpEndFor(0x10_0000, 4 * GIB)).toBe(0x110_3fff)
    const layout = flatLayout(0x10_0000, 0x110_3fff)
    expect([layout.basePfn, layout.pages, layout.segmented]).toEqual([0, 4 * PAGES_PER_GIB, false])
    expect(layout.entryAddress(0)).toBe(0x10_4000)
    expect(layout.entryAddress(0x1234)).toBe(0x10_4000 + 0x12340)
    expect(layout.entryAddress(4 * PAGES_PER_GIB - 1)).toBe(0x110_3ff0)
    expect(layout.entryAddress(4 * PAGES_PER_GIB)).toBeNull()
    expect(layout.ownFrames).toEqual([{ first: 0x100, count: 0x1004 }])
  })

  it("asks for 8 KiB alignment of both ends, and room for the bookkeeping", () => {
    const bad: ReadonlyArray<readonly [number, number]> = [
      [0x1000, 0x10_3fff],
      [0x10_0000, 0x10_3ffe],
      [0x10_0000, 0x10_4fff],
      [0x10_0000, 0x10_1fff],
      [-0x2000, 0x10_3fff],
      [2 ** 52, 2 ** 52 + 0x3fff]
    ]
    for (const [base, end] of bad) expect(() => flatLayout(base, end), `${base} ${end}`).toThrow(RangeError)
    expect(flatLayout(0x10_0000, 0x10_3fff).pages).toBe(0)
    // 512 entries are 8 KiB: coverage comes in steps of 2 MiB.
    expect(flatLayout(0x10_0000, 0x10_5fff).pages).toBe(512)
  })
})

describe("RMP_CFG and the segment table", () => {
  it("0x2401 enables segments of 64 GiB", () => {
    expect(decodeRmpCfg(0x2401)).toEqual({ enabled: true, segmentShift: 36 })
    expect(decodeRmpCfg(0)).toEqual({ enabled: false, segmentShift: 0 })
    for (const value of [0x2, 0x80, 0x4000, 0x1_0000_0001, -1, 1.5])
      expect(() => decodeRmpCfg(value), String(value)).toThrow(RangeError)
  })

  it("an entry holds covered GiB and a base; reserved bits make it invalid", () => {
    expect(decodeRstEntry(0x0000_0012_3450_0040n)).toEqual({ base: 0x12_3450_0000, coveredGib: 0x40 })
    expect(encodeRstEntry({ base: 0x12_3450_0000, coveredGib: 0x40 })).toBe(0x0000_0012_3450_0040n)
    for (let bit = 52n; bit < 64n; bit++) expect(decodeRstEntry((1n << bit) | 0x10_0001n)).toBeNull()
    expect(decodeRstEntry((0xf_ffff_fff0_0000n << 0n) | 1n)?.base).toBe(0xf_ffff_fff0_0000)
  })
})

describe("the segmented RMP", () => {
  const segment = (base: number, coveredGib: number): bigint => encodeRstEntry({ base, coveredGib })
  const layout = segmentedLayout(0x1000_0000, SEGMENTS_OF_64_GIB, [
    segment(0x2000_0000, 2),
    0n,
    segment(0x3000_0000, 100)
  ])
  const second = 64 * PAGES_PER_GIB

  it("covers what its segments cover, clipped to the segment", () => {
    expect(layout.segmented).toBe(true)
    expect(layout.pages).toBe(3 * second)
    const covered: ReadonlyArray<readonly [number, boolean]> = [
      [0, true],
      [2 * PAGES_PER_GIB - 1, true],
      [2 * PAGES_PER_GIB, false],
      [second, false],
      [2 * second - 1, false],
      [2 * second, true],
      [3 * second - 1, true],
      [3 * second, false]
    ]
    for (const [pfn, expected] of covered) expect(layout.covers(pfn), pfn.toString(16)).toBe(expected)
  })

  it("finds entries by segment index and offset, 4 MiB for each GiB", () => {
    expect(layout.entryAddress(5)).toBe(0x2000_0050)
    expect(layout.entryAddress(2 * second + 1)).toBe(0x3000_0010)
    expect(layout.entryAddress(second)).toBeNull()
    expect(layout.ownFrames).toEqual([
      { first: 0x10000, count: 5 },
      { first: 0x20000, count: 2 * 0x400 },
      { first: 0x30000, count: 64 * 0x400 }
    ])
  })

  it("refuses what hardware would fault on or cannot describe", () => {
    expect(() => segmentedLayout(0x1000, SEGMENTS_OF_64_GIB, [])).toThrow(/multiple of 0x100000/)
    expect(() => segmentedLayout(0x10_0000, 0x2400, [])).toThrow(/RMP_CFG/)
    expect(() => segmentedLayout(0x10_0000, 0x1d01, [])).toThrow(/RMP_CFG/)
    expect(() => segmentedLayout(0x10_0000, SEGMENTS_OF_64_GIB, [1n << 52n])).toThrow(/segment 0/)
    expect(() => segmentedLayout(0x10_0000, SEGMENTS_OF_64_GIB, Array(513).fill(0n))).toThrow(/512/)
    expect(segmentedLayout(0x10_0000, SEGMENTS_OF_64_GIB, []).pages).toBe(0)
  })

  it("what has no segment is hypervisor-owned for good, like what lies beyond a flat RMP", () => {
    const rmp = new Rmp({ layout })
    expect(rmp.stateOf(second)).toBe("Default")
    expect(rmp.isCovered(second)).toBe(false)
    expect(rmp.rmpupdate(second, true, PAGE_4K, false, 0, 1)).toBe(1)
    expect(rmp.rmpupdate(second, true, PAGE_2M, false, 0, 1)).toBe(1)
    expect(rmp.psmash(second)).toBe(1)
    expect(rmp.rmpread(second)).toBe(1)
    expect(rmp.checkHost(second, 1, PAGE_2M)).toBe(0)
    expect(rmp.checkGuest(1, 0, 0, 0, true, 0, second, PAGE_4K)).toBe(0x1100)
    expect(rmp.checkGuest(1, 0, 0, 0, true, 0, second, PAGE_2M)).toBe(0x1100)
    expect(rmp.rmpupdate(2 * second, true, PAGE_2M, false, 0, 1)).toBe(0)
    expect(rmp.stateOf(2 * second)).toBe("Guest-Invalid")
    expect(rmp.bytes).toBeLessThan(4 * 2 ** 20)
  })
})

describe("storage", () => {
  it("takes rows for 4 KiB entries only, and gives them back", () => {
    const rmp = new Rmp({ pages: 512 * 64 })
    const empty = rmp.bytes
    for (let region = 0; region < 64; region++) rmp.rmpupdate(region * 512, true, PAGE_2M, false, region * 512, 1)
    expect(rmp.bytes).toBe(empty)
    for (let region = 0; region < 64; region++) expect(rmp.psmash(region * 512)).toBe(0)
    const smashed = rmp.bytes
    expect(smashed - empty).toBeLessThan(64 * 512 * 18)
    // Back to 2 MiB pages and smashed again: the same rows serve.
    for (let page = 0; page < 512 * 64; page++) rmp.rmpupdate(page, false, PAGE_4K, false, 0, 0)
    for (let region = 0; region < 64; region++) rmp.rmpupdate(region * 512, true, PAGE_2M, false, region * 512, 1)
    for (let region = 0; region < 64; region++) expect(rmp.psmash(region * 512)).toBe(0)
    expect(rmp.bytes).toBe(smashed)
  })

  it("what a region held before it became a 2 MiB page is gone when it is smashed", () => {
    const rmp = new Rmp({ pages: 1024 })
    rmp.rmpupdate(3, true, PAGE_4K, false, 77, 2)
    rmp.rmpupdate(3, false, PAGE_4K, false, 0, 0)
    rmp.rmpupdate(0, true, PAGE_2M, false, 512, 1)
    rmp.psmash(0)
    expect(rmp.entry(3)).toMatchObject({ assigned: true, gfn: 515, asid: 1 })
    rmp.rmpupdate(600, true, PAGE_4K, false, 5, 1)
    expect(rmp.entry(601)).toMatchObject({ assigned: false, gfn: 0, asid: 0 })
  })
})
