// @section 2.4
import { describe, expect, it } from "vitest"
import { PAGE_2M, PAGE_4K, type Rmp, type Switches } from "../src/index.ts"
import { BASE, GFN, give, newRmp, outcome } from "./support.ts"

const P = BASE
const UNCOVERED = BASE + 1024

type Row = readonly [why: string, prepare: (rmp: Rmp) => void, act: (rmp: Rmp) => number, expected: string]
const nothing = (): void => {}

// Each row fails its own check and the one after it: the name is the check that must win.
const rows: ReadonlyArray<Row> = [
  ["2M misaligned before unassigned fields", nothing, (r) => r.rmpupdate(P + 1, 0, PAGE_2M, 1, 0, 0), "FAIL_INPUT"],
  [
    "unassigned with an ASID before Immutable",
    (r) => give(r, P, 0, { immutable: true }),
    (r) => r.rmpupdate(P, 0, PAGE_4K, 0, 0, 1),
    "FAIL_INPUT"
  ],
  [
    "unassigned and immutable before Immutable",
    (r) => give(r, P, 0, { immutable: true }),
    (r) => r.rmpupdate(P, 0, PAGE_4K, 1, 0, 0),
    "FAIL_INPUT"
  ],
  [
    "misaligned before Immutable",
    (r) => give(r, P + 1, 0, { immutable: true }),
    (r) => r.rmpupdate(P + 1, 1, PAGE_2M, 0, 0, 1),
    "FAIL_INPUT"
  ],
  ["not covered, above", nothing, (r) => r.rmpupdate(UNCOVERED, 1, PAGE_4K, 0, 0, 1), "FAIL_INPUT"],
  ["not covered, below", nothing, (r) => r.rmpupdate(BASE - 1, 1, PAGE_4K, 0, 0, 1), "FAIL_INPUT"],
  [
    "Immutable before overlap, 4K on 2M",
    (r) => give(r, P, 0, { size: PAGE_2M, immutable: true }),
    (r) => r.rmpupdate(P, 1, PAGE_4K, 0, 0, 1),
    "FAIL_PERMISSION"
  ],
  [
    "Immutable before overlap, 2M on 4K",
    (r) => {
      give(r, P, 0, { immutable: true })
      give(r, P + 7, 0)
    },
    (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 1),
    "FAIL_PERMISSION"
  ],
  [
    "Immutable before in use",
    (r) => {
      give(r, P, 0, { immutable: true })
      r.markInUse(P)
    },
    (r) => r.rmpupdate(P, 0, PAGE_4K, 0, 0, 0),
    "FAIL_PERMISSION"
  ],
  [
    "overlap before in use: 4K on the first page of 2M",
    (r) => {
      give(r, P, 0, { size: PAGE_2M })
      r.markInUse(P)
    },
    (r) => r.rmpupdate(P, 1, PAGE_4K, 0, 0, 1),
    "FAIL_OVERLAP"
  ],
  [
    "overlap before in use: 4K inside 2M",
    (r) => {
      give(r, P, 0, { size: PAGE_2M })
      r.markInUse(P + 9)
    },
    (r) => r.rmpupdate(P + 9, 0, PAGE_4K, 0, 0, 0),
    "FAIL_OVERLAP"
  ],
  [
    "4K inside an immutable 2M page",
    (r) => give(r, P, 0, { size: PAGE_2M, immutable: true }),
    (r) => r.rmpupdate(P + 9, 0, PAGE_4K, 0, 0, 0),
    "FAIL_OVERLAP"
  ],
  [
    "overlap before in use: 2M over a 4K page",
    (r) => {
      give(r, P + 511, 0)
      r.markInUse(P + 511)
    },
    (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 1),
    "FAIL_OVERLAP"
  ],
  [
    "2M over its own first page as 4K",
    (r) => give(r, P, 0),
    (r) => r.rmpupdate(P, 0, PAGE_2M, 0, 0, 0),
    "FAIL_OVERLAP"
  ],
  [
    "overlap before an inner immutable page",
    (r) => {
      give(r, P + 4, 0)
      r.firmwareSet(P + 5, { immutable: true })
    },
    (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 1),
    "FAIL_OVERLAP"
  ],
  [
    "inner HV-Fixed page before in use",
    (r) => {
      r.firmwareSet(P + 5, { immutable: true })
      r.markInUse(P)
    },
    (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 1),
    "FAIL_PERMISSION"
  ],
  ["in use, 4K", (r) => r.markInUse(P + 3), (r) => r.rmpupdate(P + 3, 1, PAGE_4K, 0, 0, 1), "FAIL_INUSE"],
  ["in use, inner page of 2M", (r) => r.markInUse(P + 3), (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 1), "FAIL_INUSE"],
  [
    "another page of the region in use",
    (r) => r.markInUse(P + 3),
    (r) => r.rmpupdate(P + 4, 1, PAGE_4K, 0, 0, 1),
    "SUCCESS"
  ],
  ["2M over a 2M page", (r) => give(r, P, 0, { size: PAGE_2M }), (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 2), "SUCCESS"]
]

const switched: ReadonlyArray<readonly [Partial<Switches>, ...Row]> = [
  [
    { U8: "alternative" },
    "U8: in use before misaligned",
    (r) => r.markInUse(P + 1),
    (r) => r.rmpupdate(P + 1, 1, PAGE_2M, 0, 0, 1),
    "FAIL_INUSE"
  ],
  [
    { U8: "alternative" },
    "U8: in use before Immutable",
    (r) => {
      give(r, P, 0, { immutable: true })
      r.markInUse(P)
    },
    (r) => r.rmpupdate(P, 0, PAGE_4K, 0, 0, 0),
    "FAIL_INUSE"
  ],
  [
    { U17: "alternative" },
    "U17: overwrites HV-Fixed",
    (r) => r.firmwareSet(P + 5, { immutable: true }),
    (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 1),
    "SUCCESS"
  ],
  [
    { U17: "alternative" },
    "U17: the first page stays protected",
    (r) => r.firmwareSet(P, { immutable: true }),
    (r) => r.rmpupdate(P, 1, PAGE_2M, 0, 0, 1),
    "FAIL_PERMISSION"
  ]
]

describe("RMPUPDATE", () => {
  it.each(rows)("%s", (_why, prepare, act, expected) => {
    const rmp = newRmp()
    prepare(rmp)
    expect(outcome(act(rmp))).toBe(expected)
  })

  it.each(switched)("%o %s", (switches, _why, prepare, act, expected) => {
    const rmp = newRmp(switches)
    prepare(rmp)
    expect(outcome(act(rmp))).toBe(expected)
  })

  it("gives a new guest page to VMPL0 alone, unvalidated", () => {
    const rmp = newRmp()
    rmp.rmpupdate(P, true, PAGE_4K, false, GFN, 3)
    expect(rmp.entry(P)).toEqual({
      assigned: true,
      size: PAGE_4K,
      immutable: false,
      gfn: GFN,
      asid: 3,
      validated: false,
      vmsa: false,
      inUse: false,
      perms: [0xf, 0, 0, 0]
    })
  })

  it("U7: includes SSS in VMPL0's mask", () => {
    const rmp = newRmp({ U7: "alternative" })
    rmp.rmpupdate(P, 1, PAGE_4K, 0, GFN, 3)
    expect(rmp.entry(P).perms).toEqual([0x1f, 0, 0, 0])
  })

  const kept = { validated: true, vmsa: true, perms: [0xf, 1, 2, 3] }
  const cleared = { validated: false, vmsa: false, perms: [0xf, 0, 0, 0] }
  const effects: ReadonlyArray<readonly [string, (r: Rmp) => number, object, object]> = [
    [
      "Immutable alone",
      (r) => r.rmpupdate(P, 1, PAGE_4K, 1, GFN, 1),
      { ...kept, immutable: true },
      { ...cleared, immutable: true }
    ],
    ["nothing", (r) => r.rmpupdate(P, 1, PAGE_4K, 0, GFN, 1), kept, cleared],
    ["the GPA's low half", (r) => r.rmpupdate(P, 1, PAGE_4K, 0, GFN + 1, 1), cleared, cleared],
    ["the GPA's high half", (r) => r.rmpupdate(P, 1, PAGE_4K, 0, GFN - 2 ** 32, 1), cleared, cleared],
    ["the ASID", (r) => r.rmpupdate(P, 1, PAGE_4K, 0, GFN, 2), cleared, cleared],
    ["the owner to the AMD-SP", (r) => r.rmpupdate(P, 1, PAGE_4K, 1, 0, 0), cleared, cleared],
    [
      "Assigned",
      (r) => r.rmpupdate(P, 0, PAGE_4K, 0, GFN, 0),
      { ...cleared, assigned: false, gfn: GFN, asid: 0 },
      cleared
    ]
  ]
  it.each(effects)("U1: changing %s", (_what, act, expected, alternative) => {
    for (const [choice, fields] of [
      ["default", expected],
      ["alternative", alternative]
    ] as const) {
      const rmp = newRmp({ U1: choice })
      give(rmp, P, GFN, { vmsa: true, perms: [0xf, 1, 2, 3] })
      expect(outcome(act(rmp))).toBe("SUCCESS")
      expect(rmp.entry(P)).toMatchObject(fields)
    }
  })

  it("keeps Validated of a 2M page when only Immutable changes, which makes it Pre-Swap", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { size: PAGE_2M })
    rmp.rmpupdate(P, 1, PAGE_2M, 1, GFN, 1)
    expect([rmp.stateOf(P), rmp.stateOf(P + 511)]).toEqual(["Pre-Swap", "Pre-Swap"])
  })

  it("leaves Assigned and zeros in the other 511 entries of a 2M page, and zeros when it is taken back", () => {
    const rmp = newRmp()
    rmp.rmpupdate(P, 1, PAGE_2M, 0, GFN, 1)
    const zero = {
      size: PAGE_4K,
      immutable: false,
      gfn: 0,
      asid: 0,
      validated: false,
      vmsa: false,
      perms: [0, 0, 0, 0]
    }
    for (const page of [1, 255, 511]) expect(rmp.entry(P + page)).toMatchObject({ assigned: true, ...zero })
    expect(rmp.entry(P + 512).assigned).toBe(false)
    rmp.rmpupdate(P, 0, PAGE_2M, 0, GFN, 0)
    expect(rmp.entry(P)).toMatchObject({ assigned: false, size: PAGE_4K })
    for (const page of [1, 255, 511]) expect(rmp.entry(P + page)).toMatchObject({ assigned: false, ...zero })
  })

  it("U12: is refused to guests", () => {
    expect(outcome(newRmp().hostInstructionByGuest())).toBe("FAIL_PERMISSION")
    expect(outcome(newRmp({ U12: "alternative" }).hostInstructionByGuest())).toBe("#UD")
    expect(outcome(newRmp().rmpreadByGuest())).toBe("FAIL_PERMISSION")
    expect(outcome(newRmp().rmpchkd())).toBe("#UD")
  })
})
