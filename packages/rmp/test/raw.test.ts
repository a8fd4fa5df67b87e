// @section 1.2
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { decodeRawEntry, encodeRawEntry, PAGE_2M, PAGE_4K, Rmp } from "../src/index.ts"
import { give } from "./support.ts"

const hex = (bytes: Uint8Array): string => {
  const view = new DataView(bytes.buffer)
  return [0, 8].map((at) => view.getBigUint64(at, true).toString(16)).join(" ")
}

const none = {
  assigned: false,
  size: 0,
  immutable: false,
  gfn: 0,
  asid: 0,
  validated: false,
  vmsa: false,
  perms: [0, 0, 0, 0]
} as const

describe("the raw entry", () => {
  it("has every field at its published bit", () => {
    const cases: ReadonlyArray<readonly [Parameters<typeof encodeRawEntry>[0], number, string]> = [
      [none, 0, "0 0"],
      [{ ...none, assigned: true }, 0, "1 0"],
      [{ ...none, size: PAGE_2M }, 0, "2 0"],
      // HV-Fixed is immutable without a lock, Firmware has both: the values that SNP_INIT writes.
      [{ ...none, immutable: true }, 0, "4 0"],
      [{ ...none, assigned: true, immutable: true }, 0, "8000000000000005 0"],
      [none, 511, "ff8 0"],
      [{ ...none, gfn: 1 }, 0, "1000 0"],
      [{ ...none, gfn: 2 ** 39 - 1 }, 0, "7fffffffff000 0"],
      [{ ...none, asid: 1 }, 0, "8000000000000 0"],
      [{ ...none, asid: 0x3ff }, 0, "1ff8000000000000 0"],
      [{ ...none, vmsa: true }, 0, "2000000000000000 0"],
      [{ ...none, validated: true }, 0, "4000000000000000 0"],
      [{ ...none, perms: [0x1f, 2, 4, 8] }, 0, "0 804021f"]
    ]
    for (const [entry, count, expected] of cases) expect(hex(encodeRawEntry(entry, count))).toBe(expected)
  })

  it("says the same when read back", () => {
    const byte = fc.integer({ min: 0, max: 0x1f })
    const entry = fc.record({
      assigned: fc.boolean(),
      size: fc.constantFrom(PAGE_4K, PAGE_2M),
      immutable: fc.boolean(),
      gfn: fc.integer({ min: 0, max: 2 ** 39 - 1 }),
      asid: fc.integer({ min: 0, max: 0x3ff }),
      validated: fc.boolean(),
      vmsa: fc.boolean(),
      perms: fc.tuple(byte, byte, byte, byte)
    })
    fc.assert(
      fc.property(entry, fc.integer({ min: 0, max: 511 }), (one, count) => {
        const raw = decodeRawEntry(encodeRawEntry(one, count))
        expect(raw).toEqual({ entry: one, subpageCount: count, lock: one.immutable && one.assigned })
      })
    )
    expect(() => decodeRawEntry(new Uint8Array(15))).toThrow(RangeError)
  })

  it("Subpage_Count is derived: the first page's entry counts the others", () => {
    const rmp = new Rmp({ pages: 1024 })
    const counts = () => [decodeRawEntry(rmp.rawEntry(0)).subpageCount, decodeRawEntry(rmp.rawEntry(5)).subpageCount]
    for (const pfn of [0, 5, 9]) rmp.rmpupdate(pfn, true, PAGE_4K, false, pfn, 1)
    expect(counts()).toEqual([2, 0])
    rmp.rmpupdate(0, false, PAGE_4K, false, 0, 0)
    expect(counts()).toEqual([2, 0])
    for (const pfn of [5, 9]) rmp.rmpupdate(pfn, false, PAGE_4K, false, 0, 0)
    rmp.rmpupdate(0, true, PAGE_2M, false, 0, 1)
    expect(counts()).toEqual([0, 0])
    rmp.psmash(0)
    expect(counts()).toEqual([511, 0])
    expect(rmp.subpageCount(5000)).toBe(0)
  })

  it("reaches the table behind the instructions' back: what RMPocalypse did before the RMP protected itself", () => {
    const rmp = new Rmp({ pages: 1024 })
    give(rmp, 8, 0, { asid: 0, validated: false, immutable: true, vmsa: true, gfn: 0 })
    expect(rmp.stateOf(8)).toBe("Context")
    expect(rmp.rmpupdate(8, false, PAGE_4K, false, 0, 0)).toBe(2)
    // One store of zeros, and the guest's context is the hypervisor's to write.
    rmp.setRawEntry(8, new Uint8Array(16))
    expect([rmp.stateOf(8), rmp.checkHost(8, 1, PAGE_4K)]).toEqual(["Hypervisor", 0])
  })
})
