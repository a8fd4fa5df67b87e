import {
  type ApCreateRequest,
  HANDLED,
  kick,
  noteVmsa,
  requestUpdate,
  type Vcpu,
  type VmplSlot
} from "@vmpl-lab/hypervisor"
import { AP_CREATION } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"

/**
 * AP creation as the S1 series does it, wherever a level's slot is: notes the VMSA and lets the target's own thread put it
 * into the VMCB. `retarget` makes the level the one that its guest vCPU runs next; `holder` is the object whose request it is.
 * @returns HANDLED.RESUME_GUEST, or EINVAL
 * @spec Linux RFC "KVM: SEV-SNP support for running an SVSM", 2024
 */
export const createInKernel = (
  target: Vcpu,
  slot: VmplSlot,
  thread: HostThread,
  request: ApCreateRequest,
  retarget: () => void,
  holder: Vcpu = target
): number => {
  const noted = noteVmsa(target, slot, request)
  const starts = noted === 0 && request.request === AP_CREATION.CREATE
  const { current } = target.common
  const runs = current === target && current.current === slot
  // What starts nothing stops the vCPU if the level that has lost its VMSA is the one that runs. No other is disturbed.
  if (starts || (request.request !== AP_CREATION.CREATE_ON_INIT && runs)) {
    retarget()
    const path = starts ? thread.span : null
    requestUpdate(holder, path)
    kick(current, thread, path)
  }
  return noted < 0 ? noted : HANDLED.RESUME_GUEST
}
