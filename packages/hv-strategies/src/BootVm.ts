import type { Vmm, VmmOperations } from "@vmpl-lab/hypervisor"
import { assert, type HostThread } from "@vmpl-lab/sim"

/** The vCPU objects that exist before the guest runs, and who runs them. */
export interface BootVcpus {
  /** VMPLs that each object holds. */
  readonly vmpls: ReadonlyArray<number>
  /** The level that its descriptor stands for; -1 where one descriptor runs all levels. */
  readonly descriptor: number
  /** A thread per level: the first ones bear the level's name. */
  readonly threadPerLevel: boolean
}

/** The VM object that launches the guest, with one vCPU per APIC ID. */
export const createBootVm =
  ({ vmpls, descriptor, threadPerLevel }: BootVcpus): VmmOperations["createGuest"] =>
  (vmm: Vmm, thread: HostThread, vcpus: number): void => {
    const vm = vmm.createVm(thread)
    const initialised = vm.sevInit(thread)
    assert(initialised === 0, `KVM_SEV_INIT2 answers ${initialised}`)
    vmm.vms[0] = vm
    for (const group of vmm.groups.slice(0, vcpus)) {
      const vcpu = vm.createVcpu(thread, group.apicId, group.apicId, vmpls)
      assert(typeof vcpu !== "number", `vCPU ${group.apicId} is created once`)
      group.active = vmm.spawnVcpu(group, vcpu, descriptor, thread, threadPerLevel)
    }
  }

/** The VMM's part where KVM serves AP creation and run VMPL itself. */
export const neverInUserSpace = (): never => {
  assert(false, "KVM serves AP creation and run VMPL itself")
}
