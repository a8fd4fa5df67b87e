// @section 3.3, 4.2
import {
  EFER_SVME,
  EXIT,
  INTERCEPT,
  intercepts,
  MSR,
  MSR_GHCB,
  msrIntercepted,
  SEV_FEATURES,
  sevStatus,
  VMSA
} from "@vmpl-lab/sev-es"
import type { Operation, OperationResult } from "./Operation.ts"
import type { Processor } from "./Processor.ts"
import { STEP, type Step } from "./Step.ts"
import { reloadTranslation } from "./Translation.ts"

const hasVirtualTom = (cpu: Processor): boolean =>
  (cpu.view.getUint32(VMSA.sev_features, true) & SEV_FEATURES.vTOM) !== 0

const isIntercepted = (cpu: Processor, msr: number, write: boolean): boolean =>
  intercepts(cpu.intercepts, INTERCEPT.MSR_PROT) &&
  msrIntercepted((offset) => cpu.hardware.host.read8(cpu.msrpm + offset), msr, write)

const nae = (cpu: Processor, write: boolean): Step => {
  cpu.exitCode = EXIT.MSR
  cpu.exitInfoLo = write ? 1 : 0
  cpu.exitInfoHi = 0
  cpu.exitInfo2 = 0
  return STEP.VC_NAE
}

/** MSRs whose value is in the VMSA, as the CPU has it while the guest runs. */
const IN_VMSA: ReadonlyMap<number, number> = new Map([
  [MSR.EFER, VMSA.efer],
  [MSR.PAT, VMSA.g_pat],
  [MSR.XSS, VMSA.xss],
  [MSR.TSC_AUX, VMSA.tsc_aux]
])

/**
 * RDMSR at CPL 0. SEV_STATUS cannot be intercepted; of the others the permission map tells. One that is not intercepted
 * and not modelled is #GP(0).
 */
export const rdmsr = (cpu: Processor, msr: number, result: OperationResult): Step => {
  const { view } = cpu
  if (msr === MSR.SEV_STATUS) {
    const { lo, hi } = sevStatus(view.getUint32(VMSA.sev_features, true), view.getUint32(VMSA.sev_features + 4, true))
    result.lo = lo
    result.hi = hi
    return STEP.DONE
  }
  if (isIntercepted(cpu, msr, false)) return nae(cpu, false)
  if (msr === MSR_GHCB) {
    result.lo = cpu.ghcbLo
    result.hi = cpu.ghcbHi
    return STEP.DONE
  }
  const at = IN_VMSA.get(msr)
  if (at !== undefined) {
    result.lo = view.getUint32(at, true)
    result.hi = msr === MSR.TSC_AUX ? 0 : view.getUint32(at + 4, true)
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
 * WRMSR at CPL 0; SEV_STATUS is read-only. Reserved bits of VIRTUAL_TOM are dropped.
 * @spec-silent whether writing them is #GP(0) instead
 */
export const wrmsr = (cpu: Processor, { address, lo, hi }: Operation): Step => {
  if (address === MSR.SEV_STATUS) return STEP.GP
  if (isIntercepted(cpu, address, true)) return nae(cpu, true)
  if (address === MSR_GHCB) {
    cpu.ghcbLo = lo
    cpu.ghcbHi = hi
    return STEP.DONE
  }
  if (address === MSR.EFER) return writeEfer(cpu, lo, hi)
  const at = IN_VMSA.get(address)
  if (at !== undefined) {
    cpu.view.setUint32(at, lo, true)
    if (address !== MSR.TSC_AUX) cpu.view.setUint32(at + 4, hi, true)
    return STEP.DONE
  }
  if (address !== MSR.VIRTUAL_TOM || !hasVirtualTom(cpu)) return STEP.GP
  cpu.view.setUint32(VMSA.virtual_tom, lo & VIRTUAL_TOM_LO, true)
  cpu.view.setUint32(VMSA.virtual_tom + 4, hi & VIRTUAL_TOM_HI, true)
  cpu.tlb?.flushAsid(cpu.asid)
  return STEP.DONE
}

/**
 * EFER, with the write trap once the new value is in place.
 * @spec-silent SVME: a guest that clears it would never be entered again, so it keeps what VMRUN asks for
 */
const writeEfer = (cpu: Processor, lo: number, hi: number): Step => {
  const efer = (lo | EFER_SVME) >>> 0
  cpu.view.setUint32(VMSA.efer, efer, true)
  cpu.view.setUint32(VMSA.efer + 4, hi, true)
  reloadTranslation(cpu)
  if (!intercepts(cpu.intercepts, INTERCEPT.EFER_WRITE)) return STEP.DONE
  cpu.exitCode = EXIT.EFER_WRITE_TRAP
  cpu.exitInfoLo = efer
  cpu.exitInfoHi = hi
  cpu.exitInfo2 = 0
  return STEP.EXIT
}
