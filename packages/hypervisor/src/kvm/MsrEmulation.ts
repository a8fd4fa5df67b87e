import { MSR, type U64 } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { hostTsc, TSC_MHZ } from "@vmpl-lab/vmpl"
import { APIC_REG, x2apicMsr } from "../apic/index.ts"
import type { Vcpu } from "./Vcpu.ts"

const isX2apic = (msr: number): boolean => msr >= MSR.X2APIC_FIRST && msr <= MSR.X2APIC_LAST

const u64 = (value: number): U64 => ({ lo: value % 0x1_0000_0000, hi: Math.floor(value / 0x1_0000_0000) })

/** MSRs that read as a fixed value: no variable MTRRs, no performance features. */
const FIXED: ReadonlyMap<number, number> = new Map<number, number>([
  [MSR.MTRRCAP, 0x508],
  [MSR.MISC_ENABLE, 1]
])

/** kvm_get_msr for the MSRs that KVM serves an encrypted guest. @returns null for #GP */
export const readMsr = (vcpu: Vcpu, thread: HostThread, msr: number): U64 | null => {
  const { lapic } = vcpu
  if (isX2apic(msr)) return lapic?.readMsr(msr) ?? null
  switch (msr) {
    case MSR.APIC_BASE:
      return lapic === null ? null : { lo: lapic.readApicBase(), hi: 0 }
    case MSR.TSC:
      return u64(hostTsc(thread.time))
    case MSR.TSC_DEADLINE:
      return lapic === null ? null : u64(hostTsc(lapic.readTscDeadline()))
    default: {
      const fixed = FIXED.get(msr)
      return fixed === undefined ? null : u64(fixed)
    }
  }
}

/** kvm_set_msr. @returns false for #GP */
export const writeMsr = (vcpu: Vcpu, msr: number, lo: number, hi: number): boolean => {
  const { lapic } = vcpu
  if (isX2apic(msr)) {
    if (msr === x2apicMsr(APIC_REG.EOI)) vcpu.vm.irqchip?.observeEoi(vcpu)
    return lapic?.writeMsr(msr, lo, hi) ?? false
  }
  switch (msr) {
    case MSR.APIC_BASE:
      return hi === 0 && (lapic?.writeApicBase(lo) ?? false)
    case MSR.TSC_DEADLINE:
      if (lapic === null) return false
      lapic.writeTscDeadline(Math.ceil(((hi * 0x1_0000_0000 + lo) * 1_000) / TSC_MHZ))
      return true
    case MSR.MISC_ENABLE:
      return hi === 0 && lo === FIXED.get(MSR.MISC_ENABLE)
    default:
      return false
  }
}
