import { INTERCEPT, INTERCEPT_WORDS, MSR, MSR_GHCB, MSRPM_SIZE, setIntercept, setMsrIntercept } from "@vmpl-lab/sev-es"

/**
 * What a guest leaves for, as bhyve's capabilities let it be chosen (VM_CAP_HALT_EXIT, VM_CAP_PAUSE_EXIT), and MWAIT and
 * the TSC likewise. KVM_CAP_X86_DISABLE_EXITS is the same with the opposite sign.
 */
export interface Capabilities {
  readonly haltExit: boolean
  readonly pauseExit: boolean
  readonly mwaitExit: boolean
  readonly tscExit: boolean
  /** DR7 is swapped with the VMSA (SEV_FEATURES.DebugVirtualization) and not intercepted. */
  readonly debugSwap: boolean
}

/** PAUSE exits are off: no figure in the profiles says what a guest that spins would cost the host. */
export const DEFAULT_CAPABILITIES: Capabilities = {
  haltExit: true,
  pauseExit: false,
  mwaitExit: true,
  tscExit: false,
  debugSwap: false
}

/** KVM's parameters pause_filter_count and pause_filter_thresh. */
export const PAUSE_FILTER = { COUNT: 3000, THRESHOLD: 128 } as const

/**
 * Intercepts of an SEV-ES guest: init_vmcb without what encrypted state forbids (CR0, CR4, CR8 accesses, selective CR0,
 * XSETBV, #GP and #UD), with the write traps of CR0, CR4, CR8 and EFER instead.
 * @spec Linux arch/x86/kvm/svm: init_vmcb, sev_es_init_vmcb
 */
const ALWAYS = [
  INTERCEPT.EXCEPTION + 18,
  INTERCEPT.INTR,
  INTERCEPT.NMI,
  INTERCEPT.SMI,
  INTERCEPT.INIT,
  INTERCEPT.RDPMC,
  INTERCEPT.CPUID,
  INTERCEPT.RSM,
  INTERCEPT.INVD,
  INTERCEPT.INVLPGA,
  INTERCEPT.IOIO_PROT,
  INTERCEPT.MSR_PROT,
  INTERCEPT.TASK_SWITCH,
  INTERCEPT.SHUTDOWN,
  INTERCEPT.VMRUN,
  INTERCEPT.VMMCALL,
  INTERCEPT.VMLOAD,
  INTERCEPT.VMSAVE,
  INTERCEPT.STGI,
  INTERCEPT.CLGI,
  INTERCEPT.SKINIT,
  INTERCEPT.WBINVD,
  INTERCEPT.RDPRU,
  INTERCEPT.EFER_WRITE,
  INTERCEPT.CR0_WRITE_TRAP,
  INTERCEPT.CR4_WRITE_TRAP,
  INTERCEPT.CR8_WRITE_TRAP
]

/** Intercept words of the VMCB. */
export const interceptWords = (capabilities: Capabilities): Int32Array => {
  const words = new Int32Array(INTERCEPT_WORDS)
  for (const intercept of ALWAYS) setIntercept(words, intercept, true)
  setIntercept(words, INTERCEPT.HLT, capabilities.haltExit)
  setIntercept(words, INTERCEPT.PAUSE, capabilities.pauseExit)
  for (const intercept of [INTERCEPT.MONITOR, INTERCEPT.MWAIT]) {
    setIntercept(words, intercept, capabilities.mwaitExit)
  }
  for (const intercept of [INTERCEPT.RDTSC, INTERCEPT.RDTSCP]) setIntercept(words, intercept, capabilities.tscExit)
  for (const intercept of [INTERCEPT.DR7_READ, INTERCEPT.DR7_WRITE]) {
    setIntercept(words, intercept, !capabilities.debugSwap)
  }
  return words
}

/** MSRs that an SEV-ES guest reaches without an exit. @spec Linux arch/x86/kvm/svm: sev_es_init_vmcb */
const PASSED_THROUGH = [MSR_GHCB, MSR.EFER, MSR.PAT, MSR.XSS, MSR.TSC_AUX]

/** The MSR permission map: everything is intercepted but what encrypted state makes the guest's own. */
export const msrPermissionMap = (): Uint8Array => {
  const map = new Uint8Array(MSRPM_SIZE).fill(0xff)
  for (const msr of PASSED_THROUGH) setMsrIntercept(map, msr, false, false)
  return map
}
