// @section 1.1
import { PAGE_2M, type PageSize } from "./PageSize.ts"
import {
  ASSIGNED,
  asidOf,
  expand,
  gfnOf,
  headRowOf,
  IMMUTABLE,
  IN_USE,
  indexOf,
  isLarge,
  LARGE,
  MASKS,
  type RmpTable,
  regionOf,
  rowOf,
  VALIDATED,
  VMSA,
  writeEntry
} from "./RmpTable.ts"

/** Fields of an entry as stored, for traces and firmware; `perms` holds the mask of VMPL0 first. @spec APM2 table 15-34 */
export interface RmpEntry {
  readonly assigned: boolean
  readonly size: PageSize
  readonly immutable: boolean
  /** Guest_Physical_Address in 4 KiB frames. */
  readonly gfn: number
  readonly asid: number
  readonly validated: boolean
  readonly vmsa: boolean
  /** VMRUN is using the page; no field of AMD's table. */
  readonly inUse: boolean
  readonly perms: readonly [number, number, number, number]
}

const UNASSIGNED: RmpEntry = {
  assigned: false,
  size: 0,
  immutable: false,
  gfn: 0,
  asid: 0,
  validated: false,
  vmsa: false,
  inUse: false,
  perms: [0, 0, 0, 0]
}

/** The stored entry; a page that is not covered counts as unassigned. */
export const readEntry = (table: RmpTable, pfn: number): RmpEntry => {
  const index = indexOf(table, pfn)
  if (index < 0) return UNASSIGNED
  const row = rowOf(table, index)
  const flags = table.words[row]!
  const masks = table.words[row + MASKS]!
  return {
    assigned: (flags & ASSIGNED) !== 0,
    size: (flags & LARGE) === 0 ? 0 : 1,
    immutable: (flags & IMMUTABLE) !== 0,
    gfn: gfnOf(table, row),
    asid: asidOf(table, row),
    validated: (flags & VALIDATED) !== 0,
    vmsa: (flags & VMSA) !== 0,
    inUse: (flags & IN_USE) !== 0,
    perms: [masks & 0xff, (masks >>> 8) & 0xff, (masks >>> 16) & 0xff, masks >>> 24]
  }
}

/** Assigned pages of a page's region beside the first; those inside a 2 MiB page do not count. */
export const subpageCount = (table: RmpTable, pfn: number): number => {
  const index = indexOf(table, pfn)
  if (index < 0) return 0
  const head = headRowOf(table, index)
  return isLarge(table, head) ? 0 : table.assignedIn[regionOf(table, index)]! - (table.words[head]! & ASSIGNED)
}

/**
 * The AMD-SP writes the given fields of one stored entry, Immutable or not. Of a 2 MiB page it writes the first entry
 * only: a command that makes one (PAGE_UNSMASH) writes the other 511 as Assigned=1 with zeros itself.
 * @spec SNP-ABI "Page States"
 */
export const firmwareSet = (table: RmpTable, pfn: number, fields: Partial<RmpEntry>): void => {
  const index = indexOf(table, pfn)
  if (index < 0) throw new RangeError(`page frame 0x${pfn.toString(16)} is not covered by the RMP`)
  const entry = { ...readEntry(table, pfn), ...fields }
  if (entry.size === PAGE_2M && pfn % table.pagesPer2M !== 0)
    throw new RangeError(`page frame 0x${pfn.toString(16)} cannot be a 2 MiB page`)
  const flags =
    (entry.assigned ? ASSIGNED : 0) |
    (entry.size === PAGE_2M ? LARGE : 0) |
    (entry.immutable ? IMMUTABLE : 0) |
    (entry.validated ? VALIDATED : 0) |
    (entry.vmsa ? VMSA : 0) |
    (entry.inUse ? IN_USE : 0)
  const [vmpl0, vmpl1, vmpl2, vmpl3] = entry.perms
  const masks = vmpl0 | (vmpl1 << 8) | (vmpl2 << 16) | (vmpl3 << 24)
  writeStored(table, index, flags, entry.asid, entry.gfn, masks)
}

/** Writes one stored entry alone: what the other pages of its region store stays. */
const writeStored = (table: RmpTable, index: number, flags: number, asid: number, gfn: number, masks: number): void => {
  // In a compact region it is the first entry's being a 2 MiB one that says what the others store.
  const large = (flags & (ASSIGNED | LARGE)) === (ASSIGNED | LARGE)
  if ((index & table.pageMask) === 0 && large !== isLarge(table, headRowOf(table, index))) expand(table, index)
  writeEntry(table, index, flags, asid, gfn, masks)
}
