// @section 4.3
import { ACCESS } from "@vmpl-lab/rmp"
import { getU64, SEV_FEATURES, setU64, TLB_CONTROL, VMSA } from "@vmpl-lab/sev-es"
import { assert } from "@vmpl-lab/sim"
import type { Processor } from "./Processor.ts"

/** What of address translation a VMSA turns on. */
export const TRANSLATION = { PAGING: 1, VTOM: 2, TLB: 4 } as const

/** CR0.PG, the other bits of CR0, CR4 and EFER that translation looks at. @spec APM2 3.1 */
export const CR0 = { WP: 0x1_0000, PG: 0x8000_0000 } as const
export const CR4 = { PAE: 0x20, LA57: 0x1000, SMEP: 0x10_0000, SMAP: 0x20_0000 } as const
export const EFER = { LMA: 0x400, NXE: 0x800 } as const
export const RFLAGS_AC = 0x4_0000

/**
 * Takes from the loaded registers how addresses are translated until the next #VMEXIT, and readies the TLB.
 * @param tlbControl TLB_CONTROL of the VMCB
 */
export const loadTranslation = (cpu: Processor, tlbControl: number): void => {
  readMode(cpu)
  enterTlb(cpu, tlbControl)
}

/** After a store into CR0 or CR4: other translations, hence none of the ones in the TLB. */
export const reloadTranslation = (cpu: Processor): void => {
  readMode(cpu)
  cpu.tlb?.flushContext()
}

const readMode = (cpu: Processor): void => {
  cpu.fetchedAt = -1
  const { view } = cpu
  const features = view.getUint32(VMSA.sev_features, true)
  const paging = (view.getUint32(VMSA.cr0, true) & CR0.PG) !== 0
  if (paging) {
    const cr4 = view.getUint32(VMSA.cr4, true)
    const long = (cr4 & CR4.PAE) !== 0 && (view.getUint32(VMSA.efer, true) & EFER.LMA) !== 0
    assert(long && (cr4 & CR4.LA57) === 0, "guest paging is modelled in long mode with 4 levels only")
  }
  cpu.translation =
    (paging ? TRANSLATION.PAGING : 0) |
    ((features & SEV_FEATURES.vTOM) !== 0 ? TRANSLATION.VTOM : 0) |
    (cpu.tlb !== null ? TRANSLATION.TLB : 0)
  cpu.vmplSss = (features & SEV_FEATURES.VmplSSS) !== 0 ? ACCESS.VMPL_SSS : 0
}

/**
 * VMRUN's part in the TLB: flushes as TLB_CONTROL says, and sees from PCPU_ID whether entries of this VMSA can be used:
 * it last ran on this core, and nobody has written 0 there since. If not, a TLB_ID without entries is given, and
 * PCPU_ID becomes nonzero at once, so that the software that wrote 0 sees it is done.
 * @spec APM2 15.36.15
 */
const enterTlb = (cpu: Processor, tlbControl: number): void => {
  const { tlb, view } = cpu
  if (tlb === null) return
  if (tlbControl === TLB_CONTROL.FLUSH_ALL_ASID) tlb.flush()
  else if (tlbControl !== TLB_CONTROL.DO_NOTHING) tlb.flushAsid(cpu.asid)
  if (getU64(view, VMSA.pcpu_id) !== tlb.pcpuId) {
    const page = cpu.hardware.memory.write(cpu.vmsaPfn, cpu.asid)
    const tlbId = tlb.newTlbId()
    for (const copy of [view, page]) {
      setU64(copy, VMSA.tlb_id, tlbId)
      setU64(copy, VMSA.pcpu_id, tlb.pcpuId)
    }
  }
  tlb.enter(cpu.asid, cpu.vmpl, getU64(view, VMSA.tlb_id))
}
