// @section 2.1, 2.2, 2.3, 2.6, 3.5
import { describe, expect, it } from "vitest"
import { NOT_MAPPED, PAGE_2M, PAGE_4K, type PageSize, type Rmp, type RmpEntry, type Switches } from "../src/index.ts"
import { BASE, GFN, give, newRmp, outcome, SIZES } from "./support.ts"

const P = BASE

/** A call: PVALIDATE, RMPADJUST or RMPQUERY by ASID 1 on GFN at P, but for what is given. */
interface Call {
  vmpl?: number
  gfn?: number
  pfn?: number
  npt?: PageSize
  size?: PageSize
  target?: number
  mask?: number
  vmsa?: boolean
  validate?: boolean
}

const pvalidate = (r: Rmp, c: Call): number =>
  r.pvalidate(
    1,
    c.vmpl ?? 0,
    c.gfn ?? GFN,
    c.pfn ?? P,
    c.npt ?? c.size ?? PAGE_4K,
    c.size ?? PAGE_4K,
    c.validate ?? true
  )
const rmpadjust = (r: Rmp, c: Call): number =>
  r.rmpadjust(
    1,
    c.vmpl ?? 0,
    c.gfn ?? GFN,
    c.pfn ?? P,
    c.npt ?? c.size ?? PAGE_4K,
    c.size ?? PAGE_4K,
    c.target ?? 1,
    c.mask ?? 0,
    c.vmsa ?? false
  )
const rmpquery = (r: Rmp, c: Call): number =>
  r.rmpquery(1, c.vmpl ?? 0, c.gfn ?? GFN, c.pfn ?? P, c.npt ?? PAGE_4K, c.target ?? 1)

type Row = readonly [
  why: string,
  entry: Partial<RmpEntry> | null,
  call: Call,
  expected: string,
  switches?: Partial<Switches>
]

const table = (rows: ReadonlyArray<Row>, act: (r: Rmp, c: Call) => number): void => {
  for (const [why, entry, call, expected, switches = {}] of rows)
    it(`${why}: ${expected}`, () => {
      const rmp = newRmp(switches)
      if (entry !== null) give(rmp, P, GFN, entry)
      expect(outcome(act(rmp, call))).toBe(expected)
    })
}

// The first check named must win over the second, which fails too.
const notTheGuests: ReadonlyArray<Row> = [
  ["not covered", null, { pfn: BASE + 1024 }, "#NPF RMP"],
  ["unassigned", { assigned: false }, {}, "#NPF RMP"],
  ["immutable", { immutable: true }, {}, "#NPF RMP"],
  ["of another ASID", { asid: 2 }, {}, "#NPF RMP"],
  ["at another GPA, low half", { gfn: GFN + 1 }, {}, "#NPF RMP"],
  ["at another GPA, high half", { gfn: GFN - 2 ** 32 }, {}, "#NPF RMP"],
  ["nested tables before ownership", { asid: 2 }, { pfn: NOT_MAPPED }, "#NPF"],
  ["guest tables before nested tables", null, { gfn: NOT_MAPPED, pfn: NOT_MAPPED }, "#PF"],
  ["U5", null, { gfn: NOT_MAPPED, pfn: NOT_MAPPED }, "#GP", { U5: "alternative" }],
  ["ownership before size", { size: PAGE_2M, asid: 2 }, {}, "#NPF RMP"]
]

describe("PVALIDATE", () => {
  table(notTheGuests, pvalidate)
  table(
    [
      ["VMPL before alignment", null, { vmpl: 1, gfn: GFN + 1, size: PAGE_2M }, "#GP"],
      ["U3", null, { vmpl: 3, gfn: GFN + 1, size: PAGE_2M }, "#UD", { U3: "alternative" }],
      ["alignment before translation", null, { gfn: GFN + 1, pfn: NOT_MAPPED, size: PAGE_2M }, "FAIL_INPUT"],
      ["no alignment to check where the guest maps nothing", null, { gfn: NOT_MAPPED, size: PAGE_2M }, "#PF"],
      ["size fault before in use", { size: PAGE_2M, inUse: true }, {}, "#NPF RMP SIZEM"],
      ["size mismatch before in use", { inUse: true }, { size: PAGE_2M, npt: PAGE_4K }, "FAIL_SIZEMISMATCH"],
      ["in use", { inUse: true, validated: false }, {}, "FAIL_INUSE"],
      ["in use, nothing to change", { inUse: true }, {}, "FAIL_INUSE"],
      ["U16", { inUse: true, validated: false }, {}, "SUCCESS", { U16: "alternative" }],
      ["validates", { validated: false }, {}, "SUCCESS"],
      ["validates again", {}, {}, "SUCCESS CF"],
      ["invalidates", {}, { validate: false }, "SUCCESS"],
      ["invalidates again", { validated: false }, { validate: false }, "SUCCESS CF"],
      ["validates 2M", { size: PAGE_2M, validated: false }, { size: PAGE_2M }, "SUCCESS"]
    ],
    pvalidate
  )

  it("changes Validated and nothing else", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { vmsa: true, perms: [0xf, 1, 2, 3] })
    const before = rmp.entry(P)
    pvalidate(rmp, { validate: false })
    expect(rmp.entry(P)).toEqual({ ...before, validated: false })
    pvalidate(rmp, {})
    expect(rmp.entry(P)).toEqual(before)
  })

  it("is FAIL_INUSE on a 2M page of which an inner page is in use", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { size: PAGE_2M })
    rmp.markInUse(P + 5)
    expect(outcome(pvalidate(rmp, { size: PAGE_2M }))).toBe("FAIL_INUSE")
  })
})

describe("RMPADJUST", () => {
  table(notTheGuests, rmpadjust)
  table(
    [
      ["alignment before target", null, { gfn: GFN + 1, size: PAGE_2M, target: 0 }, "FAIL_INPUT"],
      ["a VMPL that does not exist", {}, { target: 4 }, "FAIL_INPUT"],
      ["reserved mask bits before target", null, { mask: 0x20, target: 0 }, "FAIL_INPUT"],
      ["target before translation", null, { target: 0, pfn: NOT_MAPPED }, "FAIL_PERMISSION"],
      ["U13: translation before target", null, { target: 0, pfn: NOT_MAPPED }, "#NPF", { U13: "alternative" }],
      ["U13: Validated before target", { validated: false }, { target: 0 }, "#VC", { U13: "alternative" }],
      ["U13: target", {}, { target: 0 }, "FAIL_PERMISSION", { U13: "alternative" }],
      ["own level", {}, { vmpl: 2, target: 2 }, "FAIL_PERMISSION"],
      ["SIZEM before Validated", { size: PAGE_2M, validated: false }, {}, "#NPF RMP SIZEM"],
      ["Validated before size mismatch", { validated: false }, { size: PAGE_2M, npt: PAGE_4K }, "#VC"],
      ["size mismatch before mask", {}, { size: PAGE_2M, npt: PAGE_4K, mask: 0x1f }, "FAIL_SIZEMISMATCH"],
      ["Validated before mask", { validated: false }, { mask: 0x1f }, "#VC"],
      ["mask before in use", { inUse: true }, { mask: 0x1f }, "FAIL_PERMISSION"],
      ["mask beyond one's own", { perms: [0xf, 5, 0, 0] }, { vmpl: 1, target: 2, mask: 3 }, "FAIL_PERMISSION"],
      ["mask within one's own", { perms: [0xf, 5, 0, 0] }, { vmpl: 1, target: 2, mask: 5 }, "SUCCESS"],
      ["in use", { inUse: true }, { mask: 1 }, "FAIL_INUSE"],
      ["U2", { inUse: true }, { mask: 1 }, "FAIL_PERMISSION", { U2: "alternative" }],
      ["all that VMPL0 has", {}, { mask: 0xf, target: 3 }, "SUCCESS"]
    ],
    rmpadjust
  )

  it("replaces the target's mask and no other", () => {
    for (const target of [1, 2, 3]) {
      const rmp = newRmp()
      give(rmp, P, GFN, { perms: [0x1f, 1, 2, 4] })
      rmpadjust(rmp, { target, mask: 0x18 })
      expect(rmp.entry(P).perms).toEqual([0x1f, 1, 2, 4].map((mask, level) => (level === target ? 0x18 : mask)))
    }
  })

  it("writes VMSA at VMPL0 only, and ignores it elsewhere", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { perms: [0xf, 0xf, 0, 0] })
    expect(outcome(rmpadjust(rmp, { vmpl: 1, target: 2, vmsa: true }))).toBe("SUCCESS")
    expect(rmp.entry(P).vmsa).toBe(false)
    rmpadjust(rmp, { target: 2, vmsa: true })
    expect(rmp.entry(P).vmsa).toBe(true)
    rmpadjust(rmp, { vmpl: 1, target: 2, vmsa: false })
    expect(rmp.entry(P).vmsa).toBe(true)
    rmpadjust(rmp, { target: 2, vmsa: false })
    expect(rmp.entry(P).vmsa).toBe(false)
  })
})

describe("RMPQUERY", () => {
  table(notTheGuests, rmpquery)
  table(
    [
      ["a VMPL that does not exist", null, { target: 4, pfn: NOT_MAPPED }, "FAIL_INPUT"],
      ["target before translation", null, { target: 0, vmpl: 1, pfn: NOT_MAPPED }, "FAIL_PERMISSION"],
      ["own level", {}, { target: 2, vmpl: 2 }, "FAIL_PERMISSION"],
      ["U6: own level", {}, { target: 2, vmpl: 2 }, "SUCCESS", { U6: "alternative" }],
      ["U6: below", {}, { target: 1, vmpl: 2 }, "FAIL_PERMISSION", { U6: "alternative" }],
      ["page size before Validated", { validated: false }, { npt: PAGE_2M }, "#NPF RMP"],
      ["Validated", { validated: false }, {}, "#VC"]
    ],
    rmpquery
  )

  it("answers with the target's mask, VMSA and the page's size, for an inner page of 2M too", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { size: PAGE_2M, vmsa: true, perms: [0xf, 1, 2, 0x1f] })
    const out = { mask: 0, vmsa: false, size: PAGE_4K as PageSize }
    expect(outcome(rmp.rmpquery(1, 0, GFN + 77, P + 77, PAGE_2M, 3, out))).toBe("SUCCESS")
    expect(out).toEqual({ mask: 0x1f, vmsa: true, size: PAGE_2M })
  })
})

describe("page-size matrix", () => {
  // Nested, RMP: plain access, 4K PVALIDATE or RMPADJUST, 2M ones, 2M ones with U10 or 4K ones with U15 the other way.
  const matrix: Record<string, readonly [string, string, string]> = {
    "4K 4K": ["SUCCESS", "SUCCESS", "FAIL_SIZEMISMATCH"],
    "4K 2M": ["#NPF RMP", "#NPF RMP SIZEM", "#NPF RMP"],
    "2M 2M": ["SUCCESS", "#NPF RMP SIZEM", "SUCCESS"],
    "2M 4K": ["#NPF RMP", "#NPF RMP", "#NPF RMP"]
  }
  const alternative: typeof matrix = {
    ...matrix,
    "4K 2M": ["#NPF RMP", "#NPF RMP SIZEM", "FAIL_SIZEMISMATCH"],
    "2M 4K": ["#NPF RMP", "#NPF RMP SIZEM", "FAIL_SIZEMISMATCH"]
  }
  const cells = SIZES.flatMap((npt) => SIZES.map((rmp) => [npt, rmp] as const))

  it.each(cells)("nested %s, RMP %s", ([nptName, npt], [rmpName, rmpSize]) => {
    for (const [choice, expected] of [
      ["default", matrix],
      ["alternative", alternative]
    ] as const) {
      const rmp = newRmp({ U10: choice, U15: choice })
      give(rmp, P, GFN, { size: rmpSize })
      const [plain, small, big] = expected[`${nptName} ${rmpName}`]!
      expect(outcome(rmp.checkGuest(1, 0, 0, 0, true, GFN, P, npt))).toBe(plain)
      for (const [size, result] of [
        [PAGE_4K, small],
        [PAGE_2M, big]
      ] as const) {
        expect(outcome(rmpadjust(rmp, { npt, size }))).toBe(result)
        expect(outcome(pvalidate(rmp, { npt, size, validate: false }))).toBe(result)
        rmp.firmwareSet(P, { validated: true })
      }
    }
  })

  it("U10: a page-size NPF comes before #VC, FAIL_SIZEMISMATCH after it", () => {
    for (const [choice, expected] of [
      ["default", "#NPF RMP"],
      ["alternative", "#VC"]
    ] as const) {
      const rmp = newRmp({ U10: choice })
      give(rmp, P, GFN, { size: PAGE_2M, validated: false })
      expect(outcome(rmpadjust(rmp, { npt: PAGE_4K, size: PAGE_2M }))).toBe(expected)
    }
  })
})
