// @ghcb 0x80000004, msr 0x006
import { GHCB, GHCB_MSR, VMCB, validByte, validMask } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { AP_RESET_HOLD, MP_STATE, type Vcpu } from "./Vcpu.ts"
import { initProtectedGuestState, loadSlot } from "./VmsaUpdate.ts"

/** A vCPU waits for a SIPI: kvm_emulate_ap_reset_hold. */
export const holdUntilSipi = (vcpu: Vcpu, type: number, ghcb: number): void => {
  vcpu.apResetHold = type
  vcpu.heldGhcb = ghcb
  vcpu.mpState = MP_STATE.AP_RESET_HOLD
}

/**
 * NMI, INIT and SIPI that have reached the local APIC (kvm_apic_accept_events). Registers of an encrypted guest cannot be
 * reset: INIT makes the vCPU wait, and the first SIPI starts the VMSA that it was launched with, or one that AP creation
 * left for INIT. Each further SIPI ends an AP reset hold.
 * @spec Linux kvm_apic_accept_events, sev_vcpu_deliver_sipi_vector
 */
export const acceptApicEvents = (vcpu: Vcpu, thread: HostThread): void => {
  const { lapic } = vcpu
  if (lapic === null) return
  if (lapic.nmiPending) {
    lapic.nmiPending = false
    vcpu.queueNmi()
  }
  if (lapic.initPending) {
    lapic.initPending = false
    // A SIPI that came after the INIT is for what the INIT has made wait.
    lapic.reset()
    vcpu.events.nmiPending = 0
    if (initProtectedGuestState(vcpu, vcpu.target, thread)) loadSlot(vcpu, vcpu.target, thread)
    vcpu.mpState = vcpu.apicId === 0 ? MP_STATE.RUNNABLE : MP_STATE.INIT_RECEIVED
  }
  if (lapic.sipiVector < 0) return
  if (vcpu.mpState !== MP_STATE.INIT_RECEIVED) {
    // A SIPI that finds no waiting vCPU is lost.
    lapic.sipiVector = -1
    return
  }
  lapic.sipiVector = -1
  deliverSipi(vcpu)
  vcpu.mpState = MP_STATE.RUNNABLE
}

const RESULT_SIPI = 1

const deliverSipi = (vcpu: Vcpu): void => {
  if (!vcpu.receivedFirstSipi) {
    vcpu.receivedFirstSipi = true
    return
  }
  const { host } = vcpu.vm.kvm.hardware
  const { apResetHold, heldGhcb } = vcpu
  vcpu.apResetHold = AP_RESET_HOLD.NONE
  if (apResetHold === AP_RESET_HOLD.MSR_PROTO) {
    // Any value but 0 in [63:12].
    host.write64(vcpu.vmcb + VMCB.ghcb_gpa, ((RESULT_SIPI << 12) | GHCB_MSR.AP_RESET_HOLD_RESPONSE) >>> 0, 0)
  } else if (apResetHold === AP_RESET_HOLD.NAE_EVENT) {
    // The guest may have taken the page away: then it does not learn of it.
    if (host.write64(heldGhcb + GHCB.sw_exit_info_2, RESULT_SIPI, 0) !== 0) return
    const byte = heldGhcb + validByte(GHCB.sw_exit_info_2)
    host.write8(byte, host.read8(byte) | validMask(GHCB.sw_exit_info_2))
  }
}
