// @section 7
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  ACCESS,
  PAGE_2M,
  PAGE_4K,
  type PageSize,
  Rmp,
  type RmpEntry,
  RULES,
  SWITCH_IDS,
  type Switches,
  type SwitchId
} from "../src/index.ts"
import { BASE, outcome } from "./support.ts"

// Two regions of four pages: few enough that a table is built anew for every switch.
const PAGES = 8
const PER_2M = 4

interface Stored {
  readonly assigned: boolean
  readonly large: boolean
  readonly immutable: boolean
  readonly gfn: number
  readonly asid: number
  readonly validated: boolean
  readonly vmsa: boolean
  readonly inUse: boolean
  readonly perms: RmpEntry["perms"]
}

const often = fc.constantFrom(true, true, true, false)
const rarely = fc.constantFrom(false, false, false, true)
const mask = fc.constantFrom(0, 1, 2, 3, 5, 9, 0xf, 0x10, 0x1f)

const stored: fc.Arbitrary<Stored> = fc.record({
  assigned: often,
  large: fc.boolean(),
  immutable: fc.constantFrom(false, false, false, false, false, false, true),
  gfn: fc.constantFrom(0, 4, 5, 0xf_ffff_fffc),
  asid: fc.constantFrom(0, 1, 1, 1, 2),
  validated: often,
  vmsa: fc.boolean(),
  inUse: rarely,
  perms: fc.tuple(fc.constantFrom(0xf, 0xf, 0x1f, 2, 5, 9), mask, mask, mask)
})

const BLANK: Stored = {
  assigned: false,
  large: false,
  immutable: false,
  gfn: 0,
  asid: 0,
  validated: false,
  vmsa: false,
  inUse: false,
  perms: [0, 0, 0, 0]
}

/** Regions of any kind of entries, and of unassigned ones: only over these does RMPUPDATE of 2 MiB get far. */
const region = fc
  .tuple(fc.array(stored, { minLength: PER_2M, maxLength: PER_2M }), rarely)
  .map(([pages, bare]) => (bare ? pages.map(({ immutable, inUse }) => ({ ...BLANK, immutable, inUse })) : pages))

const newTable = (switches: Partial<Switches>): Rmp =>
  new Rmp({ pages: PAGES, basePfn: BASE, switches, pagesPer2M: PER_2M })

/** Writes these entries, as firmware could; the inner pages of a 2 MiB page as hardware keeps them. */
const filled = (rmp: Rmp, entries: ReadonlyArray<Stored>): Rmp => {
  for (const [page, entry] of entries.entries()) {
    const isFirst = page % PER_2M === 0
    const first = entries[page - (page % PER_2M)]!
    const isInner = !isFirst && first.large && first.assigned
    const { large, ...fields } = isInner ? { ...BLANK, assigned: true, inUse: entry.inUse } : entry
    rmp.firmwareSet(BASE + page, { ...fields, size: large && isFirst ? PAGE_2M : PAGE_4K })
  }
  return rmp
}

const where = fc.record({
  pfn: fc.oneof(
    { weight: 12, arbitrary: fc.nat(PAGES - 1).map((page) => BASE + page) },
    { weight: 1, arbitrary: fc.constantFrom(-1, BASE - 1, BASE + PAGES) }
  ),
  asid: fc.constantFrom<number>(1, 1, 2),
  vmpl: fc.constantFrom(0, 0, 1, 2),
  gfn: fc.constantFrom<number>(-1, 0, 4, 5, 0xf_ffff_fffc),
  nptSize: fc.constantFrom<PageSize>(PAGE_4K, PAGE_2M),
  size: fc.constantFrom<PageSize>(PAGE_4K, PAGE_2M),
  /** ASID and GFN, or the nested size, are those of the page. */
  match: often,
  matchSize: fc.boolean(),
  target: fc.nat(4),
  mask: fc.constantFrom(0, 1, 3, 0x1f, 0x20),
  kind: fc.constantFrom(...[0, 1, 2, 3, 4, 5].flatMap((kind) => [kind, kind | ACCESS.VMPL_SSS])),
  cpl: fc.nat(3),
  bits: fc.nat(7)
})
type Where = typeof where extends fc.Arbitrary<infer T> ? T : never

const aimed = (rmp: Rmp, w: Where): Where => {
  if (!w.match || w.pfn < BASE) return w
  const first = w.pfn - (w.pfn % PER_2M)
  const { size, assigned } = rmp.entry(first)
  const ruling = assigned && size === PAGE_2M ? first : w.pfn
  const entry = rmp.entry(ruling)
  const nptSize = w.matchSize ? entry.size : w.nptSize
  return { ...w, asid: entry.asid === 0 ? w.asid : entry.asid, gfn: entry.gfn + w.pfn - ruling, nptSize }
}

/** Switches that a rule of this name was seen to read, and does not declare or does. */
const undeclared = new Set<string>()
const declaredAndRead = new Set<string>()

/** Asks one rule alone, as if those before it had been left out, and watches which switches it reads. */
const watch = <Q extends { readonly rmp: Rmp }>({ name, switches = [], refuses }: RULES.Rule<Q>, asked: Q): void => {
  const seen = new Set<SwitchId>()
  const get = (all: Switches, id: SwitchId) => {
    seen.add(id)
    return all[id]
  }
  const switchesSeen = new Proxy(asked.rmp.switches, { get: (all, id) => get(all, id as SwitchId) })
  const rmp: Rmp = Object.create(asked.rmp, { switches: { value: switchesSeen } })
  expect(() => refuses({ ...asked, rmp }), `${name}, asked alone`).not.toThrow()
  for (const id of seen) (switches.includes(id) ? declaredAndRead : undeclared).add(`${name}: ${id}`)
}

interface Operation {
  /** Outcome of the fast code, with what it writes or shows where a note should tell. */
  readonly fast: (rmp: Rmp, w: Where) => string
  /** The rules' answer in the same words, the switches it hangs on, and those that the deciding rule reads. */
  readonly slow: (rmp: Rmp, w: Where) => readonly [string, ReadonlyArray<SwitchId>, ReadonlyArray<SwitchId>]
}

const operation = <Q extends { readonly rmp: Rmp }>(
  rulesOf: (question: Q) => RULES.Rules<Q>,
  question: (rmp: Rmp, w: Where) => Q,
  fast: Operation["fast"]
): Operation => ({
  fast,
  slow: (rmp, w) => {
    const asked = question(rmp, w)
    const rules = rulesOf(asked)
    const decision = RULES.decide(rules, asked)
    for (const rule of rules.checks) watch(rule, asked)
    const note = decision.note === null ? "" : `: ${decision.note}`
    return [outcome(decision.outcome) + note, RULES.switchesOf(rules, asked), decision.switches]
  }
})

const update = ({ asid, bits, gfn, size }: Where) => ({
  assigned: bits > 0,
  immutable: bits > 5,
  size,
  gfn: Math.max(gfn, 0),
  asid: bits > 0 && bits < 5 ? asid : 0
})

const written = ({ validated, vmsa, perms }: RmpEntry): string =>
  `Validated ${Number(validated)}, VMSA ${Number(vmsa)}, masks ${perms.map((one) => `0x${one.toString(16)}`).join(" ")}`

const OPERATIONS: { readonly [name: string]: Operation } = {
  rmpupdate: operation(
    () => RULES.RMPUPDATE,
    (rmp, w) => ({ rmp, pfn: w.pfn, ...update(w) }),
    (rmp, w) => {
      const { assigned, immutable, size, gfn, asid } = update(w)
      const result = outcome(rmp.rmpupdate(w.pfn, assigned, size, immutable, gfn, asid))
      return result === "SUCCESS" ? `SUCCESS: ${written(rmp.entry(w.pfn))}` : result
    }
  ),
  psmash: operation(
    () => RULES.PSMASH,
    (rmp, { pfn }) => ({ rmp, pfn }),
    (rmp, { pfn }) => outcome(rmp.psmash(pfn))
  ),
  rmpread: operation(
    () => RULES.RMPREAD,
    (rmp, { pfn }) => ({ rmp, pfn }),
    (rmp, { pfn }) => {
      const out = { assigned: false, size: PAGE_4K as PageSize, immutable: false, gfn: 0, asid: 0, regionStatus: false }
      const result = outcome(rmp.rmpread(pfn, out))
      return result === "SUCCESS" ? `SUCCESS: region status ${out.regionStatus ? "set" : "not set"}` : result
    }
  ),
  pvalidate: operation(
    () => RULES.PVALIDATE,
    (rmp, w) => ({ rmp, ...w, validate: w.bits > 3 }),
    (rmp, w) => outcome(rmp.pvalidate(w.asid, w.vmpl, w.gfn, w.pfn, w.nptSize, w.size, w.bits > 3))
  ),
  rmpadjust: operation(
    () => RULES.RMPADJUST,
    (rmp, w) => ({ rmp, ...w, targetVmpl: w.target }),
    (rmp, w) => outcome(rmp.rmpadjust(w.asid, w.vmpl, w.gfn, w.pfn, w.nptSize, w.size, w.target, w.mask, w.bits > 3))
  ),
  rmpquery: operation(
    () => RULES.RMPQUERY,
    (rmp, w) => ({ rmp, ...w, targetVmpl: w.target }),
    (rmp, w) => outcome(rmp.rmpquery(w.asid, w.vmpl, w.gfn, w.pfn, w.nptSize, w.target))
  ),
  guest: operation(
    RULES.guestAccessRules,
    (rmp, w) => ({ rmp, ...w, cbit: w.bits > 0 }),
    (rmp, w) => outcome(rmp.checkGuest(w.asid, w.vmpl, w.cpl, w.kind, w.bits > 0, w.gfn, w.pfn, w.nptSize))
  ),
  hostInstruction: operation(
    () => RULES.HOST_INSTRUCTION_BY_GUEST,
    (rmp) => ({ rmp }),
    (rmp) => outcome(rmp.hostInstructionByGuest())
  )
}

const LISTS: ReadonlyArray<RULES.Rules<never>> = [
  RULES.RMPUPDATE,
  RULES.PSMASH,
  RULES.RMPREAD,
  RULES.PVALIDATE,
  RULES.RMPADJUST,
  RULES.RMPQUERY,
  RULES.PRIVATE_ACCESS,
  RULES.SHARED_ACCESS,
  RULES.HOST_INSTRUCTION_BY_GUEST
]

const choices = fc.record(
  Object.fromEntries(SWITCH_IDS.map((id) => [id, fc.constantFrom("default", "alternative")])) as Record<
    SwitchId,
    fc.Arbitrary<"default" | "alternative">
  >
)

const count = (counts: Map<string, number>, key: string): void => {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

describe("the switches of a decision", () => {
  it("are those that, the other way, change what the fast code answers, writes or shows, and no others", () => {
    const hung = new Map<string, number>()
    const readOnly = new Map<string, number>()
    const elsewhere = new Map<string, number>()
    const questions = fc.array(fc.tuple(region, region, fc.constantFrom(...Object.keys(OPERATIONS)), where), {
      minLength: 100,
      maxLength: 100
    })
    fc.assert(
      fc.property(choices, questions, (switches, list) => {
        const table = newTable(switches)
        const others = SWITCH_IDS.map((id) => {
          const other = switches[id] === "default" ? "alternative" : "default"
          return [id, newTable({ ...switches, [id]: other })] as const
        })
        for (const [low, high, name, given] of list) {
          const entries = [...low, ...high]
          const { fast, slow } = OPERATIONS[name]!
          const w = aimed(filled(table, entries), given)
          const [answer, ids, read] = slow(table, w)
          const actual = fast(table, w)
          if (answer !== actual) expect(`${name} ${answer}`).toBe(`${name} ${actual}`)
          const hangs = others.filter(([, other]) => fast(filled(other, entries), w) !== actual).map(([id]) => id)
          if ([...ids].sort().join() !== hangs.sort().join())
            expect([name, answer, ...ids]).toEqual([name, answer, ...hangs])
          for (const id of ids) count(hung, `${name} ${id}`)
          for (const id of ids) if (!read.includes(id)) count(elsewhere, `${name} ${id}`)
          for (const id of read) if (!ids.includes(id)) count(readOnly, `${name} ${id}`)
        }
      }),
      { seed: 20261122, numRuns: 120 }
    )
    expect([...undeclared]).toEqual([])
    const declared = LISTS.flatMap(({ checks }) =>
      checks.flatMap(({ name, switches = [] }) => switches.map((id) => `${name}: ${id}`))
    )
    expect([...declaredAndRead].sort()).toEqual([...new Set(declared)].sort())
    const wanted = ["U1", "U7", "U8", "U17"].map((id) => `rmpupdate ${id}`)
    wanted.push("psmash U4", "rmpread U18", "rmpquery U5", "rmpquery U6", "guest U14", "hostInstruction U12")
    for (const id of ["U3", "U5", "U10", "U15", "U16"]) wanted.push(`pvalidate ${id}`)
    for (const id of ["U2", "U5", "U10", "U13", "U15"]) wanted.push(`rmpadjust ${id}`)
    expect([...hung.keys()].sort()).toEqual(wanted.toSorted())
    expect([...hung].filter(([, times]) => times < 3)).toEqual([])
    // What a list of the deciding rule's switches alone would get wrong, in both ways.
    for (const key of ["rmpupdate U8", "rmpadjust U13", "rmpquery U6", "pvalidate U16"])
      expect(elsewhere.get(key) ?? 0, key).toBeGreaterThan(0)
    for (const key of ["guest U14", "rmpquery U6", "rmpupdate U8"])
      expect(readOnly.get(key) ?? 0, key).toBeGreaterThan(0)
  })
})
