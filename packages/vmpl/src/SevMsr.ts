import { MSR, SEV_FEATURES, setU64, sevStatus, VMSA } from "@vmpl-lab/sev-es"
import { hasVirtualTom } from "./EffectiveCbit.ts"
import type { Operation, OperationResult } from "./Operation.ts"
import type { Processor } from "./Processor.ts"

const TWO_MIB = 0x20_0000
const ADDRESS_END = 2 ** 52

/** Reads an MSR that no hypervisor can intercept. @returns false: #GP(0) */
export const readMsr = (cpu: Processor, msr: number, result: OperationResult): boolean => {
  switch (msr) {
    case MSR.GHCB:
      result.lo = cpu.ghcbLo
      result.hi = cpu.ghcbHi
      return true
    case MSR.SEV_STATUS:
      result.lo = sevStatus(cpu.view.getUint32(VMSA.sev_features, true))
      result.hi = 0
      return true
    case MSR.VIRTUAL_TOM: {
      if (!hasVirtualTom(cpu)) return false
      result.lo = cpu.view.getUint32(VMSA.virtual_tom, true)
      result.hi = cpu.view.getUint32(VMSA.virtual_tom + 4, true)
      return true
    }
    default:
      return false
  }
}

/** Writes one. SEV_STATUS is read-only. @returns false: #GP(0) */
export const writeMsr = (cpu: Processor, { address, lo, hi }: Operation): boolean => {
  switch (address) {
    case MSR.GHCB:
      cpu.ghcbLo = lo
      cpu.ghcbHi = hi
      return true
    case MSR.VIRTUAL_TOM: {
      if (!hasVirtualTom(cpu)) return false
      const value = (hi * 2 ** 32 + lo) % ADDRESS_END
      setU64(cpu.view, VMSA.virtual_tom, value - (value % TWO_MIB))
      cpu.hardware.tlb?.flushAsid(cpu.asid)
      return true
    }
    default:
      return false
  }
}

/** Whether a #VC of the current VMPL becomes an automatic exit. @spec APM2 15.36.9 */
export const reflectsVc = (cpu: Processor): boolean =>
  (cpu.view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.ReflectVC) !== 0
