// @section 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 3.2, 7
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ACCESS, PAGE_2M, PAGE_4K, type PageSize, Rmp, SWITCH_IDS, type Switches } from "../src/index.ts"
import { type Kind, ReferenceRmp, type Size } from "./ReferenceRmp.ts"
import { BASE, outcome, verdict } from "./support.ts"

// Two regions; pages at the edges of each, the pages next to the table, and one not mapped.
const PAGES = 1024
const pfns = [0, 1, 2, 511, 512, 513, 1023].map((page) => BASE + page)
const outside = [BASE - 512, BASE - 1, BASE + PAGES, -1]
const WATCHED = [...pfns, BASE + 100, ...outside.slice(0, 3)]
const gfns = [0, 1, 0x400, 0x401, 0xfffff_fe00, 0xf_ffff_fe00, 0xf_ffff_ffff, 0xffff_fe00, 0xffff_ffff]

const KIND: Record<Kind, number> = {
  read: ACCESS.READ,
  write: ACCESS.WRITE,
  fetch: ACCESS.FETCH,
  "pt-read": ACCESS.PAGE_TABLE_READ,
  "pt-write": ACCESS.PAGE_TABLE_WRITE
}
const num = (size: Size): PageSize => (size === "2M" ? PAGE_2M : PAGE_4K)
const word = (size: PageSize): Size => (size === PAGE_2M ? "2M" : "4K")

/** Which guest touches which page how. `match` takes ASID, GFN and nested size from the page's entry: most then pass. */
interface Target {
  pfn: number
  asid: number
  gfn: number
  npt: Size
  match: number
}

const aimed = (reference: ReferenceRmp, { pfn, asid, gfn, npt, match }: Target): Omit<Target, "match"> => {
  if (match === 0 || pfn < 0) return { pfn, asid, gfn, npt }
  const seen = reference.seen(pfn)
  return { pfn, asid: (match > 1 && seen.entry.asid) || asid, gfn: seen.gfn, npt: match > 2 ? seen.entry.size : npt }
}

const read = (rmp: Rmp, pfn: number): string => {
  const out = { assigned: false, size: PAGE_4K as PageSize, immutable: false, gfn: 0, asid: 0, regionStatus: false }
  const result = outcome(rmp.rmpread(pfn, out))
  if (result !== "SUCCESS") return result
  return `SUCCESS ${out.assigned} ${word(out.size)} ${out.immutable} ${out.gfn} ${out.asid} ${out.regionStatus}`
}

const query = (rmp: Rmp, vmpl: number, target: number, t: Omit<Target, "match">): string => {
  const out = { mask: 0, vmsa: false, size: PAGE_4K as PageSize }
  const result = outcome(rmp.rmpquery(t.asid, vmpl, t.gfn, t.pfn, num(t.npt), target, out))
  return result === "SUCCESS" ? `SUCCESS ${out.mask} ${out.vmsa} ${word(out.size)}` : result
}

const expectSame = (rmp: Rmp, reference: ReferenceRmp, pages: ReadonlyArray<number>): void => {
  for (const pfn of pages) {
    if (rmp.stateOf(pfn) !== reference.state(pfn)) expect(rmp.stateOf(pfn)).toBe(reference.state(pfn))
    const entry = rmp.entry(pfn)
    const plain = { ...entry, size: word(entry.size) }
    if (JSON.stringify(plain) !== JSON.stringify(sorted(reference, pfn))) expect(plain).toEqual(reference.at(pfn))
    if (rmp.isInUse(pfn) !== reference.at(pfn).inUse) expect(rmp.isInUse(pfn)).toBe(reference.at(pfn).inUse)
  }
}

const sorted = (reference: ReferenceRmp, pfn: number): unknown => {
  const { assigned, size, immutable, gfn, asid, validated, vmsa, inUse, perms } = reference.at(pfn)
  return { assigned, size, immutable, gfn, asid, validated, vmsa, inUse, perms }
}

/** How often each outcome was seen, by operation: a model test that never gets past the first check proves nothing. */
const seen = new Map<string, number>()

type Step = (rmp: Rmp, reference: ReferenceRmp) => readonly [string, string]

const command = (name: string, detail: unknown, step: Step): fc.Command<ReferenceRmp, Rmp> => ({
  check: () => true,
  run: (reference, rmp) => {
    const [actual, expected] = step(rmp, reference)
    expect(actual).toBe(expected)
    const key = `${name} ${expected.split(" ").slice(0, 3).join(" ")}`
    seen.set(key, (seen.get(key) ?? 0) + 1)
    expectSame(rmp, reference, WATCHED)
  },
  toString: () => `${name}(${JSON.stringify(detail)})`
})

const pfn = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(...pfns, BASE, BASE, BASE + 1, BASE + 512) },
  { weight: 1, arbitrary: fc.constantFrom(...outside) }
)
const size = fc.constantFrom<Size>("4K", "2M")
const gfn = fc.constantFrom(...gfns)
const vmpl = fc.constantFrom(0, 0, 0, 1, 2, 3)
const often = fc.constantFrom(true, true, true, true, false)
const rarely = fc.constantFrom(false, false, false, false, false, true)
const kind = fc.constantFrom<Kind>("read", "write", "fetch", "pt-read", "pt-write")
const target: fc.Arbitrary<Target> = fc.record({
  pfn,
  asid: fc.constantFrom(1, 2),
  gfn: fc.oneof({ weight: 9, arbitrary: gfn }, { weight: 1, arbitrary: fc.constant(-1) }),
  npt: size,
  match: fc.constantFrom(3, 3, 3, 3, 2, 2, 1, 0)
})

/** A page goes to a guest and is validated: the three steps that bring an entry to where the rarer outcomes are. */
const lend = fc.record({ pfn, size, gfn, asid: fc.constantFrom(1, 1, 2) }).map((a) =>
  command("lend", a, (rmp, reference) => {
    const actual = [
      outcome(rmp.rmpupdate(a.pfn, false, num(a.size), false, 0, 0)),
      outcome(rmp.rmpupdate(a.pfn, true, num(a.size), false, a.gfn, a.asid)),
      outcome(rmp.pvalidate(a.asid, 0, a.gfn, a.pfn, num(a.size), num(a.size), true))
    ]
    const expected = [
      reference.rmpupdate(a.pfn, false, a.size, false, 0, 0),
      reference.rmpupdate(a.pfn, true, a.size, false, a.gfn, a.asid),
      reference.pvalidate(a.asid, 0, a.gfn, a.pfn, a.size, a.size, true)
    ]
    return [actual.join(", "), expected.join(", ")]
  })
)

const commands = [
  fc
    .record({ pfn, assigned: often, size, immutable: rarely, gfn, asid: fc.constantFrom(0, 1, 1, 2), remap: rarely })
    .map((a) =>
      command("rmpupdate", a, (rmp, reference) => {
        const old = reference.at(a.pfn)
        const asid = a.assigned ? a.asid : a.remap ? 1 : 0
        // A remap repeats what the entry holds, so that only Immutable may differ.
        const [number, owner] = a.remap && old.assigned ? [old.gfn, old.asid] : [a.gfn, asid]
        const bytes = [a.pfn, a.assigned, a.size, a.immutable, number, owner] as const
        return [
          outcome(rmp.rmpupdate(a.pfn, a.assigned, num(a.size), a.immutable, number, owner)),
          reference.rmpupdate(...bytes)
        ]
      })
    ),
  fc.record({ pfn }).map((a) => command("psmash", a, (rmp, r) => [outcome(rmp.psmash(a.pfn)), r.psmash(a.pfn)])),
  fc.record({ pfn }).map((a) => command("rmpread", a, (rmp, r) => [read(rmp, a.pfn), r.rmpread(a.pfn)])),
  fc.record({ target, vmpl: fc.constantFrom(0, 0, 0, 0, 0, 1), size, validate: often }).map((a) =>
    command("pvalidate", a, (rmp, reference) => {
      const t = aimed(reference, a.target)
      return [
        outcome(rmp.pvalidate(t.asid, a.vmpl, t.gfn, t.pfn, num(t.npt), num(a.size), a.validate)),
        reference.pvalidate(t.asid, a.vmpl, t.gfn, t.pfn, t.npt, a.size, a.validate)
      ]
    })
  ),
  fc
    .record({
      target,
      vmpl,
      size,
      to: fc.constantFrom(0, 1, 1, 2, 2, 3, 3, 4),
      mask: fc.constantFrom(0, 1, 2, 3, 5, 9, 0xf, 0xf, 0xf, 0xf, 0x1f, 0x20, 0x80),
      vmsa: fc.boolean()
    })
    .map((a) =>
      command("rmpadjust", a, (rmp, reference) => {
        const t = aimed(reference, a.target)
        return [
          outcome(rmp.rmpadjust(t.asid, a.vmpl, t.gfn, t.pfn, num(t.npt), num(a.size), a.to, a.mask, a.vmsa)),
          reference.rmpadjust(t.asid, a.vmpl, t.gfn, t.pfn, t.npt, a.size, a.to, a.mask, a.vmsa)
        ]
      })
    ),
  fc.record({ target, vmpl, to: fc.constantFrom(0, 1, 2, 3, 4) }).map((a) =>
    command("rmpquery", a, (rmp, reference) => {
      const t = aimed(reference, a.target)
      return [query(rmp, a.vmpl, a.to, t), reference.rmpquery(t.asid, a.vmpl, t.gfn, t.pfn, t.npt, a.to)]
    })
  ),
  fc.record({ target, vmpl, cpl: fc.constantFrom(0, 3), kind, cbit: often }).map((a) =>
    command("guest", a, (rmp, reference) => {
      const t = aimed(reference, a.target)
      return [
        verdict(rmp.checkGuest(t.asid, a.vmpl, a.cpl, KIND[a.kind], a.cbit, t.gfn, t.pfn, num(t.npt))),
        reference.guest(t.asid, a.vmpl, a.cpl, a.kind, a.cbit, t.gfn, t.pfn, t.npt)
      ]
    })
  ),
  fc
    .record({ pfn, kind, size })
    .map((a) =>
      command("host", a, (rmp, r) => [
        verdict(rmp.checkHost(a.pfn, KIND[a.kind], num(a.size))),
        r.host(a.pfn, a.kind, a.size)
      ])
    ),
  fc.record({ target }).map((a) =>
    command("vmrun", a, (rmp, reference) => {
      const { asid, gfn, pfn } = aimed(reference, a.target)
      const may = reference.vmsaMayRun(asid, gfn, pfn)
      const did = rmp.checkVmrunVmsa(asid, gfn, pfn)
      if (may) {
        reference.use(pfn, true)
        rmp.markInUse(pfn)
      }
      return [String(did), String(may)]
    })
  ),
  fc.record({ pfn }).map((a) =>
    command("use", a, (rmp, reference) => {
      reference.use(a.pfn, true)
      rmp.markInUse(a.pfn)
      return ["", ""]
    })
  ),
  ...[lend, lend, lend],
  fc.record({ pfn }).map((a) =>
    command("vmexit", a, (rmp, reference) => {
      reference.use(a.pfn, false)
      rmp.clearInUse(a.pfn)
      return ["", ""]
    })
  ),
  fc.record({ pfn: fc.constantFrom(...pfns), fix: rarely }).map((a) =>
    command("firmware", a, (rmp, reference) => {
      const old = reference.at(a.pfn)
      // PAGE_RECLAIM makes a page mutable again; PAGE_SET_STATE turns a 4 KiB Firmware page into HV-Fixed.
      const fields = a.fix && old.size === "4K" ? { assigned: false, asid: 0, immutable: true } : { immutable: false }
      if (a.fix && (old.inUse || !old.immutable)) return ["", ""]
      reference.firmware(a.pfn, fields)
      rmp.firmwareSet(a.pfn, fields)
      return ["", ""]
    })
  )
] as ReadonlyArray<fc.Arbitrary<fc.Command<ReferenceRmp, Rmp>>>

const run = (
  commandList: Iterable<fc.Command<ReferenceRmp, Rmp>>,
  switches: Partial<Switches>,
  pagesPer2M = 512
): void => {
  const alternatives = new Set(SWITCH_IDS.filter((id) => switches[id] === "alternative"))
  const real = new Rmp({ pages: PAGES, basePfn: BASE, switches, pagesPer2M })
  const model = new ReferenceRmp(BASE, PAGES, alternatives, pagesPer2M)
  fc.modelRun(() => ({ model, real }), commandList)
  expectSame(
    real,
    model,
    Array.from({ length: PAGES }, (_, page) => BASE + page)
  )
}

const sequences = fc.commands([...commands], { maxCommands: 200, size: "max" })
const choices = fc.record(
  Object.fromEntries(SWITCH_IDS.map((id) => [id, fc.constantFrom("default", "alternative")])) as Record<
    keyof Switches,
    fc.Arbitrary<"default" | "alternative">
  >
)

describe("the RMP against its reference", () => {
  it("agrees on every outcome and entry, with the switches at their defaults", () => {
    seen.clear()
    fc.assert(
      fc.property(sequences, (list) => run(list, {})),
      { seed: 20260801, numRuns: 400 }
    )
    const wanted = ["rmpupdate SUCCESS", "rmpupdate FAIL_INUSE", "rmpupdate FAIL_OVERLAP", "rmpupdate FAIL_PERMISSION"]
    wanted.push("psmash SUCCESS", "psmash FAIL_INUSE", "psmash FAIL_PERMISSION", "psmash FAIL_BADADDR")
    wanted.push("pvalidate SUCCESS", "pvalidate SUCCESS CF", "pvalidate FAIL_INUSE", "pvalidate FAIL_SIZEMISMATCH")
    wanted.push("pvalidate #NPF RMP SIZEM", "pvalidate #GP", "pvalidate #PF", "pvalidate #NPF")
    wanted.push("rmpadjust SUCCESS", "rmpadjust FAIL_INUSE", "rmpadjust #VC", "rmpadjust FAIL_SIZEMISMATCH")
    wanted.push("guest ok", "guest #VC", "guest #NPF RMP VMPL", "guest #NPF RMP", "vmrun true", "host #PF RMP")
    expect(wanted.filter((key) => (seen.get(key) ?? 0) < 5)).toEqual([])
  })

  it("agrees with any choice of the switches", () => {
    fc.assert(
      fc.property(choices, sequences, (switches, list) => run(list, switches)),
      { seed: 20260802, numRuns: 400 }
    )
  })

  it("agrees where a 2 MiB page has four sub-pages", () => {
    fc.assert(
      fc.property(choices, sequences, (switches, list) => run(list, switches, 4)),
      { seed: 20260803, numRuns: 200 }
    )
  })
})
