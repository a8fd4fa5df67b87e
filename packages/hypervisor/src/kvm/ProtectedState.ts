import type { HostThread } from "@vmpl-lab/sim"
import { ERRNO } from "./Errno.ts"
import { ioctl } from "./Ioctl.ts"
import type { Vcpu } from "./Vcpu.ts"

/** What KVM_GET_SREGS tells of a vCPU. Of an encrypted one only what the host had to learn is there. */
export interface Sregs {
  readonly cr0: number
  readonly cr4: number
  readonly cr8: number
  readonly efer: number
  readonly apicBase: number
}

/** KVM_GET_REGS: general registers of an encrypted guest are in its VMSA alone. @returns EINVAL once they are there */
export const getRegs = (vcpu: Vcpu, thread: HostThread): number => {
  ioctl(thread)
  return vcpu.vm.isStateProtected ? ERRNO.EINVAL : 0
}

/** KVM_SET_REGS: the same. */
export const setRegs = getRegs

/** KVM_GET_SREGS: what the write traps have told, and the APIC base. Segments, tables and CR3 stay unknown. */
export const getSregs = (vcpu: Vcpu, thread: HostThread): Sregs => {
  ioctl(thread)
  const { cr0, cr4, cr8, efer } = vcpu.current
  return { cr0, cr4, cr8, efer, apicBase: vcpu.lapic?.readApicBase() ?? 0 }
}

/**
 * KVM_SET_SREGS: of an encrypted guest only the APIC base and CR8 are the host's to set; the rest is passed over.
 * @returns 0, or EINVAL for an APIC base that no APIC takes
 */
export const setSregs = (
  vcpu: Vcpu,
  thread: HostThread,
  { apicBase, cr8 }: Pick<Sregs, "apicBase" | "cr8">
): number => {
  ioctl(thread)
  if (vcpu.lapic === null) return ERRNO.EINVAL
  if (!vcpu.lapic.writeApicBase(apicBase)) return ERRNO.EINVAL
  vcpu.current.cr8 = cr8
  vcpu.lapic.setTpr(cr8 << 4)
  return 0
}

/** KVM_SET_GUEST_DEBUG: nobody single-steps an encrypted guest. */
export const setGuestDebug = (vcpu: Vcpu, thread: HostThread): number => {
  ioctl(thread)
  return vcpu.vm.isStateProtected ? ERRNO.EINVAL : 0
}

/** KVM_SMI: System Management Mode would save registers where the host can read them. Refused for each such VM. */
export const injectSmi = (vcpu: Vcpu, thread: HostThread): number => {
  ioctl(thread)
  return vcpu.vm.config.kind === "sev-es" || vcpu.vm.config.kind === "snp" ? ERRNO.ENOTTY : 0
}

/** KVM_NMI. @returns 0 */
export const injectNmi = (vcpu: Vcpu, thread: HostThread): number => {
  ioctl(thread)
  vcpu.injectNmi(thread)
  return 0
}
