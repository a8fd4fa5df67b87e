import type { HostThread } from "@vmpl-lab/sim"
import type { Vcpu } from "../kvm/Vcpu.ts"

/** A vCPU file descriptor of the VMM and the thread that runs it. */
export interface VmmVcpu {
  readonly vcpu: Vcpu
  readonly thread: HostThread
  readonly group: VcpuGroup
  /** The level this vCPU object stands for; -1 when it holds them all. */
  readonly vmpl: number
  /** KVM_RUN was interrupted: the vCPU may be halted inside, so it is made runnable before it runs again. */
  interrupted: boolean
}

/** One guest vCPU (one APIC ID) as the VMM sees it: its vCPU objects by VMPL, of which at most one may run. */
export class VcpuGroup {
  readonly apicId: number
  readonly vcpus: [VmmVcpu | null, VmmVcpu | null, VmmVcpu | null, VmmVcpu | null] = [null, null, null, null]
  #active: VmmVcpu | null = null
  /** The latest hand-off was to a thread that waits for this one's core: it goes on when this one sleeps. */
  handedOverOnCore = false
  /** The one that an AP creation wants to run: the active one hands over to it as soon as it is in user space. */
  next: VmmVcpu | null = null

  constructor(apicId: number) {
    this.apicId = apicId
  }

  /** The one that may be inside KVM_RUN. Where KVM switches levels it is always the same. */
  get active(): VmmVcpu | null {
    return this.#active
  }

  set active(self: VmmVcpu | null) {
    this.#active = self
    if (self !== null) self.vcpu.common.current = self.vcpu
  }

  /** A further vCPU object of this guest vCPU. */
  add(self: VmmVcpu): void {
    const first = this.vcpus.find((known) => known !== null)
    if (first) self.vcpu.join(first.vcpu.common)
    this.vcpus[Math.max(self.vmpl, 0)] = self
  }
}
