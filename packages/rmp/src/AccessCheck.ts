// @section 3.1, 3.2
import { FAULT, NPF_RMP, PF_RMP } from "./Fault.ts"
import { PAGE_2M } from "./PageSize.ts"
import { ACCESS, ACCESS_KIND_MASK } from "./Permission.ts"
import {
  ASID_SHIFT,
  ASSIGNED,
  GFN_HIGH_SHIFT,
  GFN_LOW,
  headRowOf,
  IMMUTABLE,
  IN_USE,
  indexOf,
  LARGE,
  MASKS,
  OWNER,
  type RmpTable,
  regionOf,
  rowOf,
  VALIDATED
} from "./RmpTable.ts"

// An imported name is loaded at each use and never folded into the code: `checkGuest` takes half the time with copies.
const READ = ACCESS.READ
const WRITE = ACCESS.WRITE
const SHADOW_STACK = ACCESS.SHADOW_STACK
const KIND = ACCESS_KIND_MASK
const NPF = NPF_RMP
const NOT_VALIDATED = FAULT.VC_NOT_VALIDATED
/** Page_Size in the flags word. */
const SIZE_SHIFT = 1
const MASK_WORD = MASKS
const GFN_WORD = GFN_LOW
const VALID = VALIDATED
const OWNERSHIP = ASSIGNED | LARGE | IMMUTABLE | OWNER
const OWNER_SHIFT = ASID_SHIFT
const HIGH_SHIFT = GFN_HIGH_SHIFT
const TWO_MINUS_32 = 2 ** -32
const OWNED = ASSIGNED

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

const isFalseFault = (table: RmpTable, pfn: number, size: number): boolean => {
  const index = indexOf(table, pfn)
  return size === PAGE_2M && index >= 0 && (table.words[headRowOf(table, index)]! & IN_USE) !== 0
}

/** Data reads and fetches that are not made with the guest's key are never checked. */
const isUnchecked = (kind: number): boolean => kind === ACCESS.READ || kind === ACCESS.FETCH

/**
 * The checks on every memory access. They are methods, since a call handed through makes `checkGuest` a third slower.
 * @spec APM2 15.36.10
 */
export class AccessCheck {
  protected readonly table: RmpTable

  constructor(table: RmpTable) {
    this.table = table
  }

  /**
   * Whether the processor has the erratum: a host store through a 2 MiB mapping faults when a VMCB, VMSA or AVIC backing
   * page in use lies at the 2 MiB boundary, though the store is allowed. Linux never places those pages there.
   * @spec Linux snp_safe_alloc_page
   */
  setFalseFaults(on: boolean): void {
    this.table.hasFalseFaults = on
  }

  get hasFalseFaults(): boolean {
    return this.table.hasFalseFaults
  }

  /** Host access of `size`: FAULT.NONE, or #PF with the RMP bit. */
  checkHost(pfn: number, kind: number, size: number): number {
    if (isUnchecked(kind & ACCESS_KIND_MASK)) return FAULT.NONE
    if (this.table.hasFalseFaults && isFalseFault(this.table, pfn, size)) return PF_RMP
    return isHypervisorOwned(this.table, pfn, size) ? FAULT.NONE : PF_RMP
  }

  /** Access by a guest without SNP, mapped with `size`: FAULT.NONE, or NPF with the RMP bit. */
  checkNonSnpGuest(pfn: number, kind: number, size: number): number {
    return isUnchecked(kind & ACCESS_KIND_MASK) || isHypervisorOwned(this.table, pfn, size) ? FAULT.NONE : NPF_RMP
  }

  /**
   * Access by an SNP guest, after its own and the nested page tables have let it pass: FAULT.NONE or a fault. Fetches and
   * page-table accesses count as private whatever `cbit` says. `nptSize` is the size of the nested mapping.
   *
   * Covered, Guest-Owned, Reverse-Map, Mutable and Page-Size fail alike. Hence one row is read: that of the page itself
   * under a 4 KiB mapping, where the inner pages of a 2 MiB page fail by their ASID 0, else that of the region's first page.
   */
  checkGuest(
    asid: number,
    vmpl: number,
    cpl: number,
    kind: number,
    cbit: boolean,
    gfn: number,
    pfn: number,
    nptSize: number
  ): number {
    const table = this.table
    if (pfn < 0) return FAULT.NPF
    const access = kind & KIND
    if (!cbit && (access === READ || access === WRITE || access === SHADOW_STACK))
      return this.checkNonSnpGuest(pfn, access, nptSize)

    const index = pfn - table.basePfn
    if (index < 0 || index >= table.pages) return NPF
    const region = index >>> table.regionShift
    // A 2 MiB mapping (1) is checked against the region's first row and frame, a 4 KiB one (0) against its own: without
    // branches, as both masks are all ones or zero.
    const first = gfn - (index & table.pageMask & -nptSize)
    if (first < 0) return NPF
    const row = table.rowOfRegion[region]! + ((index & table.rowMaskOfRegion[region]! & (nptSize - 1)) << 2)
    const { words } = table
    const flags = words[row]!
    // Frame numbers have 40 bits; `| 0` takes the low word of one, and of its quotient the high one.
    const owner = (asid << OWNER_SHIFT) | (((first * TWO_MINUS_32) | 0) << HIGH_SHIFT) | OWNED | (nptSize << SIZE_SHIFT)
    if (words[row + GFN_WORD] !== (first | 0) || (flags & OWNERSHIP) !== owner) return NPF
    if ((flags & VALID) === 0) return NOT_VALIDATED
    const mask = (words[row + MASK_WORD]! >>> (vmpl << 3)) & 0xff
    return table.verdicts[(kind << 9) | (cpl === 3 ? 0x100 : 0) | mask]!
  }
}
