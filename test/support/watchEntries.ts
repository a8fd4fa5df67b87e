import type { Machine } from "@vmpl-lab/lab"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"

/** A stretch of virtual time in guest mode. */
export interface Stretch {
  readonly apicId: number
  readonly vmpl: number
  readonly from: number
  to: number
}

/** Stretches of virtual time in guest mode, by APIC ID, and VMSAs taken while in use. */
export const watchEntries = (
  machine: Machine
): { readonly inGuest: ReadonlyArray<Stretch>; readonly taken: ReadonlyArray<number> } => {
  const { rmp } = machine.hardware
  const inGuest: Array<Stretch> = []
  const taken: Array<number> = []
  const vcpuOf = (pfn: number) =>
    machine.kvm.vms.flatMap((vm) => [...vm.vcpus.values()]).find(({ vmcb }) => vmcb === pfn * PAGE_SIZE)
  const open = new Map<number, number>()
  const markInUse = rmp.markInUse.bind(rmp)
  const clearInUse = rmp.clearInUse.bind(rmp)
  rmp.markInUse = (pfn) => {
    if (rmp.isInUse(pfn)) taken.push(pfn)
    markInUse(pfn)
    const vcpu = vcpuOf(pfn)
    if (vcpu === undefined) return
    const { current, apicId, thread } = vcpu
    open.set(pfn, inGuest.push({ apicId, vmpl: current.vmpl, from: thread!.time, to: Infinity }) - 1)
  }
  rmp.clearInUse = (pfn) => {
    clearInUse(pfn)
    const vcpu = vcpuOf(pfn)
    if (vcpu !== undefined) inGuest[open.get(pfn)!]!.to = vcpu.thread!.time
  }
  return { inGuest, taken }
}

/** Stretches of one guest vCPU that overlap its next one: two of its levels were in guest mode at once. */
export const overlaps = (inGuest: ReadonlyArray<Stretch>): ReadonlyArray<readonly [Stretch, Stretch]> =>
  [...new Set(inGuest.map(({ apicId }) => apicId))].flatMap((id) => {
    const own = inGuest.filter(({ apicId }) => apicId === id).sort((a, b) => a.from - b.from || a.to - b.to)
    return own.slice(1).flatMap((next, i) => (next.from < own[i]!.to ? [[own[i]!, next] as const] : []))
  })
