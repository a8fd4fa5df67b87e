import { ACCESS } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { accessGpa, KIND_MASK, PHASE } from "./NestedAccess.ts"
import { isMappingPermitted, PF, pageFault } from "./PageFault.ts"
import { MAPPING } from "./PageWalkResult.ts"
import type { Processor } from "./Processor.ts"
import { STEP } from "./Step.ts"
import { EFER, TRANSLATION } from "./Translation.ts"

/** Lower half of a page-table entry. @spec APM2 5.4 */
export const PTE = { P: 1, W: 2, U: 4, A: 0x20, D: 0x40, PS: 0x80 } as const
/** Upper half: the C-bit is bit 51, as CPUID 8000_001F EBX[5:0] reports on EPYC; NX is bit 63. */
export const PTE_HI = { C: 0x8_0000, NX: 0x8000_0000 } as const

/** Address bits 50:32, below the C-bit. No address bit is reserved. @spec-silent how many guest address bits there are */
const ADDRESS_HI = 0x7_ffff
const TWO_32 = 0x1_0000_0000
const LEVELS = 4
/** Bytes that a leaf of each level maps, by level. */
const SPAN = [0, PAGE_SIZE, 0x20_0000, 0x4000_0000] as const
/** Reserved address bits of a large leaf, by level: those between the PAT bit and the page. */
const LARGE_RESERVED = [0, 0, 0x1f_e000, 0x3fff_e000] as const

/** Entries of the walk under way, by level: their address and lower half. */
const entryGpa = new Float64Array(LEVELS + 1)
const entryLo = new Uint32Array(LEVELS + 1)

const UPPER_HALF_END = 2 ** 47

/** Bits 8:0 of the table index; an address of the upper half is negative, which leaves its low bits as they are. */
const indexAt = (linear: number, level: number): number => Math.floor(linear / 2 ** (9 * level + 3)) & 511

const isReserved = (cpu: Processor, lo: number, hi: number, level: number, isLeaf: boolean): boolean => {
  if ((hi & PTE_HI.C) !== 0 && (cpu.translation & TRANSLATION.VTOM) !== 0) return true
  if ((hi & PTE_HI.NX) !== 0 && (cpu.view.getUint32(VMSA.efer, true) & EFER.NXE) === 0) return true
  if (level === LEVELS) return (lo & PTE.PS) !== 0
  return isLeaf && (lo & LARGE_RESERVED[level]!) !== 0
}

/**
 * Sets Accessed in the entries from `level` up, Dirty in that of `level` if the access writes: each a write to a page
 * table, which nested table and RMP may refuse. They come before the access itself, which may still fail.
 * @spec APM2 15.36.10 (updates count as data writes)
 */
const updateAccessedDirty = (cpu: Processor, level: number, dirty: boolean): boolean => {
  for (let at = LEVELS; at >= level; at--) {
    const lo = entryLo[at]!
    const updated = lo | PTE.A | (dirty && at === level ? PTE.D : 0)
    if (updated === lo) continue
    const gpa = entryGpa[at]!
    const pfn = accessGpa(cpu, gpa, ACCESS.PAGE_TABLE_WRITE, true, PHASE.PAGE_TABLE)
    if (pfn < 0) return false
    cpu.hardware.memory.write(pfn, cpu.asid).setUint32(gpa % PAGE_SIZE, updated, true)
  }
  return true
}

/**
 * The guest's page walk in long mode: 4 levels from CR3, leaves of 4 KiB, 2 MiB and 1 GiB. Every entry is read and
 * updated as private memory through the nested table and the RMP. Leaves GPA, C-bit and rights in `cpu.walk`.
 * @returns false where it fails, with the reason in `cpu.failure`
 * @spec APM2 5.3, 15.36.8
 */
export const walkPages = (cpu: Processor, linear: number, kind: number): boolean => {
  if (linear < -UPPER_HALF_END || linear >= UPPER_HALF_END) {
    cpu.failure = STEP.GP
    return false
  }
  const { view, walk } = cpu
  let lo = view.getUint32(VMSA.cr3, true)
  let hi = view.getUint32(VMSA.cr3 + 4, true)
  let mapping: number = MAPPING.WRITABLE | MAPPING.USER
  for (let level = LEVELS; level > 0; level--) {
    const gpa = (hi & ADDRESS_HI) * TWO_32 + ((lo & -PAGE_SIZE) >>> 0) + indexAt(linear, level) * 8
    const pfn = accessGpa(cpu, gpa, ACCESS.PAGE_TABLE_READ, true, PHASE.PAGE_TABLE)
    if (pfn < 0) return false
    const table = cpu.hardware.memory.read(pfn, cpu.asid)
    lo = table.getUint32(gpa % PAGE_SIZE, true)
    hi = table.getUint32((gpa % PAGE_SIZE) + 4, true)
    entryGpa[level] = gpa
    entryLo[level] = lo
    const isLeaf = level === 1 || (lo & PTE.PS) !== 0
    if ((lo & PTE.P) === 0) return fail(cpu, kind, 0)
    if (isReserved(cpu, lo, hi, level, isLeaf)) return fail(cpu, kind, PF.P | PF.RSVD)
    const shadow = isLeaf && (mapping & MAPPING.WRITABLE) !== 0 && (lo & (PTE.W | PTE.D)) === PTE.D
    if ((lo & PTE.W) === 0) mapping &= ~MAPPING.WRITABLE
    if ((lo & PTE.U) === 0) mapping &= ~MAPPING.USER
    if ((hi & PTE_HI.NX) !== 0) mapping |= MAPPING.NO_EXECUTE
    if (!isLeaf) continue

    const writes = kind === ACCESS.WRITE
    if ((lo & PTE.D) !== 0 || writes) mapping |= MAPPING.DIRTY
    if (shadow) mapping |= MAPPING.SHADOW_STACK
    if (!isMappingPermitted(cpu, kind, mapping)) return fail(cpu, kind, PF.P)
    // With VmplSSS a shadow stack is private memory. @spec APM2 15.36.7
    const sharedStack = (hi & PTE_HI.C) === 0 && cpu.vmplSss !== 0 && (kind & KIND_MASK) === ACCESS.SHADOW_STACK
    if (sharedStack && (cpu.translation & TRANSLATION.VTOM) === 0) return fail(cpu, kind, PF.P | PF.RSVD)
    const span = SPAN[level]!
    const offset = linear - Math.floor(linear / span) * span
    walk.gpa = (hi & ADDRESS_HI) * TWO_32 + ((lo & -span) >>> 0) + offset
    walk.cbit = (hi & PTE_HI.C) !== 0
    walk.mapping = mapping
    return updateAccessedDirty(cpu, level, writes)
  }
  return false
}

const fail = (cpu: Processor, kind: number, why: number): false => {
  pageFault(cpu, kind, why)
  return false
}
