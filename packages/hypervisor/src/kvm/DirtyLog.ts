import type { HostThread } from "@vmpl-lab/sim"
import { kick } from "./Kick.ts"
import type { Vm } from "./Vm.ts"

/**
 * Begins to log where the guest writes, by the Dirty bits of the nested leaves of a VM object and without page
 * modification logging: every bit is cleared, so that the first store into a page sets it again. The stores of all
 * levels count, VMPL0's too.
 */
export const startDirtyLog = (vm: Vm, by: HostThread): void => {
  vm.npt.logDirty(true)
  flushRemoteTlbs(vm, by)
}

/** What was written since the latest call: GFNs in ascending order. The bits are clear again, and TLBs have no others. */
export const harvestDirtyLog = (vm: Vm, by: HostThread): ReadonlyArray<number> => {
  const dirty = vm.npt.harvestDirty()
  flushRemoteTlbs(vm, by)
  return dirty
}

/** kvm_flush_remote_tlbs: vCPUs in guest mode are made to leave it, and each VMRUN from now on flushes first. */
const flushRemoteTlbs = (vm: Vm, by: HostThread): void => {
  vm.kvm.lastVmcb.forget(vm.asid)
  for (const vcpu of vm.vcpus.values()) if (vcpu.inGuest && vcpu.thread !== by) kick(vcpu, by, null)
}
