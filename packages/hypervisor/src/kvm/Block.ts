import { type HostProgram, type HostThread, PRIMITIVE, WAIT } from "@vmpl-lab/sim"
import { nextWindow } from "./HaltPoll.ts"
import { MP_STATE, type Vcpu } from "./Vcpu.ts"

/**
 * vcpu_block: what KVM_RUN does while the vCPU is not runnable. A halted one polls first, for as long as earlier halts
 * suggest; one that waits for INIT, or whose wake does not come within the window, sleeps.
 */
export function* blockVcpu(vcpu: Vcpu, thread: HostThread): HostProgram {
  const { haltPoll } = vcpu.vm.kvm
  const halted = vcpu.mpState === MP_STATE.HALTED
  const begin = thread.time
  thread.span = null
  vcpu.blocking = true
  thread.pollHit = false
  if (halted && vcpu.haltPollNs > 0) {
    thread.pollNs = vcpu.haltPollNs
    yield WAIT.POLL
  }
  if (!thread.pollHit) {
    thread.charge(PRIMITIVE.vcpu_put)
    yield WAIT.BLOCK
    thread.charge(PRIMITIVE.vcpu_load)
  }
  vcpu.blocking = false
  if (halted) vcpu.haltPollNs = nextWindow(vcpu.haltPollNs, thread.time - begin, haltPoll)
}

/** The scheduler takes the core away inside KVM_RUN: kvm_sched_out and kvm_sched_in. */
export function* rescheduleVcpu(thread: HostThread): HostProgram {
  thread.charge(PRIMITIVE.vcpu_put)
  yield WAIT.RESCHEDULE
  thread.charge(PRIMITIVE.vcpu_load)
}
