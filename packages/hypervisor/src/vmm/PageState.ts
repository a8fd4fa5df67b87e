import type { HostThread } from "@vmpl-lab/sim"
import { ERRNO } from "../kvm/Errno.ts"
import type { Vmm } from "./Vmm.ts"

/**
 * KVM_HC_MAP_GPA_RANGE: sets the attribute in every VM object of the guest, since each has its own, and takes pages that
 * become shared back from the guest. Stops at the first page that cannot be changed.
 * @returns 0, EINVAL for a page outside the guest's memory, or EBUSY for a VMSA that runs
 */
export const changePageState = (
  vmm: Vmm,
  thread: HostThread,
  gfn: number,
  pages: number,
  toPrivate: boolean
): number => {
  let changed = 0
  let failure = 0
  if (toPrivate && vmm.owner.inMemorySlots(gfn, pages)) changed = pages
  while (changed < pages && failure === 0) {
    const inSlot = vmm.owner.inMemorySlot(gfn + changed)
    failure = !inSlot ? ERRNO.EINVAL : toPrivate ? 0 : vmm.owner.reclaimPrivate(thread, gfn + changed)
    if (failure === 0) changed++
  }
  if (changed > 0) setAttributes(vmm, thread, gfn, changed, toPrivate)
  return failure
}

const setAttributes = (vmm: Vmm, thread: HostThread, gfn: number, pages: number, toPrivate: boolean): void => {
  for (const vm of vmm.vms) vm?.setMemoryAttributes(thread, gfn, toPrivate, pages)
  if (!toPrivate) for (let i = 0; i < pages; i++) vmm.sharedGfns.add(gfn + i)
  else if (vmm.sharedGfns.size > 0) for (let i = 0; i < pages; i++) vmm.sharedGfns.delete(gfn + i)
}
