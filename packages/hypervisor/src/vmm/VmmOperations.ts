import type { HostThread } from "@vmpl-lab/sim"
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
  /**
   * What KVM left to user space of running and creating levels: exits RUN_VMPL, AP_CREATE, LINK_VCPU and PLANE_EVENT.
   * @returns 0 or an errno for the guest
   */
  readonly serve: (vmm: Vmm, self: VmmVcpu) => number
}
