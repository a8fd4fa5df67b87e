// @section 3.1, 3.2, 3.6
import { describe, expect, it } from "vitest"
import { ACCESS, FAULT, type GuestAccess, PAGE_2M, PAGE_4K, type PageSize, Rmp, RULES } from "../src/index.ts"
import { BASE, give, outcome, verdict } from "./support.ts"

const { decide, PRIVATE_ACCESS, PVALIDATE, RMPADJUST, RMPQUERY, VMRUN_SNP } = RULES

const PAGES = 1024
/** A page of 4 KiB, and a page inside one of 2 MiB; GPAs of which an offset or the high word can get lost. */
const SMALL = { pfn: BASE + 3, gfn: 0x1_0000_0007 }
const LARGE = { pfn: BASE + 512 + 5, gfn: 0x1_0000_0405 }
const HEAD = BASE + 512

/** Both pages are ASID 1's, and VMPL1 may do all. */
const newRmp = (): Rmp => {
  const rmp = new Rmp({ pages: PAGES, basePfn: BASE })
  give(rmp, SMALL.pfn, SMALL.gfn, { perms: [15, 15, 0, 0], vmsa: true })
  give(rmp, HEAD, LARGE.gfn - 5, { size: PAGE_2M, perms: [15, 15, 0, 0], vmsa: true })
  return rmp
}

const KINDS = ["READ", "WRITE", "FETCH", "PAGE_TABLE_READ", "PAGE_TABLE_WRITE", "SHADOW_STACK"] as const
const guest = { asid: 1, vmpl: 1, cpl: 0, cbit: true } as const
type Where = { pfn: number; gfn: number; nptSize: PageSize; asid: number }
const at = (page: typeof SMALL, nptSize: PageSize): Where => ({ ...page, nptSize, asid: guest.asid })

/** A single thing wrong with an access: what breaks in the table, or in the access. */
interface Fault {
  readonly rule: string
  readonly what: string
  readonly at: Where
  readonly breaks?: (rmp: Rmp) => void
  readonly changes?: Partial<Where>
}

const both = (
  rule: string,
  what: string,
  breaks: (rmp: Rmp, pfn: number) => void,
  changes: (page: typeof SMALL) => Partial<Where> = () => ({})
): ReadonlyArray<Fault> => [
  {
    rule,
    what: `4 KiB, ${what}`,
    at: at(SMALL, PAGE_4K),
    breaks: (rmp) => breaks(rmp, SMALL.pfn),
    changes: changes(SMALL)
  },
  { rule, what: `2 MiB, ${what}`, at: at(LARGE, PAGE_2M), breaks: (rmp) => breaks(rmp, HEAD), changes: changes(LARGE) }
]
const nothing = (): void => {}

const OWNERSHIP: ReadonlyArray<Fault> = [
  ...both("RMP-Covered", "below", nothing, () => ({ pfn: BASE - 512 })),
  ...both("RMP-Covered", "above", nothing, () => ({ pfn: BASE + PAGES })),
  ...both("Guest-Owned", "another guest's", nothing, () => ({ asid: 2 })),
  ...both("Guest-Owned", "not assigned", (rmp, pfn) => rmp.firmwareSet(pfn, { assigned: false })),
  ...both("Reverse-Map", "the next GPA", nothing, ({ gfn }) => ({ gfn: gfn + 1 })),
  ...both("Reverse-Map", "4 GiB frames off", nothing, ({ gfn }) => ({ gfn: gfn - 2 ** 32 })),
  ...both("Mutable", "immutable", (rmp, pfn) => rmp.firmwareSet(pfn, { immutable: true }))
]

const LATER: ReadonlyArray<Fault> = [
  { rule: "Page-Size", what: "4 KiB mapping of a 2 MiB page", at: at(LARGE, PAGE_4K) },
  {
    rule: "Page-Size",
    what: "2 MiB mapping of a 4 KiB page",
    at: at({ pfn: BASE + 3, gfn: 0x403 }, PAGE_2M),
    breaks: (rmp) => give(rmp, BASE, 0x400, { perms: [15, 15, 0, 0] })
  },
  ...both("Validated", "not validated", (rmp, pfn) => rmp.firmwareSet(pfn, { validated: false })),
  ...both("VMPL", "no rights", (rmp, pfn) => rmp.firmwareSet(pfn, { perms: [15, 0, 15, 15] }))
]

const faultOf = (rule: string): string =>
  rule === "Validated" ? "#VC" : rule === "VMPL" ? "#NPF RMP VMPL" : "#NPF RMP"

const namesBut = <Q>(rules: RULES.Rules<Q>, name: string): ReadonlySet<string> =>
  new Set(rules.checks.map((rule) => rule.name).filter((other) => other !== name))

describe("each check of a private access", () => {
  it("lets pass what nothing is wrong with", () => {
    const rmp = newRmp()
    for (const where of [at(SMALL, PAGE_4K), at(LARGE, PAGE_2M)])
      for (const kind of KINDS)
        expect(verdict(decide(PRIVATE_ACCESS, { rmp, ...guest, ...where, kind: ACCESS[kind] }).outcome)).toBe("ok")
  })

  it.each([...OWNERSHIP, ...LATER])("$rule refuses alone, for every kind: $what", ({ rule, at, breaks, changes }) => {
    const rmp = newRmp()
    breaks?.(rmp)
    for (const kind of KINDS) {
      const access: GuestAccess = { rmp, ...guest, kind: ACCESS[kind], ...at, ...changes }
      const { asid, vmpl, cpl, cbit, gfn, pfn, nptSize } = access
      const decision = decide(PRIVATE_ACCESS, access)
      expect([decision.rule, verdict(decision.outcome)]).toEqual([rule, faultOf(rule)])
      expect(rmp.checkGuest(asid, vmpl, cpl, access.kind, cbit, gfn, pfn, nptSize)).toBe(decision.outcome)
      expect(decide(PRIVATE_ACCESS, access, new Set([rule])).outcome).toBe(FAULT.NONE)
      // Nor does it lean on those before it.
      expect(decide(PRIVATE_ACCESS, access, namesBut(PRIVATE_ACCESS, rule)).rule).toBe(rule)
    }
  })

  it("a page table's or a fetch's access is private without the C-bit, a data access is not", () => {
    const rmp = newRmp()
    for (const kind of KINDS) {
      const access = { rmp, ...guest, ...at(SMALL, PAGE_4K), cbit: false, kind: ACCESS[kind] }
      const isData = kind === "READ" || kind === "WRITE" || kind === "SHADOW_STACK"
      expect(RULES.guestAccessRules(access), kind).toBe(isData ? RULES.SHARED_ACCESS : PRIVATE_ACCESS)
    }
  })
})

describe("each check of VMRUN's VMSA page", () => {
  const vmsa: ReadonlyArray<Fault> = [
    ...OWNERSHIP,
    ...both("VMSA", "no VMSA page", (rmp, pfn) => rmp.firmwareSet(pfn, { vmsa: false }))
  ]

  // Without RMP-Covered nothing else is known of a page that is not covered, and its bits read as zero here.
  it.each(vmsa)("$rule refuses alone: $what", ({ rule, what, at, breaks, changes }) => {
    const rmp = newRmp()
    breaks?.(rmp)
    const question = { rmp, ...at, ...changes }
    // VMEXIT_INVALID: no return code.
    expect(decide(VMRUN_SNP, question)).toMatchObject({ rule, outcome: -1 })
    expect(rmp.checkVmrunVmsa(question.asid, question.gfn, question.pfn)).toBe(false)
    expect(decide(VMRUN_SNP, question, namesBut(VMRUN_SNP, rule)).rule).toBe(rule)
    // An unassigned head rules no other page: its inner pages then fail by more than one check.
    if (rule === "RMP-Covered" || what === "2 MiB, not assigned") return
    expect(decide(VMRUN_SNP, question, new Set([rule])).outcome).toBe(FAULT.NONE)
  })

  it("asks neither Validated nor VMPL nor Page-Size", () => {
    const rmp = newRmp()
    for (const pfn of [SMALL.pfn, HEAD]) rmp.firmwareSet(pfn, { validated: false, perms: [0, 0, 0, 0] })
    for (const page of [SMALL, LARGE]) expect(decide(VMRUN_SNP, { rmp, asid: 1, ...page }).outcome).toBe(FAULT.NONE)
  })

  it("Hypervisor-Owned refuses a guest's page as VMCB with #GP, as VMSA without SNP with VMEXIT_INVALID", () => {
    const rmp = newRmp()
    const without = new Set(["Hypervisor-Owned"])
    for (const pfn of [SMALL.pfn, HEAD, LARGE.pfn]) {
      const question = { rmp, asid: 1, gfn: 0, pfn }
      expect(outcome(decide(RULES.VMRUN_VMCB, question).outcome)).toBe("#GP")
      expect(decide(RULES.VMRUN_NON_SNP, question).outcome).toBe(RULES.VMSA_REFUSED)
      expect(decide(RULES.VMRUN_VMCB, question, without).outcome).toBe(FAULT.NONE)
      expect(decide(RULES.VMRUN_NON_SNP, question, without).outcome).toBe(FAULT.NONE)
    }
    for (const pfn of [BASE, BASE - 1, BASE + PAGES])
      expect(decide(RULES.VMRUN_VMCB, { rmp, pfn }).outcome).toBe(FAULT.NONE)
  })
})

describe("each check of the operand's page in PVALIDATE, RMPADJUST and RMPQUERY", () => {
  it.each(OWNERSHIP.filter(({ what }) => what !== "2 MiB, not assigned"))("$rule: $what", (fault) => {
    const { rule, breaks, changes } = fault
    const rmp = newRmp()
    breaks?.(rmp)
    const where = { rmp, ...guest, ...fault.at, ...changes, size: PAGE_4K as PageSize, targetVmpl: 2, mask: 1 }
    const asked = [
      decide(PVALIDATE, { ...where, vmpl: 0, validate: true }),
      decide(RMPADJUST, where),
      decide(RMPQUERY, where)
    ]
    for (const decision of asked) expect([decision.rule, outcome(decision.outcome)]).toEqual([rule, "#NPF RMP"])
    expect(decide(RMPADJUST, where, namesBut(RMPADJUST, rule)).rule).toBe(rule)
    if (rule !== "RMP-Covered") expect(outcome(decide(RMPQUERY, where, new Set([rule])).outcome)).toBe("SUCCESS")
  })
})

describe("checks that another one usually covers", () => {
  const update = { pfn: HEAD, assigned: true, size: PAGE_2M as PageSize, immutable: false, gfn: LARGE.gfn - 5, asid: 1 }

  it("RMPUPDATE without Immutable: an immutable first page is no inner page that is HV-Fixed", () => {
    const rmp = newRmp()
    rmp.firmwareSet(HEAD, { immutable: true })
    const without = new Set(["FAIL_PERMISSION: Immutable"])
    expect(decide(RULES.RMPUPDATE, { rmp, ...update }).rule).toBe("FAIL_PERMISSION: Immutable")
    expect(outcome(decide(RULES.RMPUPDATE, { rmp, ...update }, without).outcome)).toBe("SUCCESS")
  })

  it("RMPUPDATE without overlap: another size counts as a change, the same one does not", () => {
    const rmp = newRmp()
    give(rmp, BASE, 0x400, { perms: [15, 3, 0, 0] })
    const without = new Set(["FAIL_OVERLAP: 2 MiB over assigned 4 KiB pages"])
    const resized = decide(RULES.RMPUPDATE, { rmp, ...update, pfn: BASE, gfn: 0x400 }, without)
    expect(resized.note).toBe("Validated 0, VMSA 0, masks 0xf 0x0 0x0 0x0")
    const same = decide(RULES.RMPUPDATE, { rmp, ...update, pfn: BASE, gfn: 0x400, size: PAGE_4K })
    expect(same.note).toBe("Validated 1, VMSA 0, masks 0xf 0x3 0x0 0x0")
  })

  it("PSMASH without alignment asks the page's 2 MiB entry", () => {
    const rmp = newRmp()
    const without = new Set(["FAIL_INPUT: misaligned"])
    expect(outcome(decide(RULES.PSMASH, { rmp, pfn: LARGE.pfn }, without).outcome)).toBe("SUCCESS")
    rmp.firmwareSet(HEAD, { immutable: true })
    expect(decide(RULES.PSMASH, { rmp, pfn: LARGE.pfn }, without).rule).toBe("FAIL_PERMISSION: Immutable")
  })
})

describe("a machine with two VMPLs", () => {
  it("has no third one to be the target of RMPADJUST or RMPQUERY", () => {
    for (const [vmpls, expected] of [
      [2, "FAIL_INPUT"],
      [3, "SUCCESS"]
    ] as const) {
      const rmp = new Rmp({ pages: PAGES, basePfn: BASE, vmpls })
      give(rmp, SMALL.pfn, SMALL.gfn, { perms: [15, 15, 0, 0] })
      const where = { rmp, ...guest, ...at(SMALL, PAGE_4K), size: PAGE_4K as PageSize, targetVmpl: 2, mask: 1 }
      for (const decision of [decide(RMPADJUST, where), decide(RMPQUERY, where)])
        expect(outcome(decision.outcome)).toBe(expected)
    }
  })
})

describe("switchesOf", () => {
  it("leaves out the rules that decide leaves out", () => {
    const rmp = newRmp()
    rmp.firmwareSet(SMALL.pfn, { perms: [15, 2, 0, 0] })
    const access = { rmp, ...guest, ...at(SMALL, PAGE_4K), kind: ACCESS.READ }
    expect(RULES.switchesOf(PRIVATE_ACCESS, access)).toEqual(["U14"])
    expect(RULES.switchesOf(PRIVATE_ACCESS, access, new Set(["VMPL"]))).toEqual([])
    // The same where the switch stands the other way: it is the default that would refuse.
    const lenient = new Rmp({ pages: PAGES, basePfn: BASE, switches: { U14: "alternative" } })
    give(lenient, SMALL.pfn, SMALL.gfn, { perms: [15, 2, 0, 0] })
    expect(RULES.switchesOf(PRIVATE_ACCESS, { ...access, rmp: lenient })).toEqual(["U14"])
    expect(RULES.switchesOf(PRIVATE_ACCESS, { ...access, rmp: lenient }, new Set(["VMPL"]))).toEqual([])
    // A fetch reads the mask too, but not by that switch.
    const fetch = { ...access, kind: ACCESS.FETCH }
    expect(decide(PRIVATE_ACCESS, fetch).switches).toEqual(["U14"])
    expect(RULES.switchesOf(PRIVATE_ACCESS, fetch)).toEqual([])
  })
})
