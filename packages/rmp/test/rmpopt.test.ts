// @section 2.8
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ACCESS, CARRY, encodeRstEntry, PAGE_2M, PAGE_4K, RMPOPT_FUNCTION, Rmp, segmentedLayout } from "../src/index.ts"
import { outcome } from "./support.ts"

const GIB = 2 ** 30
const PAGES_PER_GIB = 0x4_0000
const { VERIFY_AND_ENABLE, REPORT } = RMPOPT_FUNCTION

/** Three GiB, covered by one segment. */
const segmented = (): Rmp => {
  const layout = segmentedLayout(0x10_0000, 0x2401, [encodeRstEntry({ base: 0x100_0000, coveredGib: 3 })])
  return new Rmp({ layout })
}

describe("RMPOPT", () => {
  it("is #UD until RMPOPT_BASE is enabled, and on a flat RMP", () => {
    const rmp = segmented()
    expect(outcome(rmp.rmpopt(0, VERIFY_AND_ENABLE))).toBe("#UD")
    rmp.setRmpoptBase(0)
    expect(outcome(rmp.rmpopt(0, VERIFY_AND_ENABLE))).toBe("#UD")
    rmp.setRmpoptBase(1)
    expect(outcome(rmp.rmpopt(0, VERIFY_AND_ENABLE))).toBe("SUCCESS CF")
    const flat = new Rmp({ pages: PAGES_PER_GIB })
    flat.setRmpoptBase(1)
    expect(outcome(flat.rmpopt(0, VERIFY_AND_ENABLE))).toBe("#UD")
  })

  it("reports a GiB as optimised once it was verified, until something of it is given away", () => {
    const rmp = segmented()
    rmp.setRmpoptBase(1)
    const ask = () => [0, 1, 2].map((gib) => rmp.rmpopt(gib * PAGES_PER_GIB, REPORT))
    expect(ask()).toEqual([0, 0, 0])
    for (const gib of [0, 1, 2]) expect(rmp.rmpopt(gib * PAGES_PER_GIB + 5, VERIFY_AND_ENABLE)).toBe(CARRY)
    expect(ask()).toEqual([CARRY, CARRY, CARRY])
    rmp.rmpupdate(PAGES_PER_GIB + 7, true, PAGE_4K, false, 1, 1)
    expect(ask()).toEqual([CARRY, 0, CARRY])
    rmp.rmpupdate(2 * PAGES_PER_GIB, true, PAGE_2M, false, 512, 1)
    expect(ask()).toEqual([CARRY, 0, 0])
    // A guest page in it: verification fails.
    expect(rmp.rmpopt(PAGES_PER_GIB, VERIFY_AND_ENABLE)).toBe(0)
    rmp.rmpupdate(PAGES_PER_GIB + 7, false, PAGE_4K, false, 0, 0)
    expect(rmp.rmpopt(PAGES_PER_GIB, VERIFY_AND_ENABLE)).toBe(CARRY)
  })

  it("covers two TiB from its base on, and covered pages only", () => {
    const rmp = segmented()
    rmp.setRmpoptBase(GIB + 1)
    expect(rmp.rmpopt(0, VERIFY_AND_ENABLE)).toBe(0)
    expect(rmp.rmpopt(PAGES_PER_GIB, VERIFY_AND_ENABLE)).toBe(CARRY)
    expect(rmp.rmpopt(3 * PAGES_PER_GIB, VERIFY_AND_ENABLE)).toBe(0)
    expect(() => rmp.setRmpoptBase(-1)).toThrow(RangeError)
  })

  it("changes no outcome of any access", () => {
    const page = fc
      .integer({ min: 0, max: 3 * PAGES_PER_GIB - 1 })
      .map((pfn) => (pfn % PAGES_PER_GIB < 4 ? pfn : pfn - (pfn % 512)))
    const step = fc.record({
      pfn: page,
      action: fc.constantFrom("opt", "opt", "give", "give2M", "take", "smash", "firmware"),
      access: page,
      size: fc.constantFrom(PAGE_4K, PAGE_2M)
    })
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        const [plain, optimised] = [segmented(), segmented()]
        optimised.setRmpoptBase(1)
        for (const { pfn, action, access, size } of steps) {
          if (action === "opt") optimised.rmpopt(pfn, VERIFY_AND_ENABLE)
          for (const rmp of [plain, optimised]) {
            if (action === "give") rmp.rmpupdate(pfn, true, PAGE_4K, false, pfn, 1)
            if (action === "give2M") rmp.rmpupdate(pfn - (pfn % 512), true, PAGE_2M, false, 512, 1)
            if (action === "take") rmp.rmpupdate(pfn, false, PAGE_4K, false, 0, 0)
            if (action === "smash") rmp.psmash(pfn - (pfn % 512))
            if (action === "firmware") rmp.firmwareSet(pfn, { assigned: true, immutable: true })
          }
          for (const kind of [ACCESS.READ, ACCESS.WRITE, ACCESS.PAGE_TABLE_WRITE])
            for (const at of [access, pfn]) {
              expect(optimised.checkHost(at, kind, size)).toBe(plain.checkHost(at, kind, size))
              expect(optimised.checkNonSnpGuest(at, kind, size)).toBe(plain.checkNonSnpGuest(at, kind, size))
            }
        }
      }),
      { numRuns: 150, seed: 20261121 }
    )
  })
})
