import type { HostThread } from "@vmpl-lab/sim"
import { ERRNO } from "../kvm/Errno.ts"
import type { Vmm } from "./Vmm.ts"

/**
 * KVM_HC_MAP_GPA_RANGE: sets the attribute in every VM object of the guest, since each has its own, and takes a page that
 * becomes shared back from the guest. Stops at the first page that cannot be changed.
 * @returns 0, EINVAL for a page outside the guest's memory, or EBUSY for a VMSA that runs
 */
export const changePageState = (
  vmm: Vmm,
  thread: HostThread,
  gfn: number,
  pages: number,
  toPrivate: boolean
): number => {
  for (let i = 0; i < pages; i++) {
    const changed = changePage(vmm, thread, gfn + i, toPrivate)
    if (changed < 0) return changed
  }
  return 0
}

const changePage = (vmm: Vmm, thread: HostThread, gfn: number, toPrivate: boolean): number => {
  if (!vmm.owner.inMemorySlot(gfn)) return ERRNO.EINVAL
  if (!toPrivate) {
    const reclaimed = vmm.owner.reclaimPrivate(thread, gfn)
    if (reclaimed < 0) return reclaimed
  }
  for (const vm of vmm.vms) vm?.setMemoryAttributes(thread, gfn, toPrivate)
  if (toPrivate) vmm.sharedGfns.delete(gfn)
  else vmm.sharedGfns.add(gfn)
  return 0
}
