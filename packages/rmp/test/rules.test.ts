// @section 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 3.1, 3.2, 3.5, 3.6, 7
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ACCESS, FAULT, PAGE_2M, PAGE_4K, type PageSize, Rmp, RULES, SWITCH_IDS, type Switches } from "../src/index.ts"
import { BASE, give, outcome, verdict } from "./support.ts"

const { decide } = RULES
const PAGES = 1024

interface Step {
  readonly operation:
    | "lend"
    | "rmpupdate"
    | "psmash"
    | "pvalidate"
    | "rmpadjust"
    | "rmpquery"
    | "guest"
    | "host"
    | "vmrun"
    | "firmware"
  readonly page: number
  readonly asid: number
  readonly frame: number
  readonly matches: number
  readonly size: PageSize
  readonly nptSize: PageSize
  readonly vmpl: number
  readonly target: number
  readonly mask: number
  readonly kind: number
  readonly cpl: number
  readonly flags: number
}

const step: fc.Arbitrary<Step> = fc.record({
  operation: fc.constantFrom(
    "lend",
    "rmpupdate",
    "rmpupdate",
    "psmash",
    "pvalidate",
    "pvalidate",
    "rmpadjust",
    "rmpadjust",
    "rmpquery",
    "guest",
    "guest",
    "host",
    "vmrun",
    "firmware"
  ),
  page: fc.constantFrom(0, 0, 0, 1, 2, 3, 4, 5, 511, 512, 1023, -1, 1024),
  asid: fc.constantFrom(1, 1, 1, 2),
  frame: fc.constantFrom(0, 0x400, 0x401, 0x200, 0xfffff_fe00, -1),
  matches: fc.constantFrom(3, 3, 3, 3, 3, 2, 1, 0),
  size: fc.constantFrom(PAGE_4K, PAGE_2M),
  nptSize: fc.constantFrom(PAGE_4K, PAGE_2M),
  vmpl: fc.constantFrom(0, 0, 0, 1, 2),
  target: fc.constantFrom(0, 1, 2, 3, 4),
  mask: fc.constantFrom(0, 1, 2, 3, 0xf, 0xf, 0x1f, 0x20),
  kind: fc.constantFrom(...[0, 1, 2, 3, 4, 5].flatMap((kind) => [kind, kind | ACCESS.VMPL_SSS])),
  cpl: fc.constantFrom(0, 3),
  flags: fc.integer({ min: 0, max: 0xff })
})

const bit = (flags: number, position: number): boolean => (flags & (1 << position)) !== 0

/** How often each rule of each list decided: one that never does is untested, or no rule. */
const decided = new Map<string, number>()

const ask = <Q>(list: string, rules: RULES.Rules<Q>, question: Q, actual: number): void => {
  const decision = decide(rules, question)
  const key = `${list}: ${decision.rule}`
  decided.set(key, (decided.get(key) ?? 0) + 1)
  if (decision.outcome !== actual)
    expect(`${key} ${outcome(decision.outcome)}`).toBe(`${list}, fast: ${outcome(actual)}`)
}

/** Asks the rules and the fast code the same question, the rules first since instructions write. */
const play = (rmp: Rmp, s: Step): void => {
  const pfn = s.page < 0 ? (s.flags < 0x80 ? -1 : BASE - 1) : BASE + s.page
  const head = pfn - (((pfn % rmp.pagesPer2M) + rmp.pagesPer2M) % rmp.pagesPer2M)
  const ruling = pfn >= 0 && rmp.entry(head).assigned && rmp.entry(head).size === PAGE_2M ? head : pfn
  const entry = rmp.entry(ruling)
  const asid = s.matches > 1 && entry.asid !== 0 ? entry.asid : s.asid
  const gfn = s.matches > 0 ? entry.gfn + (pfn - ruling) : s.frame
  const nptSize = s.matches > 2 ? entry.size : s.nptSize
  const [one, two, three] = [bit(s.flags, 0), bit(s.flags, 1), bit(s.flags, 2)]
  const { size, vmpl, target, mask, cpl, kind } = s
  const where = { rmp, asid, vmpl, gfn, pfn, nptSize }
  switch (s.operation) {
    case "lend":
      // The steps that bring an entry to where the rarer outcomes are: a page that may be run as a VMSA.
      if (pfn < 0) return
      rmp.rmpupdate(pfn, true, size, false, BASE + s.page, s.asid)
      rmp.pvalidate(s.asid, 0, BASE + s.page, pfn, size, size, true)
      rmp.rmpadjust(s.asid, 0, BASE + s.page, pfn, size, size, 1, 0xf, one)
      return
    case "rmpupdate": {
      const immutable = one && two && three
      const assigned = bit(s.flags, 3) || bit(s.flags, 4)
      const owner = assigned ? s.asid : immutable ? 1 : 0
      const frame = Math.max(s.frame, 0)
      const question = { rmp, pfn, assigned, size, immutable, gfn: frame, asid: owner }
      const rules = decide(RULES.RMPUPDATE, question)
      const actual = rmp.rmpupdate(pfn, assigned, size, immutable, frame, owner)
      decided.set(`RMPUPDATE: ${rules.rule}`, (decided.get(`RMPUPDATE: ${rules.rule}`) ?? 0) + 1)
      expect(outcome(rules.outcome)).toBe(outcome(actual))
      return
    }
    case "psmash": {
      const at = one ? head : pfn
      if (bit(s.flags, 5)) {
        const actual = rmp.rmpread(at)
        ask("RMPREAD", RULES.RMPREAD, { rmp, pfn: at }, actual)
        return
      }
      const rules = decide(RULES.PSMASH, { rmp, pfn: at })
      decided.set(`PSMASH: ${rules.rule}`, (decided.get(`PSMASH: ${rules.rule}`) ?? 0) + 1)
      expect(outcome(rules.outcome)).toBe(outcome(rmp.psmash(at)))
      return
    }
    case "pvalidate": {
      const rules = decide(RULES.PVALIDATE, { ...where, size, validate: one || two })
      decided.set(`PVALIDATE: ${rules.rule}`, (decided.get(`PVALIDATE: ${rules.rule}`) ?? 0) + 1)
      const actual = rmp.pvalidate(asid, vmpl, gfn, pfn, nptSize, size, one || two)
      expect(`${rules.rule}: ${outcome(rules.outcome)}`).toBe(`${rules.rule}: ${outcome(actual)}`)
      return
    }
    case "rmpadjust": {
      const rules = decide(RULES.RMPADJUST, { ...where, size, targetVmpl: target, mask })
      decided.set(`RMPADJUST: ${rules.rule}`, (decided.get(`RMPADJUST: ${rules.rule}`) ?? 0) + 1)
      const actual = rmp.rmpadjust(asid, vmpl, gfn, pfn, nptSize, size, target, mask, one)
      expect(`${rules.rule}: ${outcome(rules.outcome)}`).toBe(`${rules.rule}: ${outcome(actual)}`)
      return
    }
    case "rmpquery":
      ask(
        "RMPQUERY",
        RULES.RMPQUERY,
        { ...where, targetVmpl: target },
        rmp.rmpquery(asid, vmpl, gfn, pfn, nptSize, target)
      )
      return
    case "guest": {
      const access = { ...where, cpl, kind, cbit: one || two }
      const rules = RULES.guestAccessRules(access)
      const name = rules === RULES.PRIVATE_ACCESS ? "private" : "shared"
      ask(name, rules, access, rmp.checkGuest(asid, vmpl, cpl, kind, one || two, gfn, pfn, nptSize))
      return
    }
    case "host":
      if (pfn < 0) return
      rmp.setFalseFaults(bit(s.flags, 6))
      ask("host", RULES.HOST_ACCESS, { rmp, kind, pfn, size }, rmp.checkHost(pfn, kind, size))
      ask("non-SNP", RULES.NON_SNP_ACCESS, { rmp, kind, pfn, size }, rmp.checkNonSnpGuest(pfn, kind, size))
      return
    case "vmrun":
      ask(
        "VMRUN",
        RULES.VMRUN_SNP,
        { rmp, asid, gfn, pfn },
        rmp.checkVmrunVmsa(asid, gfn, pfn) ? 0 : RULES.VMSA_REFUSED
      )
      ask(
        "VMRUN without SNP",
        RULES.VMRUN_NON_SNP,
        { rmp, asid, gfn, pfn },
        rmp.checkHypervisorOwned(pfn) ? 0 : RULES.VMSA_REFUSED
      )
      ask("VMCB", RULES.VMRUN_VMCB, { rmp, pfn }, rmp.checkHypervisorOwned(pfn) ? FAULT.NONE : FAULT.GP)
      if (one) rmp.markInUse(pfn)
      else rmp.clearInUse(pfn)
      return
    case "firmware":
      if (!rmp.isCovered(pfn)) return
      // What firmware leaves behind: a page reclaimed, a page fixed, a page of a guest under its control.
      if (one && two && !entry.assigned) rmp.firmwareSet(pfn, { immutable: true })
      else rmp.firmwareSet(ruling, { immutable: bit(s.flags, 3) && bit(s.flags, 4) })
  }
}

const switches = fc.record(
  Object.fromEntries(SWITCH_IDS.map((id) => [id, fc.constantFrom("default", "alternative")])) as Record<
    keyof Switches,
    fc.Arbitrary<"default" | "alternative">
  >
)

const LISTS = {
  RMPUPDATE: RULES.RMPUPDATE,
  PSMASH: RULES.PSMASH,
  RMPREAD: RULES.RMPREAD,
  PVALIDATE: RULES.PVALIDATE,
  RMPADJUST: RULES.RMPADJUST,
  RMPQUERY: RULES.RMPQUERY,
  private: RULES.PRIVATE_ACCESS,
  shared: RULES.SHARED_ACCESS,
  host: RULES.HOST_ACCESS,
  "non-SNP": RULES.NON_SNP_ACCESS,
  VMRUN: RULES.VMRUN_SNP,
  "VMRUN without SNP": RULES.VMRUN_NON_SNP,
  VMCB: RULES.VMRUN_VMCB
}

describe("the rules", () => {
  it("decide as the fast code does, each of them at some time", () => {
    decided.clear()
    fc.assert(
      fc.property(
        switches,
        fc.constantFrom(4, 512),
        fc.array(step, { minLength: 150, maxLength: 150 }),
        (choice, pagesPer2M, steps) => {
          const rmp = new Rmp({ pages: PAGES, basePfn: BASE, switches: choice, pagesPer2M })
          for (const one of steps) play(rmp, one)
        }
      ),
      { seed: 20261121, numRuns: 400 }
    )
    const names = Object.entries(LISTS).flatMap(([list, { checks, success }]) =>
      [...checks, success].map(({ name }) => `${list}: ${name}`)
    )
    expect(names.filter((name) => (decided.get(name) ?? 0) < 3)).toEqual([])
  })

  it("name their source", () => {
    for (const { checks, success } of Object.values(LISTS) as Array<RULES.Rules<never>>)
      for (const { name, source } of [...checks, success]) expect(source, name).toMatch(/^(APM2|APM3|Linux) /)
    const translated = { PVALIDATE: "APM3 PVALIDATE", RMPADJUST: "APM3 RMPADJUST", RMPQUERY: "APM2 15.36.7" } as const
    for (const [list, source] of Object.entries(translated)) {
      const { checks } = LISTS[list as keyof typeof translated]
      expect(checks.find(({ name }) => name === "guest translation")?.source).toBe(source)
      const misaligned = checks.find(({ name }) => name.endsWith("misaligned address"))
      expect(misaligned?.source ?? source).toBe(source)
    }
  })

  it("a guest that executes RMPUPDATE or PSMASH: U12", () => {
    for (const [choice, expected] of [
      ["default", "FAIL_PERMISSION"],
      ["alternative", "#UD"]
    ] as const) {
      const rmp = new Rmp({ pages: PAGES, switches: { U12: choice } })
      expect(outcome(decide(RULES.HOST_INSTRUCTION_BY_GUEST, { rmp }).outcome)).toBe(expected)
      expect(outcome(rmp.hostInstructionByGuest())).toBe(expected)
    }
  })
})

describe("the access table, check by check", () => {
  const P = BASE + 3
  const good = { asid: 1, vmpl: 1, cpl: 0, kind: ACCESS.READ, cbit: true, gfn: 7, pfn: P, nptSize: PAGE_4K as PageSize }
  /** What of the access changes, once the entry was changed. */
  const after = (_done: unknown, change: Partial<typeof good> = {}): Partial<typeof good> => change
  const cases: ReadonlyArray<readonly [rule: string, change: (rmp: Rmp) => Partial<typeof good>, fault: string]> = [
    ["RMP-Covered", () => ({ pfn: BASE - 1 }), "#NPF RMP"],
    ["Guest-Owned", () => ({ asid: 2 }), "#NPF RMP"],
    ["Reverse-Map", () => ({ gfn: 8 }), "#NPF RMP"],
    ["Mutable", (rmp) => after(rmp.firmwareSet(P, { immutable: true })), "#NPF RMP"],
    [
      "Page-Size",
      (rmp) =>
        after(give(rmp, BASE + 512, 512, { size: PAGE_2M, perms: [15, 15, 0, 0] }), { pfn: BASE + 515, gfn: 515 }),
      "#NPF RMP"
    ],
    ["Validated", (rmp) => after(rmp.firmwareSet(P, { validated: false })), "#VC"],
    ["VMPL", (rmp) => after(rmp.firmwareSet(P, { perms: [15, 0, 0, 0] })), "#NPF RMP VMPL"]
  ]

  it.each(cases)("%s refuses alone, and without it the access passes", (rule, change, fault) => {
    const rmp = new Rmp({ pages: PAGES, basePfn: BASE })
    give(rmp, P, 7, { perms: [15, 15, 0, 0] })
    const access = { rmp, ...good, ...change(rmp) }
    const decision = decide(RULES.PRIVATE_ACCESS, access)
    expect([decision.rule, verdict(decision.outcome)]).toEqual([rule, fault])
    expect(decide(RULES.PRIVATE_ACCESS, access, new Set([rule])).outcome).toBe(FAULT.NONE)
  })

  it("Hypervisor-Owned refuses alone: host, guest without SNP, shared write", () => {
    const rmp = new Rmp({ pages: PAGES, basePfn: BASE })
    give(rmp, P, 7)
    const without = new Set(["Hypervisor-Owned"])
    const plain = { rmp, kind: ACCESS.WRITE, pfn: P, size: PAGE_2M as PageSize }
    const shared = { rmp, ...good, kind: ACCESS.WRITE, cbit: false }
    expect(verdict(decide(RULES.HOST_ACCESS, plain).outcome)).toBe("#PF RMP")
    expect(verdict(decide(RULES.NON_SNP_ACCESS, plain).outcome)).toBe("#NPF RMP")
    expect(verdict(decide(RULES.SHARED_ACCESS, shared).outcome)).toBe("#NPF RMP")
    expect(decide(RULES.HOST_ACCESS, plain, without).outcome).toBe(FAULT.NONE)
    expect(decide(RULES.NON_SNP_ACCESS, plain, without).outcome).toBe(FAULT.NONE)
    expect(decide(RULES.SHARED_ACCESS, shared, without).outcome).toBe(FAULT.NONE)
  })

  it("Validated comes after all that give NPF, VMPL last", () => {
    const rmp = new Rmp({ pages: PAGES, basePfn: BASE })
    give(rmp, BASE + 512, 512, { size: PAGE_2M, validated: false, perms: [15, 0, 0, 0] })
    const access = { rmp, ...good, pfn: BASE + 515, gfn: 515 }
    const order: Array<string> = []
    for (;;) {
      const decision = decide(RULES.PRIVATE_ACCESS, access, new Set(order))
      if (decision.outcome === FAULT.NONE) break
      order.push(decision.rule)
    }
    expect(order).toEqual(["Page-Size", "Validated", "VMPL"])
  })
})
