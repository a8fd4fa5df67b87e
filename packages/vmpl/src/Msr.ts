// @section 3.3, 4.2
import { MSR, MSR_GHCB, SEV_FEATURES, sevStatus, VMSA } from "@vmpl-lab/sev-es"
import type { Operation, OperationResult } from "./Operation.ts"
import type { Processor } from "./Processor.ts"
import { STEP, type Step } from "./Step.ts"

const hasVirtualTom = (cpu: Processor): boolean =>
  (cpu.view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.vTOM) !== 0

/** RDMSR at CPL 0 of an MSR that is not intercepted; another one is #GP(0). */
export const rdmsr = (cpu: Processor, msr: number, result: OperationResult): Step => {
  const { view } = cpu
  if (msr === MSR_GHCB) {
    result.lo = cpu.ghcbLo
    result.hi = cpu.ghcbHi
    return STEP.DONE
  }
  if (msr === MSR.SEV_STATUS) {
    const { lo, hi } = sevStatus(view.getUint32(VMSA.sev_features, true), view.getUint32(VMSA.sev_features + 4, true))
    result.lo = lo
    result.hi = hi
    return STEP.DONE
  }
  if (msr !== MSR.VIRTUAL_TOM || !hasVirtualTom(cpu)) return STEP.GP
  result.lo = (view.getUint32(VMSA.virtual_tom, true) & VIRTUAL_TOM_LO) >>> 0
  result.hi = view.getUint32(VMSA.virtual_tom + 4, true) & VIRTUAL_TOM_HI
  return STEP.DONE
}

/** Bits 51:21; the others read as zero. */
const VIRTUAL_TOM_LO = 0xffe0_0000
const VIRTUAL_TOM_HI = 0xf_ffff

/**
 * WRMSR at CPL 0 of an MSR that is not intercepted; another one is #GP(0). Reserved bits of VIRTUAL_TOM are dropped.
 * @spec-silent whether writing them is #GP(0) instead
 */
export const wrmsr = (cpu: Processor, { address, lo, hi }: Operation): Step => {
  if (address === MSR_GHCB) {
    cpu.ghcbLo = lo
    cpu.ghcbHi = hi
    return STEP.DONE
  }
  if (address !== MSR.VIRTUAL_TOM || !hasVirtualTom(cpu)) return STEP.GP
  cpu.view.setUint32(VMSA.virtual_tom, lo & VIRTUAL_TOM_LO, true)
  cpu.view.setUint32(VMSA.virtual_tom + 4, hi & VIRTUAL_TOM_HI, true)
  cpu.tlb?.flushAsid(cpu.asid)
  return STEP.DONE
}
