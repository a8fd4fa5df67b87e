import type { Vmm, VmmVcpu } from "@vmpl-lab/hypervisor"
import { assert, type HostThread } from "@vmpl-lab/sim"

/** The VM object that launches the guest, with one vCPU per APIC ID that holds the given VMPLs. */
export const createBootVm = (vmm: Vmm, thread: HostThread, vcpus: number, vmpls: ReadonlyArray<number>): void => {
  const vm = vmm.createVm(thread)
  const initialised = vm.sevInit(thread)
  assert(initialised === 0, `KVM_SEV_INIT2 answers ${initialised}`)
  vmm.vms[0] = vm
  for (const group of vmm.groups.slice(0, vcpus)) {
    const vcpu = vm.createVcpu(thread, group.apicId, group.apicId, vmpls)
    assert(typeof vcpu !== "number", `vCPU ${group.apicId} is created once`)
    const self: VmmVcpu = vmm.spawnVcpu(group, vcpu, vmpls.length > 1 ? -1 : vmpls[0]!, thread)
    group.active = self
  }
}
