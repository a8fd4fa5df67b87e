import { setU64, VMSA } from "@vmpl-lab/sev-es"
import { assert } from "@vmpl-lab/sim"
import { OP, type Operation } from "./Operation.ts"
import type { Processor } from "./Processor.ts"
import { STEP, type Step } from "./Step.ts"

/**
 * INVLPG, INVLPGB, TLBSYNC and MOV to CR3, at CPL 0. INVLPGB reaches this core at once and the others with TLBSYNC: the
 * latest that the architecture allows. Without TLBs there is nothing to drop. None of them is intercepted here.
 * @spec APM2 5.5.3
 * @spec-silent PCIDs and global pages are not modelled: MOV to CR3 drops all entries of this VMSA, which is always legal
 */
export const executeTlb = (cpu: Processor, { op, address }: Operation): Step => {
  const { tlb } = cpu
  switch (op) {
    case OP.INVLPG:
      tlb?.flushPage(address)
      return STEP.DONE
    case OP.INVLPGB:
      tlb?.flushAsid(cpu.asid)
      tlb?.outstanding.add(cpu.asid)
      return STEP.DONE
    case OP.TLBSYNC:
      if (tlb !== null) cpu.hardware.tlbs!.synchronize(tlb)
      return STEP.DONE
    default:
      assert(op === OP.WRITE_CR3, `operation ${op} is known`)
      setU64(cpu.view, VMSA.cr3, address)
      tlb?.flushContext()
      return STEP.DONE
  }
}
