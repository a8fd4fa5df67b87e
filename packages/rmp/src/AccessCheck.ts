import { FAULT, NPF_RMP, NPF_VMPL, PF_RMP } from "./Fault.ts"
import { PAGE_2M } from "./PageSize.ts"
import { ACCESS, ACCESS_KIND_MASK, PERMISSION } from "./Permission.ts"
import {
  ASSIGNED,
  GFN_LOW,
  IMMUTABLE,
  indexOf,
  LARGE,
  MASKS,
  OWNER,
  ownerBits,
  type RmpTable,
  regionOf,
  rowOf,
  VALIDATED
} from "./RmpTable.ts"

// An imported name is loaded at each use and never folded into the code: `checkGuest` takes half the time with copies.
const READ = ACCESS.READ
const WRITE = ACCESS.WRITE
const FETCH = ACCESS.FETCH
const PAGE_TABLE_READ = ACCESS.PAGE_TABLE_READ
const SHADOW_STACK = ACCESS.SHADOW_STACK
const VMPL_SSS = ACCESS.VMPL_SSS
const KIND = ACCESS_KIND_MASK
const MAY_READ = PERMISSION.READ
const MAY_WRITE = PERMISSION.WRITE
const MAY_READ_WRITE = PERMISSION.READ | PERMISSION.WRITE
const MAY_EXECUTE_USER = PERMISSION.EXECUTE_USER
const MAY_EXECUTE_SUPERVISOR = PERMISSION.EXECUTE_SUPERVISOR
const MAY_SHADOW_STACK = PERMISSION.SHADOW_STACK
const PASS = FAULT.NONE
const NPF = NPF_RMP
const NOT_VALIDATED = FAULT.VC_NOT_VALIDATED
const NESTED_2M = PAGE_2M
const MASK_WORD = MASKS
const GFN_WORD = GFN_LOW
const VALID = VALIDATED
const OWNERSHIP = ASSIGNED | LARGE | IMMUTABLE | OWNER
const OWNED = ASSIGNED
const OWNED_2M = ASSIGNED | LARGE

const PAGES_PER_1G = 0x4_0000

/**
 * Hypervisor-Owned: not covered, or no page of the access assigned. Where RMPOPT has found a GiB without guest pages
 * the entries are not looked at.
 * @spec APM2 15.36.10 table 15-39
 */
export const isHypervisorOwned = (table: RmpTable, pfn: number, size: number): boolean => {
  const index = indexOf(table, pfn)
  if (index < 0 || table.optimised[Math.floor(index / PAGES_PER_1G)] === 1) return true
  return size === PAGE_2M
    ? table.assignedIn[regionOf(table, index)] === 0
    : (table.words[rowOf(table, index)]! & ASSIGNED) === 0
}

/** Data reads and fetches that are not made with the guest's key are never checked. */
const isUnchecked = (kind: number): boolean => kind === ACCESS.READ || kind === ACCESS.FETCH

/** Host access of `size`: FAULT.NONE, or #PF with the RMP bit. @spec APM2 15.36.10 */
export const checkHost = (table: RmpTable, pfn: number, kind: number, size: number): number =>
  isUnchecked(kind & ACCESS_KIND_MASK) || isHypervisorOwned(table, pfn, size) ? FAULT.NONE : PF_RMP

/** Access by a guest without SNP, mapped with `size`: FAULT.NONE, or NPF with the RMP bit. @spec APM2 15.36.10 */
export const checkNonSnpGuest = (table: RmpTable, pfn: number, kind: number, size: number): number =>
  isUnchecked(kind & ACCESS_KIND_MASK) || isHypervisorOwned(table, pfn, size) ? FAULT.NONE : NPF_RMP

/**
 * Whether a VMPL's mask allows an access.
 * @spec APM2 15.36.7 table 15-36
 * @spec-silent U14: Write without Read is an illegal setting, under which no write passes
 */
const isPermitted = (table: RmpTable, mask: number, kind: number, cpl: number): boolean => {
  switch (kind & KIND) {
    case READ:
      if ((mask & MAY_READ) !== 0) return true
      return (mask & MAY_WRITE) !== 0 && table.switches.U14 === "alternative"
    case PAGE_TABLE_READ:
      return (mask & MAY_READ) !== 0
    case FETCH:
      return (mask & (cpl === 3 ? MAY_EXECUTE_USER : MAY_EXECUTE_SUPERVISOR)) !== 0
    case SHADOW_STACK:
      if ((kind & VMPL_SSS) !== 0) return (mask & MAY_SHADOW_STACK) !== 0
  }
  return (mask & MAY_READ_WRITE) === MAY_READ_WRITE
}

/**
 * Access by an SNP guest, after its own and the nested page tables have let it pass: FAULT.NONE or a fault. Fetches and
 * page-table accesses count as private whatever `cbit` says. `nptSize` is the size of the nested mapping.
 *
 * Covered, Guest-Owned, Reverse-Map, Mutable and Page-Size fail alike. Hence one row is read: that of the page itself
 * under a 4 KiB mapping, where the inner pages of a 2 MiB page fail by their ASID 0, else that of the region's first page.
 * @spec APM2 15.36.10
 */
export const checkGuest = (
  table: RmpTable,
  asid: number,
  vmpl: number,
  cpl: number,
  kind: number,
  cbit: boolean,
  gfn: number,
  pfn: number,
  nptSize: number
): number => {
  if (pfn < 0) return FAULT.NPF
  const access = kind & KIND
  if (!cbit && (access === READ || access === WRITE || access === SHADOW_STACK))
    return checkNonSnpGuest(table, pfn, access, nptSize)

  const index = pfn - table.basePfn
  if (index < 0 || index >= table.pages) return NPF
  const words = table.words
  let row = table.rowOfRegion[index >>> table.regionShift]!
  const page = index & table.pageMask
  let flags: number
  let low: number
  let owned: number
  if (nptSize === NESTED_2M) {
    if (row < 0) return NPF
    flags = words[row]!
    low = gfn - page
    owned = OWNED_2M
  } else {
    // In a compact region only the first page can be owned as 4 KiB.
    if (row < table.firstBlock) {
      if (row < 0 || page !== 0) return NPF
    } else row += page << 2
    flags = words[row]!
    low = gfn
    owned = OWNED
  }
  if (low < 0 || words[row + GFN_WORD] !== (low | 0)) return NPF
  if ((flags & OWNERSHIP) !== (ownerBits(asid, low) | owned)) return NPF
  if ((flags & VALID) === 0) return NOT_VALIDATED
  const mask = (words[row + MASK_WORD]! >>> (vmpl << 3)) & 0xff
  if (isPermitted(table, mask, kind, cpl)) return PASS
  return (kind & VMPL_SSS) !== 0 && (mask & MAY_SHADOW_STACK) !== 0 ? NPF_VMPL | FAULT.SSS : NPF_VMPL
}
