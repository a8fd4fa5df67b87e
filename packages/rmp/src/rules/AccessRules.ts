// @section 3.1, 3.2
import { FAULT, NPF_RMP, NPF_VMPL, PF_RMP } from "../Fault.ts"
import { PAGE_2M, type PageSize } from "../PageSize.ts"
import { ACCESS, ACCESS_KIND_MASK, PERMISSION } from "../Permission.ts"
import type { Rmp } from "../Rmp.ts"
import type { Rule, Rules } from "./Rule.ts"
import { headView, regionOf, regionStart, rulingView, type View } from "./View.ts"

/** An access by the host or a non-SNP guest; `kind` is one of ACCESS, `size` that of the mapping. */
export interface PlainAccess {
  readonly rmp: Rmp
  readonly kind: number
  readonly pfn: number
  readonly size: PageSize
}

/** An access by an SNP guest that its own and the nested page tables have let pass; pfn -1 where the latter do not map. */
export interface GuestAccess {
  readonly rmp: Rmp
  readonly asid: number
  readonly vmpl: number
  readonly cpl: number
  /** One of ACCESS, plus ACCESS.VMPL_SSS. */
  readonly kind: number
  readonly cbit: boolean
  readonly gfn: number
  readonly pfn: number
  readonly nptSize: PageSize
}

const CHECKS = "APM2 15.36.10 table 15-39"
const ACCESSES = "APM2 15.36.10"

const isHypervisorOwned = (rmp: Rmp, pfn: number, size: PageSize): boolean =>
  size === PAGE_2M ? regionOf(rmp, pfn).every((page) => !rmp.entry(page).assigned) : !rmp.entry(pfn).assigned

const isRead = (kind: number): boolean => {
  const access = kind & ACCESS_KIND_MASK
  return access === ACCESS.READ || access === ACCESS.FETCH
}

const hypervisorOwned = (fault: number): Rule<PlainAccess> => ({
  name: "Hypervisor-Owned",
  source: CHECKS,
  refuses: ({ rmp, kind, pfn, size }) => (isRead(kind) || isHypervisorOwned(rmp, pfn, size) ? null : fault)
})

const pass = (name: string) => ({ name, source: ACCESSES, outcome: () => FAULT.NONE })

/** Host: writes and page-table accesses need a hypervisor-owned page, reads and fetches nothing. */
export const HOST_ACCESS: Rules<PlainAccess> = {
  checks: [
    {
      name: "erratum: false fault",
      source: "Linux snp_safe_alloc_page",
      refuses: ({ rmp, kind, pfn, size }) =>
        rmp.hasFalseFaults && !isRead(kind) && size === PAGE_2M && rmp.isInUse(regionStart(rmp, pfn)) ? PF_RMP : null
    },
    hypervisorOwned(PF_RMP)
  ],
  success: pass("no check refuses")
}

/** A guest without SNP, as the host; the fault is an NPF. */
export const NON_SNP_ACCESS: Rules<PlainAccess> = {
  checks: [hypervisorOwned(NPF_RMP)],
  success: pass("no check refuses")
}

/**
 * The entry that decides on a private access: under a 2 MiB mapping that of the region's first page. Null where the page
 * is not covered: past the end of the RMP lie bytes that the hypervisor chooses, so no later check would refuse.
 */
const viewOf = ({ rmp, pfn, nptSize }: GuestAccess): View | null => {
  if (!rmp.isCovered(pfn)) return null
  return nptSize === PAGE_2M ? headView(rmp, pfn) : rulingView(rmp, pfn)
}

const onEntry =
  (fails: (view: View, access: GuestAccess) => boolean, fault: number) =>
  (access: GuestAccess): number | null => {
    const view = viewOf(access)
    return view !== null && fails(view, access) ? fault : null
  }

const neededAt = (kind: number, cpl: number): number => {
  switch (kind & ACCESS_KIND_MASK) {
    case ACCESS.READ:
    case ACCESS.PAGE_TABLE_READ:
      return PERMISSION.READ
    case ACCESS.FETCH:
      return cpl === 3 ? PERMISSION.EXECUTE_USER : PERMISSION.EXECUTE_SUPERVISOR
    case ACCESS.SHADOW_STACK:
      return (kind & ACCESS.VMPL_SSS) !== 0 ? PERMISSION.SHADOW_STACK : PERMISSION.READ | PERMISSION.WRITE
    default:
      return PERMISSION.READ | PERMISSION.WRITE
  }
}

/** Write without Read lets no write pass; whether a read passes is U14. */
const isPermitted = (mask: number, { rmp, kind, cpl }: GuestAccess): boolean => {
  const needed = neededAt(kind, cpl)
  if ((mask & needed) === needed) return true
  const writeOnly = (mask & PERMISSION.WRITE) !== 0
  return (kind & ACCESS_KIND_MASK) === ACCESS.READ && writeOnly && rmp.switches.U14 === "alternative"
}

const vmplFault = (view: View, { kind, vmpl }: GuestAccess): number =>
  (kind & ACCESS.VMPL_SSS) !== 0 && (view.entry.perms[vmpl]! & PERMISSION.SHADOW_STACK) !== 0
    ? NPF_VMPL | FAULT.SSS
    : NPF_VMPL

const unmapped: Rule<GuestAccess> = {
  name: "nested translation",
  source: ACCESSES,
  refuses: ({ pfn }) => (pfn < 0 ? FAULT.NPF : null)
}

/** Fetches, page-table accesses and data with the C-bit: the access table's list, in its order. */
export const PRIVATE_ACCESS: Rules<GuestAccess> = {
  checks: [
    unmapped,
    {
      name: "RMP-Covered",
      source: CHECKS,
      refuses: ({ rmp, pfn }) => (rmp.isCovered(pfn) ? null : NPF_RMP)
    },
    {
      name: "Guest-Owned",
      source: CHECKS,
      refuses: onEntry(({ entry }, { asid }) => !entry.assigned || entry.asid !== asid, NPF_RMP)
    },
    {
      name: "Reverse-Map",
      source: CHECKS,
      refuses: onEntry(({ entry, offset }, { gfn }) => entry.gfn !== gfn - offset, NPF_RMP)
    },
    { name: "Mutable", source: CHECKS, refuses: onEntry(({ entry }) => entry.immutable, NPF_RMP) },
    {
      name: "Page-Size",
      source: CHECKS,
      refuses: onEntry(({ entry }, { nptSize }) => entry.size !== nptSize, NPF_RMP)
    },
    { name: "Validated", source: CHECKS, refuses: onEntry(({ entry }) => !entry.validated, FAULT.VC_NOT_VALIDATED) },
    {
      name: "VMPL",
      source: "APM2 15.36.7 table 15-36",
      switches: ["U14"],
      refuses: (access) => {
        const view = viewOf(access)
        return view === null || isPermitted(view.entry.perms[access.vmpl]!, access) ? null : vmplFault(view, access)
      }
    }
  ],
  success: pass("all checks of a private access pass")
}

/** Data without the C-bit: as a guest without SNP. */
export const SHARED_ACCESS: Rules<GuestAccess> = {
  checks: [
    unmapped,
    {
      name: "Hypervisor-Owned",
      source: CHECKS,
      refuses: ({ rmp, kind, pfn, nptSize }) => (isRead(kind) || isHypervisorOwned(rmp, pfn, nptSize) ? null : NPF_RMP)
    }
  ],
  success: pass("no check refuses a shared access")
}

/** Which list holds for an SNP guest's access: fetches and page-table accesses are private whatever the C-bit says. */
export const guestAccessRules = ({ kind, cbit }: GuestAccess): Rules<GuestAccess> => {
  const access = kind & ACCESS_KIND_MASK
  const isData = access === ACCESS.READ || access === ACCESS.WRITE || access === ACCESS.SHADOW_STACK
  return isData && !cbit ? SHARED_ACCESS : PRIVATE_ACCESS
}
