import { PAGE_2M, PAGE_4K, type PageSize, PERMISSION, resolveSwitches } from "@vmpl-lab/rmp"
import type { Action, NestedMapping, TraceConfig } from "../trace/Action.ts"

/** Two guests, two VMPLs, one 2 MiB region of four pages: small enough that every state can be visited. */
export const SMALL_MACHINE: TraceConfig = {
  pages: 4,
  basePfn: 0,
  vmpls: 2,
  switches: resolveSwitches(),
  pagesPer2M: 4
}

export const PAGES = [0, 1, 2, 3] as const
/** A page that the RMP does not cover. */
export const UNCOVERED = 4
export const GUESTS = [1, 2] as const
export const VMPLS = [0, 1] as const
export const GFNS = [0, 1, 2, 3] as const

/**
 * Where the hypervisor lets a 4 KiB page of a guest appear. Two pages may be anyone's, two are the first guest's, which
 * can have all four as a 2 MiB page too: more would take more states to visit, but show no attack that is not here.
 */
const OWNERS: ReadonlyArray<
  ReadonlyArray<{ readonly asid: number; readonly gfn: number; readonly immutable: boolean }>
> = PAGES.map((pfn) =>
  pfn < 2
    ? [false, true].flatMap((immutable) => [
        { asid: 1, gfn: 0, immutable },
        { asid: 1, gfn: 1, immutable },
        { asid: 2, gfn: 0, immutable }
      ])
    : [
        { asid: 1, gfn: 0, immutable: false },
        { asid: 1, gfn: pfn, immutable: true }
      ]
)

/** Nested mappings that the hypervisor may choose for a guest frame, one that leaves the RMP among them. */
export const MAPPINGS: ReadonlyArray<NestedMapping> = [
  ...PAGES.map((pfn): NestedMapping => ({ pfn, size: PAGE_4K })),
  { pfn: 0, size: PAGE_2M },
  { pfn: UNCOVERED, size: PAGE_4K }
]

const INSIDE = MAPPINGS.filter(({ pfn }) => pfn !== UNCOVERED)

const update = (pfn: number, size: PageSize, owner?: { asid: number; gfn: number; immutable: boolean }): Action => ({
  op: "rmpupdate",
  pfn,
  assigned: owner !== undefined,
  size,
  ...(owner ?? { immutable: false, gfn: 0, asid: 0 })
})

/** RMPUPDATE, PSMASH, VMRUN and firmware commands that an adversarial host may issue at any time. */
const hostActions: ReadonlyArray<Action> = [
  ...PAGES.flatMap(
    (pfn): ReadonlyArray<Action> => [
      ...OWNERS[pfn]!.map((owner) => update(pfn, PAGE_4K, owner)),
      update(pfn, PAGE_4K),
      { op: "firmware", command: "PAGE_RECLAIM", pfn },
      { op: "vmrun", asid: 1, gfn: 0, pfn, snp: true },
      { op: "vmexit", pfn }
    ]
  ),
  update(0, PAGE_2M, { asid: 1, gfn: 0, immutable: false }),
  update(0, PAGE_2M, { asid: 1, gfn: 0, immutable: true }),
  update(0, PAGE_2M),
  { op: "psmash", pfn: 0 },
  { op: "firmware", command: "PAGE_UNSMASH", pfn: 0 }
]

/** What the guests' software at VMPL0 does, with whatever mapping the hypervisor chose. */
const guestActions: ReadonlyArray<Action> = GUESTS.flatMap((asid) =>
  GFNS.flatMap((gfn) =>
    INSIDE.flatMap((npt): ReadonlyArray<Action> => {
      const at = { asid, vmpl: 0, gfn, npt }
      const sizes: ReadonlyArray<PageSize> = gfn === 0 ? [PAGE_4K, PAGE_2M] : [PAGE_4K]
      return sizes.flatMap(
        (size): ReadonlyArray<Action> => [
          { op: "pvalidate", ...at, size, validate: true },
          { op: "rmpadjust", ...at, size, targetVmpl: 1, mask: PERMISSION.ALL, vmsa: false },
          { op: "rmpadjust", ...at, size, targetVmpl: 1, mask: 0, vmsa: asid === 1 }
        ]
      )
    })
  )
)

/** What VMPL1 may try: none of it must change anything. */
const lowerActions: ReadonlyArray<Action> = GUESTS.flatMap((asid) =>
  INSIDE.flatMap((npt): ReadonlyArray<Action> => {
    const at = { asid, vmpl: 1, gfn: 0, npt }
    return [
      { op: "pvalidate", ...at, size: npt.size, validate: true },
      ...VMPLS.map(
        (targetVmpl): Action => ({
          op: "rmpadjust",
          ...at,
          size: npt.size,
          targetVmpl,
          mask: PERMISSION.ALL,
          vmsa: true
        })
      )
    ]
  })
)

/** Everything that can happen, in a fixed order: numbers of states and shortest paths depend on it. */
export const ACTIONS: ReadonlyArray<Action> = [...hostActions, ...guestActions, ...lowerActions]
