// @section 6
import { ACCESS, FAULT, type GuestAccess, PAGE_2M, PAGE_4K, PERMISSION, RULES } from "@vmpl-lab/rmp"
import type { AccessKind, Action, GuestAccessAction, NestedMapping, PlainAccessAction } from "../trace/Action.ts"
import { pfnOf, type TraceMachine } from "../trace/TraceMachine.ts"
import { GFNS, GUESTS, MAPPINGS, PAGES, UNCOVERED, VMPLS } from "./SmallMachine.ts"

/** A property that does not hold, and the accesses that show it. */
export interface Violation {
  readonly property: string
  readonly witnesses: ReadonlyArray<Action>
}

type AccessAction = GuestAccessAction | PlainAccessAction

const KINDS: ReadonlyArray<AccessKind> = [ACCESS.READ, ACCESS.WRITE, ACCESS.FETCH]
const NEEDS = [PERMISSION.READ, PERMISSION.READ | PERMISSION.WRITE, PERMISSION.EXECUTE_SUPERVISOR] as const

/** What is asked of every state. The names are sentences about software, not about the RMP. */
export const PROPERTIES = {
  translation: "a private access reaches only an entry whose ASID, GPA and size are those of the translation",
  validated: "a guest reaches only GPAs that it has validated",
  onePlace: "a GPA that was validated once is found in one place only",
  oneOwner: "a page is private to one GPA of one guest",
  nobodyElseWrites: "nobody else can write a page that a guest reaches as private",
  granted: "VMPL1 reaches only what VMPL0 has granted it",
  firmware: "a page that the firmware works on stays as it is",
  owned2M: "no page inside a 2 MiB page has an owner of its own",
  validOwner: "a validated page has an owner",
  vmpl0: "VMPL0 has every right to its guest's pages",
  vmpl1ChangesNothing: "what VMPL1 does changes no rights and no validation",
  hostKeepsContents: "the host cannot move or give away a page that stays validated",
  vmsaInUse: "a VMSA page in use is changed by nobody"
} as const

export type PropertyName = keyof typeof PROPERTIES

const violation = (name: PropertyName, ...witnesses: ReadonlyArray<Action>): Violation => ({
  property: PROPERTIES[name],
  witnesses
})

/** Checks of the access table, as an exploration can leave them out. */
export const CHECKS = [
  "Hypervisor-Owned/host",
  "Hypervisor-Owned/non-snp",
  "Hypervisor-Owned/guest",
  "RMP-Covered",
  "Guest-Owned",
  "Reverse-Map",
  "Mutable",
  "Page-Size",
  "Validated",
  "VMPL"
] as const

/** Whether an access passes: by the fast check, or by the rules without some of them. */
export type AccessCheck = (action: AccessAction) => boolean

/** The machine's own check. */
export const fullCheck =
  (machine: TraceMachine): AccessCheck =>
  (action) => {
    const { rmp } = machine
    if (action.by !== "guest") {
      const { by, pfn, kind, size } = action
      return (by === "host" ? rmp.checkHost(pfn, kind, size) : rmp.checkNonSnpGuest(pfn, kind, size)) === FAULT.NONE
    }
    const { asid, vmpl, cpl, kind, cbit, gfn, npt } = action
    return rmp.checkGuest(asid, vmpl, cpl, kind, cbit, gfn, pfnOf(action, rmp), npt?.size ?? 0) === FAULT.NONE
  }

/** The same rules with one left out. A name may be limited to one accessor: `Hypervisor-Owned/host`. */
export const weakenedCheck =
  (machine: TraceMachine, without: (typeof CHECKS)[number]): AccessCheck =>
  (action) => {
    const { rmp } = machine
    const [rule = "", accessor] = without.split("/")
    const off = (by: string): ReadonlySet<string> => new Set(accessor === undefined || accessor === by ? [rule] : [])
    if (action.by !== "guest") {
      const rules = action.by === "host" ? RULES.HOST_ACCESS : RULES.NON_SNP_ACCESS
      return RULES.decide(rules, { ...action, rmp }, off(action.by)).outcome === FAULT.NONE
    }
    const access: GuestAccess = { ...action, rmp, pfn: pfnOf(action, rmp), nptSize: action.npt?.size ?? 0 }
    return RULES.decide(RULES.guestAccessRules(access), access, off("guest")).outcome === FAULT.NONE
  }

const historyBit = (asid: number, gfn: number): number => 1 << ((asid - 1) * 4 + gfn)

const privateAccess = (asid: number, vmpl: number, kind: AccessKind, gfn: number, npt: NestedMapping) =>
  ({ op: "access", by: "guest", kind, asid, vmpl, cpl: 0, cbit: true, gfn, npt }) as const

/** Every private access of every guest, in the order in which they are tried. */
const PRIVATE_ACCESSES = GUESTS.flatMap((asid) =>
  GFNS.flatMap((gfn) =>
    MAPPINGS.flatMap((npt) =>
      VMPLS.flatMap((vmpl) => KINDS.map((kind) => ({ action: privateAccess(asid, vmpl, kind, gfn, npt), kind })))
    )
  )
)

/** Writes that are not a guest's private ones, by the page that they reach. */
const foreignWrites = (pfn: number): ReadonlyArray<AccessAction> => [
  { op: "access", by: "host", kind: ACCESS.WRITE, pfn, size: PAGE_4K },
  { op: "access", by: "non-snp", kind: ACCESS.WRITE, pfn, size: PAGE_4K },
  {
    op: "access",
    by: "guest",
    kind: ACCESS.WRITE,
    asid: 2,
    vmpl: 0,
    cpl: 0,
    cbit: false,
    gfn: 0,
    npt: { pfn, size: PAGE_4K }
  },
  ...(pfn === UNCOVERED
    ? []
    : ([
        { op: "access", by: "host", kind: ACCESS.WRITE, pfn: 0, size: PAGE_2M },
        { op: "access", by: "non-snp", kind: ACCESS.WRITE, pfn: 0, size: PAGE_2M },
        {
          op: "access",
          by: "guest",
          kind: ACCESS.WRITE,
          asid: 2,
          vmpl: 0,
          cpl: 0,
          cbit: false,
          gfn: 0,
          npt: { pfn: 0, size: PAGE_2M }
        }
      ] as const))
]
const FOREIGN_WRITES = [...PAGES, UNCOVERED].map(foreignWrites)

/**
 * What a state allows that it should not; null when all is well. `history` are the GPAs that guests have validated. The
 * property of the translation repeats the checks; it is left out where one of them is, to see what software loses.
 */
export const violationOf = (
  machine: TraceMachine,
  history: number,
  passes: AccessCheck,
  isWeakened: boolean
): Violation | null => {
  const { rmp } = machine
  const large = rmp.entry(0).assigned && rmp.entry(0).size === PAGE_2M
  for (const pfn of PAGES) {
    const { assigned, asid, validated, perms } = rmp.entry(pfn)
    if (large && pfn !== 0 && asid !== 0) return violation("owned2M")
    if (validated && (!assigned || asid === 0)) return violation("validOwner")
    if (asid !== 0 && perms[0] !== PERMISSION.ALL) return violation("vmpl0")
  }
  /** First access by which a page was reached, by page, and by guest and GPA. */
  const byPage: Array<GuestAccessAction | undefined> = []
  const byGpa: Array<GuestAccessAction | undefined> = []
  for (const { action, kind } of PRIVATE_ACCESSES) {
    if (!passes(action)) continue
    const { asid, gfn, vmpl, npt } = action
    const pfn = pfnOf(action, rmp)
    const ruling = large ? 0 : pfn
    const entry = rmp.entry(ruling)
    if ((history & historyBit(asid, gfn)) === 0) return violation("validated", action)
    if (vmpl === 1 && (entry.perms[1]! & NEEDS[kind as 0 | 1 | 2]) !== NEEDS[kind as 0 | 1 | 2])
      return violation("granted", action)
    if (kind === ACCESS.WRITE && entry.immutable) return violation("firmware", action)
    const place = asid * 4 + gfn
    const before = byGpa[place]
    if (before !== undefined && pfnOf(before, rmp) !== pfn) return violation("onePlace", before, action)
    byGpa[place] ??= action
    const other = byPage[pfn]
    if (other !== undefined && (other.asid !== asid || other.gfn !== gfn)) return violation("oneOwner", other, action)
    if (other === undefined) {
      byPage[pfn] = action
      const write = FOREIGN_WRITES[pfn]!.find(passes)
      if (write !== undefined) return violation("nobodyElseWrites", write, action)
    }
    if (isWeakened) continue
    if (entry.asid !== asid || entry.gfn !== gfn - (pfn - ruling) || entry.size !== npt.size)
      return violation("translation", action)
  }
  return null
}
