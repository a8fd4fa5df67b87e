import { EFER_SVME, EXIT, INT_STATE, VECTOR, VMCB } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { HANDLED } from "./Errno.ts"
import { queueException } from "./Interrupts.ts"
import { MP_STATE, type Vcpu } from "./Vcpu.ts"
import { writeVmcb32 } from "./Vm.ts"

/**
 * CR0, CR4, CR8 and EFER write traps: the new value is in place already, KVM only learns of it. SVME is none of the
 * guest's choosing. A trap of another register, which KVM has not asked for, is #UD.
 * @spec Linux cr_trap, efer_trap
 */
export const handleWriteTrap = (vcpu: Vcpu, thread: HostThread, code: number): number => {
  const { host } = vcpu.vm.kvm.hardware
  const { current } = vcpu
  const lo = host.read32(vcpu.vmcb + VMCB.exit_info_1)
  const hi = host.read32(vcpu.vmcb + VMCB.exit_info_1 + 4)
  const { trace } = vcpu.vm.kvm
  switch (code) {
    case EXIT.EFER_WRITE_TRAP:
      current.efer = (lo & ~EFER_SVME) >>> 0
      return HANDLED.RESUME_GUEST
    case EXIT.CR0_WRITE_TRAP:
      current.cr0 = lo
      break
    case EXIT.CR4_WRITE_TRAP:
      current.cr4 = lo
      break
    case EXIT.CR8_WRITE_TRAP:
      current.cr8 = lo & 0xf
      vcpu.lapic?.setTpr((lo & 0xf) << 4)
      break
    default:
      queueException(vcpu, VECTOR.UD, null)
      return HANDLED.RESUME_GUEST
  }
  trace?.cr(thread, true, code - EXIT.CR0_WRITE_TRAP, lo, hi)
  return HANDLED.RESUME_GUEST
}

/** HLT: the instruction is done, and with it an interrupt shadow. The vCPU sleeps until something wants to go in. */
export const handleHalt = (vcpu: Vcpu): number => {
  const { host } = vcpu.vm.kvm.hardware
  const state = host.read32(vcpu.vmcb + VMCB.int_state)
  if ((state & INT_STATE.INTERRUPT_SHADOW) !== 0) {
    writeVmcb32(vcpu, VMCB.int_state, (state & ~INT_STATE.INTERRUPT_SHADOW) >>> 0)
  }
  vcpu.mpState = MP_STATE.HALTED
  return HANDLED.RESUME_GUEST
}
