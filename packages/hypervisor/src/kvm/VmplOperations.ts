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
   * Level that interrupts from outside of the guest go to, when their source is meant for `vmpl`. That one, where KVM
   * can tell levels apart by the route.
   */
  readonly outsideVmpl?: (vm: Vm, vmpl: number) => number
  /**
   * Something has come for a local APIC: what KVM does about it beyond the kick of that APIC's own vCPU, which reaches
   * only one that runs. Nothing, where an event waits until its level runs for another reason.
   * @param by the thread in KVM's code that brought it, null in a timer's interrupt
   * @param time virtual ns
   */
  readonly eventWaits?: (waiting: Vcpu, by: HostThread | null, time: number) => void
}
