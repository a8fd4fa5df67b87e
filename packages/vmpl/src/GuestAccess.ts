import { ACCESS } from "@vmpl-lab/rmp"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { translateLinear } from "./LinearAccess.ts"
import { accessGpa, PHASE } from "./NestedAccess.ts"
import { HOST_ASID } from "./PhysicalMemory.ts"
import { linearRip, type Processor } from "./Processor.ts"

/**
 * The system frame behind a guest access, after page tables, nested table and RMP have let it through; else -1, with
 * the reason in `cpu.failure`. `cpu.key` tells with whose key the access sees the frame.
 * @param address linear: guest physical where the VMSA has paging off, and then `cbit` is the C-bit of the mapping
 * @param kind of ACCESS, or SHADOW_STACK_STORE
 */
export const translate = (cpu: Processor, address: number, kind: number, cbit: boolean): number => {
  if (cpu.translation !== 0) return translateLinear(cpu, address, kind, cbit)
  cpu.key = cbit ? cpu.asid : HOST_ASID
  const pfn = accessGpa(cpu, address, kind, cbit, PHASE.FINAL)
  if (pfn < 0) cpu.faultLinear = address
  return pfn
}

/** Whether the outcome of an access may be kept in the nested page table's AccessCache. */
const isPlain = (cpu: Processor): boolean =>
  cpu.translation === 0 && cpu.isSnp && cpu.vmplSss === 0 && cpu.registers[VMSA.cpl] === 0

/** The page behind a load, not to be written; null with the reason in `cpu.failure`. Parameters as of `translate`. */
export const loadedPage = (cpu: Processor, address: number, kind: number, cbit: boolean): DataView | null => {
  const plain = kind === ACCESS.READ && isPlain(cpu)
  const gfn = Math.floor(address / PAGE_SIZE)
  if (plain) {
    const known = cpu.npt!.accesses.find(cpu, gfn, kind, cbit)
    if (known !== null) return known
  }
  const pfn = translate(cpu, address, kind, cbit)
  if (pfn < 0) return null
  const { memory } = cpu.hardware
  const live = plain ? memory.live(pfn, cpu.key) : null
  if (live === null) return memory.read(pfn, cpu.key)
  cpu.npt!.accesses.keep(cpu, gfn, kind, cbit, live)
  return live
}

/** The page behind a store; null with the reason in `cpu.failure`. Parameters as of `translate`. */
export const storedPage = (cpu: Processor, address: number, kind: number, cbit: boolean): DataView | null => {
  const plain = kind === ACCESS.WRITE && isPlain(cpu)
  const gfn = Math.floor(address / PAGE_SIZE)
  if (plain) {
    const known = cpu.npt!.accesses.find(cpu, gfn, kind, cbit)
    if (known !== null) return known
  }
  const pfn = translate(cpu, address, kind, cbit)
  if (pfn < 0) return null
  const view = cpu.hardware.memory.write(pfn, cpu.key)
  if (plain) cpu.npt!.accesses.keep(cpu, gfn, kind, cbit, view)
  return view
}

/**
 * Whether the next instruction can be fetched; else the reason is in `cpu.failure`. RIP stays in its page until a far
 * jump or the next VMRUN, so that one check holds as long as nothing changes that it looks at.
 */
export const canFetch = (cpu: Processor): boolean => {
  const changes = cpu.hardware.rmp.changes + cpu.npt!.changes
  if (cpu.fetchedAt === changes) return true
  if (translate(cpu, linearRip(cpu), ACCESS.FETCH, true) < 0) return false
  cpu.fetchedAt = isPlain(cpu) ? changes : -1
  return true
}

/** Offset of an address in its page: the low bits of two's complement, of the upper half too. */
export const offsetInPage = (address: number): number => address & (PAGE_SIZE - 1)
