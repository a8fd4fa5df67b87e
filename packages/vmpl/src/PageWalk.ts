import { ACCESS } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { hasVirtualTom } from "./EffectiveCbit.ts"
import { translateNested, WALK } from "./NestedAccess.ts"
import type { Processor } from "./Processor.ts"

/** Bits of a page-table entry, low half. @spec APM2 5.4 */
const PTE = { PRESENT: 1, WRITE: 2, USER: 4, ACCESSED: 0x20, DIRTY: 0x40, LARGE: 0x80 } as const
/** And high half: the C-bit at 51 (CPUID 8000_001F EBX[5:0]) and No-Execute. */
const PTE_HI = { CBIT: 1 << 19, NX: 0x8000_0000 } as const
/** Address bits 51:32 in the high half, the C-bit left out. */
const ADDRESS_HI = 0x7_ffff

/** Error code of #PF. @spec APM2 8.2.15 */
export const PF_ERROR = { P: 1, W: 2, U: 4, RSVD: 8, ID: 0x10 } as const

const LEVELS = 4
const TWO_32 = 0x1_0000_0000
/** Addresses of the lower half: the upper half is no exact number here. */
const LINEAR_END = 2 ** 47

/** Result of a walk that did not reach a page: a nested fault or #VC (see translateFailure), or #PF. */
export const WALK_FAILED = -1
export const WALK_PAGE_FAULT = -2

/** What the latest walk found: the C-bit of the leaf, and the error code of its #PF. */
export const walked = { cbit: true, errorCode: 0 }

/** Page-aligned address in CR3 or an entry, without the C-bit. */
const addressOf = (lo: number, hi: number): number => (hi & ADDRESS_HI) * TWO_32 + ((lo & ~0xfff) >>> 0)

/** Size in bytes of what an entry of a level maps: 4 KiB at level 1, 512 times more at each above. */
const spanOf = (level: number): number => PAGE_SIZE * 512 ** (level - 1)

const pageFault = (kind: number, cpl: number, present: boolean, reserved: boolean): number => {
  const writes = kind === ACCESS.WRITE || kind === ACCESS.SHADOW_STACK
  walked.errorCode =
    (present ? PF_ERROR.P : 0) |
    (writes ? PF_ERROR.W : 0) |
    (cpl === 3 ? PF_ERROR.U : 0) |
    (reserved ? PF_ERROR.RSVD : 0) |
    (kind === ACCESS.FETCH ? PF_ERROR.ID : 0)
  return WALK_PAGE_FAULT
}

/**
 * Walks the guest's own page tables from CR3: 4 levels, leaves of 4 KiB, 2 MiB and 1 GiB. Each entry is read through
 * nested translation and RMP as a private page-table read; Accessed and Dirty are set by private page-table writes.
 * Limitations: SMEP, SMAP, protection keys and shadow-stack pages are not looked at; CR0.WP counts as set; addresses
 * are those of the lower half.
 * @returns the GPA, WALK_FAILED or WALK_PAGE_FAULT
 * @spec APM2 5.3, 15.36.10
 */
export const walk = (cpu: Processor, linear: number, kind: number, cpl: number): number => {
  if (linear < 0 || linear >= LINEAR_END) return pageFault(kind, cpl, false, false)
  const writes = kind === ACCESS.WRITE || kind === ACCESS.SHADOW_STACK
  let table = addressOf(cpu.view.getUint32(VMSA.cr3, true), cpu.view.getUint32(VMSA.cr3 + 4, true))
  let may = { write: true, user: true, execute: true }
  for (let level = LEVELS; level > 0; level--) {
    const span = spanOf(level)
    const entry = table + (Math.floor(linear / span) % 512) * 8
    const pfn = translateNested(cpu, entry, ACCESS.PAGE_TABLE_READ, true, WALK.PAGE_TABLE)
    if (pfn < 0) return WALK_FAILED
    const view = cpu.hardware.memory.read(pfn, cpu.asid)
    const lo = view.getUint32(entry % PAGE_SIZE, true)
    const hi = view.getUint32((entry % PAGE_SIZE) + 4, true)
    if ((lo & PTE.PRESENT) === 0) return pageFault(kind, cpl, false, false)
    // With vTOM the C-bit is a reserved bit of every entry.
    if ((hi & PTE_HI.CBIT) !== 0 && hasVirtualTom(cpu)) return pageFault(kind, cpl, true, true)
    may = {
      write: may.write && (lo & PTE.WRITE) !== 0,
      user: may.user && (lo & PTE.USER) !== 0,
      execute: may.execute && (hi & PTE_HI.NX) === 0
    }
    const isLeaf = level === 1 || (level <= 3 && (lo & PTE.LARGE) !== 0)
    if (isLeaf && !isAllowed(may, writes, kind === ACCESS.FETCH, cpl)) return pageFault(kind, cpl, true, false)
    const wanted = lo | PTE.ACCESSED | (isLeaf && writes ? PTE.DIRTY : 0)
    if (wanted !== lo && !setBits(cpu, entry, wanted)) return WALK_FAILED
    const address = addressOf(lo, hi)
    if (isLeaf) {
      walked.cbit = (hi & PTE_HI.CBIT) !== 0
      return address - (address % span) + (linear % span)
    }
    table = address
  }
  return WALK_FAILED
}

const isAllowed = (
  may: { readonly write: boolean; readonly user: boolean; readonly execute: boolean },
  writes: boolean,
  fetches: boolean,
  cpl: number
): boolean => (may.write || !writes) && (may.execute || !fetches) && (may.user || cpl !== 3)

/** Accessed or Dirty of an entry: a write of the guest like any other. */
const setBits = (cpu: Processor, entry: number, lo: number): boolean => {
  const pfn = translateNested(cpu, entry, ACCESS.PAGE_TABLE_WRITE, true, WALK.PAGE_TABLE)
  if (pfn < 0) return false
  cpu.hardware.memory.write(pfn, cpu.asid).setUint32(entry % PAGE_SIZE, lo >>> 0, true)
  return true
}
