import type { HostThread } from "@vmpl-lab/sim"
import type { ApCreateRequest } from "../kvm/ApCreateRequest.ts"
import type { VmplOperations } from "../kvm/VmplOperations.ts"
import type { VmmVcpu } from "./VcpuGroup.ts"
import type { Vmm } from "./Vmm.ts"

/**
 * A way to instantiate and run VMPLs, both halves: what KVM does in its exit handlers, and what the user-space VMM does
 * when it creates the guest and when KVM leaves a request to it. The functions charge each step they take.
 */
export interface VmmOperations {
  readonly kernel: VmplOperations
  /** Creates the VM object and the vCPUs that exist before the guest runs. */
  readonly createGuest: (vmm: Vmm, thread: HostThread, vcpus: number) => void
  /** KVM left "run VMPL" to user space. @returns 0 or an errno for the guest */
  readonly runVmpl: (vmm: Vmm, self: VmmVcpu, vmpl: number) => number
  /** KVM left an AP creation to user space. @returns 0 or an errno for the guest */
  readonly apCreate: (vmm: Vmm, self: VmmVcpu, request: ApCreateRequest) => number
}
