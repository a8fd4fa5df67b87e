import { CLEAN, getU64, INTERCEPT, INTERCEPT_WORDS, intercepts, VMCB } from "@vmpl-lab/sev-es"
import type { Processor } from "./Processor.ts"

/**
 * Intercepts and permission maps of the VMCB. A group whose clean bit is set is not read again if this VMCB was the last
 * one on the core: software that changed it without saying so keeps the old one. Other groups are always read, which
 * the architecture allows.
 * @spec APM2 15.15
 */
export const loadControl = (cpu: Processor, control: DataView): void => {
  const clean = cpu.cachedVmcb === cpu.vmcb ? control.getUint32(VMCB.clean, true) : 0
  if ((clean & CLEAN.INTERCEPTS) === 0) {
    for (let word = 0; word < INTERCEPT_WORDS; word++) cpu.intercepts[word] = control.getInt32(4 * word, true)
  }
  if ((clean & CLEAN.PERM_MAP) === 0) {
    cpu.iopm = getU64(control, VMCB.iopm_base_pa)
    cpu.msrpm = getU64(control, VMCB.msrpm_base_pa)
  }
  cpu.cachedVmcb = cpu.vmcb
  if (intercepts(cpu.intercepts, INTERCEPT.PAUSE)) {
    cpu.pauseCount = control.getUint16(VMCB.pause_filter_count, true)
    cpu.pauseAt = cpu.thread.time
  }
}
