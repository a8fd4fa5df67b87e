import type { HostThread } from "@vmpl-lab/sim"
import type { ApCreateRequest } from "./ApCreateRequest.ts"
import type { Vcpu } from "./Vcpu.ts"
import type { Vm } from "./Vm.ts"

/**
 * The kernel half of a way to instantiate and run VMPLs: what KVM does when a guest asks for an AP or for another
 * VMPL. Each returns HANDLED.RESUME_GUEST, HANDLED.EXIT_TO_USER (with vcpu.run filled in), or an errno that the caller
 * turns into the guest's reply.
 */
export interface VmplOperations {
  readonly apCreate: (vcpu: Vcpu, thread: HostThread, request: ApCreateRequest) => number
  readonly runVmpl: (vcpu: Vcpu, thread: HostThread, vmpl: number) => number
  /**
   * An event waits in the local APIC (or event queue) of `waiting` for its level `vmpl`, and that level is not the one
   * that runs: `waiting.common.current` is another object, or holds another level. Whoever raises the event calls this
   * after it is pending, instead of the kick. What happens is the strategy's choice: nothing, or a switch.
   * @param by the thread that raised it; null for a timer's interrupt, whose time is host.now
   */
  readonly wakeLevel: (waiting: Vcpu, vmpl: number, by: HostThread | null) => void
  /**
   * Level that interrupts from outside of the guest go to, when their source is meant for `vmpl`; that one, if left out.
   */
  readonly outsideVmpl?: (vm: Vm, vmpl: number) => number
}

/** Nobody wakes a level that does not run: the event waits until that level is entered. */
export const wakesNobody: VmplOperations["wakeLevel"] = () => {}
