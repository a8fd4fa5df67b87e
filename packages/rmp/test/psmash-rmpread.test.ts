// @section 1.5, 2.5, 2.7
import { describe, expect, it } from "vitest"
import { PAGE_2M, PAGE_4K, type PageSize, type Rmp } from "../src/index.ts"
import { BASE, GFN, give, newRmp, outcome } from "./support.ts"

const P = BASE
const large = (r: Rmp): void => give(r, P, GFN, { size: PAGE_2M })

describe("PSMASH", () => {
  const rows: ReadonlyArray<readonly [string, (r: Rmp) => void, number, string]> = [
    ["misaligned before not a 2M entry", () => {}, P + 1, "FAIL_INPUT"],
    ["misaligned before Immutable", (r) => r.firmwareSet(P + 1, { immutable: true }), P + 1, "FAIL_INPUT"],
    ["not covered", () => {}, BASE + 1024, "FAIL_INPUT"],
    ["Immutable before not a 2M entry", (r) => give(r, P, GFN, { immutable: true }), P, "FAIL_PERMISSION"],
    [
      "Immutable before in use",
      (r) => {
        give(r, P, GFN, { size: PAGE_2M, immutable: true })
        r.markInUse(P)
      },
      P,
      "FAIL_PERMISSION"
    ],
    [
      "not a 2M entry before in use",
      (r) => {
        give(r, P, GFN)
        r.markInUse(P)
      },
      P,
      "FAIL_BADADDR"
    ],
    ["a Hypervisor page", () => {}, P, "FAIL_BADADDR"],
    [
      "in use",
      (r) => {
        large(r)
        r.markInUse(P)
      },
      P,
      "FAIL_INUSE"
    ],
    [
      "an inner page in use",
      (r) => {
        large(r)
        r.markInUse(P + 511)
      },
      P,
      "FAIL_INUSE"
    ],
    [
      "a page of the next region in use",
      (r) => {
        large(r)
        r.markInUse(P + 512)
      },
      P,
      "SUCCESS"
    ]
  ]
  it.each(rows)("%s", (_why, prepare, pfn, expected) => {
    const rmp = newRmp()
    prepare(rmp)
    expect(outcome(rmp.psmash(pfn))).toBe(expected)
  })

  it("U4: answers 4 for a page that is no 2M entry, otherwise 7", () => {
    expect([newRmp().psmash(P), newRmp({ U4: "alternative" }).psmash(P)]).toEqual([7, 4])
  })

  it("copies all fields to 512 entries with consecutive GPAs, over the 32-bit border too", () => {
    const gfn = 2 ** 33 - 256
    const rmp = newRmp()
    give(rmp, P, gfn, { size: PAGE_2M, asid: 9, vmsa: true, perms: [0xf, 1, 2, 0x1f] })
    expect(outcome(rmp.psmash(P))).toBe("SUCCESS")
    const copied = { assigned: true, size: PAGE_4K, asid: 9, validated: true, vmsa: true, perms: [0xf, 1, 2, 0x1f] }
    for (const page of [0, 1, 255, 256, 511]) expect(rmp.entry(P + page)).toMatchObject({ ...copied, gfn: gfn + page })
    expect(rmp.entry(P + 512).assigned).toBe(false)
    expect(outcome(rmp.psmash(P))).toBe("FAIL_BADADDR")
  })

  it("leaves 512 pages that can be taken back one by one", () => {
    const rmp = newRmp()
    rmp.rmpupdate(P, 1, PAGE_2M, 0, GFN, 1)
    rmp.psmash(P)
    for (let page = 0; page < 512; page++) {
      expect(rmp.checkHost(P, 1, PAGE_2M)).not.toBe(0)
      expect(outcome(rmp.rmpupdate(P + page, 0, PAGE_4K, 0, 0, 0))).toBe("SUCCESS")
    }
    expect(rmp.checkHost(P, 1, PAGE_2M)).toBe(0)
  })
})

describe("RMPREAD", () => {
  const read = (rmp: Rmp, pfn: number): object => {
    const out = { assigned: false, size: PAGE_4K as PageSize, immutable: false, gfn: 0, asid: 0, regionStatus: false }
    expect(outcome(rmp.rmpread(pfn, out))).toBe("SUCCESS")
    return out
  }

  it("is FAIL_INPUT where the page is not covered", () => {
    expect(outcome(newRmp().rmpread(BASE - 1))).toBe("FAIL_INPUT")
    expect(outcome(newRmp().rmpread(BASE + 1024))).toBe("FAIL_INPUT")
  })

  it("shows the stored entry, inside a 2M page too", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { size: PAGE_2M, immutable: true, asid: 7 })
    expect(read(rmp, P)).toEqual({
      assigned: true,
      size: PAGE_2M,
      immutable: true,
      gfn: GFN,
      asid: 7,
      regionStatus: false
    })
    expect(read(rmp, P + 1)).toEqual({
      assigned: true,
      size: PAGE_4K,
      immutable: false,
      gfn: 0,
      asid: 0,
      regionStatus: false
    })
  })

  it("sets the region status of an aligned page when another page of its region is assigned", () => {
    const rmp = newRmp()
    give(rmp, P, GFN)
    expect(read(rmp, P)).toMatchObject({ regionStatus: false })
    give(rmp, P + 511, GFN)
    expect(read(rmp, P)).toMatchObject({ regionStatus: true })
    expect(read(rmp, P + 511)).toMatchObject({ regionStatus: false })
    expect(read(rmp, P + 512)).toMatchObject({ regionStatus: false })
  })

  it("U18: counts the other 511 entries of a 2M page, or not", () => {
    const rmp = newRmp({ U18: "alternative" })
    large(rmp)
    expect(read(rmp, P)).toMatchObject({ regionStatus: true })
  })
})
