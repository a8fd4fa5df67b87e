import type { HostThread } from "@vmpl-lab/sim"
import type { ApCreateRequest } from "./ApCreateRequest.ts"
import type { Vcpu } from "./Vcpu.ts"

/**
 * The kernel half of a way to instantiate and run VMPLs: what KVM does when a guest asks for an AP or for another
 * VMPL. Each returns HANDLED.RESUME_GUEST, HANDLED.EXIT_TO_USER (with vcpu.run filled in), or an errno that the caller
 * turns into the guest's reply.
 */
export interface VmplOperations {
  readonly apCreate: (vcpu: Vcpu, thread: HostThread, request: ApCreateRequest) => number
  readonly runVmpl: (vcpu: Vcpu, thread: HostThread, vmpl: number) => number
}
