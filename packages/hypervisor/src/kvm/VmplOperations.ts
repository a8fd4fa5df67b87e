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
  /** What a guest reads in SW_EXITINFO2 of the page protocol when run VMPL was refused: 0, or one of REASON. */
  readonly runVmplReason: number
  /** Run VMPL refused by the MSR protocol: the response says error 1, or nothing translates the errno and KVM_RUN fails. */
  readonly runVmplMsr: "response" | "KVM_RUN fails"
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
  /** Which object KVM_RUN of a descriptor runs, or an errno. Absent: the descriptor's own. */
  readonly enter?: (descriptor: Vcpu) => Vcpu | number
  /**
   * Asked before each entry and before each sleep of an object: HANDLED.RESUME_GUEST to go on with it,
   * HANDLED.SWITCH_VCPU to go on with what `schedule` names, HANDLED.EXIT_TO_USER with vcpu.run filled in.
   */
  readonly beforeEntry?: (vcpu: Vcpu) => number
  /** The object that a pending UPDATE_PROTECTED_GUEST_STATE is about; the one that has the request, if left out. */
  readonly updated?: (vcpu: Vcpu) => Vcpu
  /** The object that KVM_RUN goes on with after HANDLED.SWITCH_VCPU. */
  readonly schedule?: (vcpu: Vcpu) => Vcpu
}

/** Nobody wakes a level that does not run: the event waits until that level is entered. */
export const wakesNobody: VmplOperations["wakeLevel"] = () => {}
