import { harvestDirtyLog, startDirtyLog, type Vm } from "@vmpl-lab/hypervisor"
import { PRIMITIVE } from "@vmpl-lab/sim"
import type { Machine } from "../Machine.ts"

/**
 * What the host's look at a nested table costs beyond its ioctl, virtual ns for each leaf that is mapped: assumed, as a
 * page of 512 entries is read from a cache and few of them are written back.
 */
export const SCAN_LEAF_NS = 2

const vmsOf = ({ vmm }: Machine): ReadonlyArray<Vm> => vmm.vms.filter((vm) => vm !== null)

/** Every VM object has a nested table of its own, and the guest writes through whichever level it runs at. */
const costOf = ({ host }: Machine, vms: ReadonlyArray<Vm>): number =>
  vms.reduce((sum, { npt }) => sum + host.costs.sample(PRIMITIVE.ioctl) + npt.mapped * SCAN_LEAF_NS, 0)

const agentThread = ({ vmm }: Machine) => vmm.groups[0]!.active!.thread

/** The host logs where the guest writes from now on. @returns what that took, virtual ns */
export const beginTracking = (machine: Machine): number => {
  const vms = vmsOf(machine)
  for (const vm of vms) startDirtyLog(vm, agentThread(machine))
  return costOf(machine, vms)
}

/** Private pages that were written since the last look, GFNs in ascending order, and what the look took, virtual ns. */
export const dirtyPages = (machine: Machine): { readonly gfns: ReadonlyArray<number>; readonly ns: number } => {
  const vms = vmsOf(machine)
  const found = new Set(vms.flatMap((vm) => harvestDirtyLog(vm, agentThread(machine))))
  const gfns = [...found].filter((gfn) => !machine.vmm.owner.isShared(gfn)).sort((a, b) => a - b)
  return { gfns, ns: costOf(machine, vms) }
}

/** GFNs as the SVSM reads them. */
export const gfnList = (gfns: ReadonlyArray<number>): Uint8Array => {
  const bytes = new Uint8Array(8 * gfns.length)
  const view = new DataView(bytes.buffer)
  gfns.forEach((gfn, i) => {
    view.setBigUint64(8 * i, BigInt(gfn), true)
  })
  return bytes
}
