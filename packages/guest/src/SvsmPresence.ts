import { MSR } from "@vmpl-lab/sev-es"
import { OP, type Operation, type OperationResult } from "@vmpl-lab/vmpl"

/** What the guest of an SVSM knows of it; without one there is none of this. */
export interface SvsmPresence {
  /** GPA of the vCPU's current calling area; null before it was found. */
  readonly caGpa: number | null
}

/** CPUID leaf of memory encryption. */
export const CPUID_SEV = 0x8000_001f

/** EAX of that leaf: there is an SVSM. Neither hardware nor firmware sets it, nor does an honest host. @spec SVSM 4.2 */
export const CPUID_SVSM = 2 ** 28

/**
 * EAX of a CPUID leaf as the #VC handler gives it. A guest that looks for an SVSM itself does not take the host's word;
 * without `svsm` the word stands.
 */
export const eaxWithSvsm = (svsm: SvsmPresence | undefined, leaf: number, eax: number): number => {
  if (leaf !== CPUID_SEV || svsm === undefined) return eax
  return ((eax & ~CPUID_SVSM) | (svsm.caGpa === null ? 0 : CPUID_SVSM)) >>> 0
}

/**
 * The MSR that no hardware has: reads give the current calling area, writes do nothing.
 * @returns false where the access is not to that MSR, or there is no SVSM
 * @spec SVSM 4.2; Linux __vc_handle_msr_caa
 */
export const serveCallingAreaMsr = (
  svsm: SvsmPresence | undefined,
  { op, address }: Operation,
  result: OperationResult
): boolean => {
  const caGpa = svsm?.caGpa ?? null
  if (address !== MSR.SVSM_CAA || caGpa === null) return false
  if (op === OP.RDMSR) {
    result.lo = caGpa >>> 0
    result.hi = Math.floor(caGpa / 0x1_0000_0000)
  }
  return true
}
