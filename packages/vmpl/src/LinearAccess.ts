import { ACCESS, FAULT } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { effectiveCbit } from "./EffectiveCbit.ts"
import { accessGpa, isWrite, KIND_MASK, PHASE } from "./NestedAccess.ts"
import { isMappingPermitted } from "./PageFault.ts"
import { walkPages } from "./PageWalk.ts"
import { MAPPING } from "./PageWalkResult.ts"
import { HOST_ASID } from "./PhysicalMemory.ts"
import type { Processor } from "./Processor.ts"
import { rightOf, TLB_RIGHTS, type TlbEntry } from "./Tlb.ts"
import { TRANSLATION } from "./Translation.ts"

/** Without paging a mapping forbids nothing. */
const UNPAGED = MAPPING.WRITABLE | MAPPING.DIRTY

/** Translation with whatever the VMSA turns on: TLB, guest page tables, virtual top of memory. See `translate`. */
export const translateLinear = (cpu: Processor, address: number, kind: number, cbit: boolean): number => {
  cpu.faultLinear = address
  const { tlb, walk } = cpu
  const paging = (cpu.translation & TRANSLATION.PAGING) !== 0
  // With paging the page tables hold the C-bit: what the operation says is of no account.
  const said = paging || cbit
  // An entry does not keep the nested Dirty bit: while the host asks for it, stores look it up again.
  if (tlb !== null && !(cpu.npt!.logsDirty && isWrite(kind))) {
    const entry = tlb.lookup(address, kind, said)
    if (entry !== undefined && passes(cpu, entry, kind, paging)) {
      cpu.key = entry.key
      return entry.pfn
    }
  }
  if (paging) {
    if (!walkPages(cpu, address, kind)) return -1
  } else {
    walk.gpa = address
    walk.cbit = cbit
    walk.mapping = UNPAGED
  }
  const isPrivate = effectiveCbit(cpu, kind & KIND_MASK, walk.gpa, walk.cbit)
  const pfn = accessGpa(cpu, walk.gpa, kind, isPrivate, PHASE.FINAL)
  if (pfn < 0) return -1
  cpu.key = isPrivate ? cpu.asid : HOST_ASID
  tlb?.fill(address, kind, said, {
    pfn,
    key: cpu.key,
    mapping: walk.mapping,
    rights: rightsOf(cpu, Math.floor(walk.gpa / PAGE_SIZE), pfn, isPrivate)
  })
  return pfn
}

/**
 * Whether a TLB entry answers an access: what it does not allow is looked up again, so a grant takes effect without a
 * flush, and the first store walks to set the Dirty bit.
 */
const passes = (cpu: Processor, entry: TlbEntry, kind: number, paging: boolean): boolean => {
  if ((entry.rights & rightOf(kind & KIND_MASK, cpu.registers[VMSA.cpl]!)) === 0) return false
  if (!paging) return true
  if (kind === ACCESS.WRITE && (entry.mapping & MAPPING.DIRTY) === 0) return false
  return isMappingPermitted(cpu, kind, entry.mapping)
}

/** What the RMP allows on a page now, for every kind of access at once: the verdict that an entry keeps. */
const rightsOf = (cpu: Processor, gfn: number, pfn: number, cbit: boolean): number => {
  const size = cpu.npt!.pageSize
  let rights = 0
  for (const [kind, cpl] of TLB_RIGHTS) {
    const fault = cpu.hardware.rmp.checkGuest(cpu.asid, cpu.vmpl, cpl, kind | cpu.vmplSss, cbit, gfn, pfn, size)
    if (fault === FAULT.NONE) rights |= rightOf(kind, cpl)
  }
  return rights
}
