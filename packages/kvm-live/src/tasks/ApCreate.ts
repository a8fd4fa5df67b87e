import { SREGS } from "../kvm/Abi.ts"
import { KvmSystem } from "../kvm/KvmSystem.ts"
import type { KvmVm } from "../kvm/KvmVm.ts"
import { LiveFailed, must } from "../LiveFailed.ts"
import { Resources } from "../Resources.ts"
import { guestMemory } from "./Creation.ts"
import type { Samples, TaskContext } from "./Task.ts"

/** How a strategy gives a guest vCPU an object for another level. */
export interface LevelPlan {
  readonly path: string
  /** Guest vCPUs, each of which gets one. */
  readonly vcpus: number
  /** In a VM object of its own, which the first creation brings along, or in the one there is. */
  readonly ownVm: boolean
  /** Each with a thread of its own. */
  readonly threads: boolean
}

/**
 * What user space does when a guest asks for an AP at a level that has no vCPU objects yet: KVM_CREATE_VCPU and the
 * mapping, its registers in place of a VMSA, KVM_SET_MP_STATE, and a thread. A sample is one creation, in order: the
 * first element is the first use of the level. With more samples than vCPUs the guest is made anew.
 */
export const createLevels = (context: TaskContext, plan: LevelPlan): Samples => {
  const { os, ledger, samples, stopped } = context
  const outer = new Resources(os, ledger)
  const taken = new Float64Array(samples)
  try {
    const system = new KvmSystem(os, outer, plan.path)
    for (let at = 0; at < samples; at += plan.vcpus) {
      if (stopped()) throw new LiveFailed({ why: "the measurement was given up" })
      const inner = new Resources(os, ledger)
      try {
        taken.set(createAll(context, system, inner, plan).subarray(0, samples - at), at)
      } finally {
        inner.release()
      }
    }
    return taken
  } finally {
    outer.release()
  }
}

const createAll = (
  { os }: TaskContext,
  system: KvmSystem,
  resources: Resources,
  { vcpus, ownVm, threads }: LevelPlan
): Samples => {
  const memory = guestMemory(os, resources)
  const newVm = (): KvmVm => {
    const vm = system.createVm(resources)
    vm.addMemory(0, memory)
    return vm
  }
  const boot = newVm()
  for (let id = 0; id < vcpus; id++) boot.createVcpu(id)
  let other = ownVm ? null : boot
  const sregs = new Uint8Array(SREGS.BYTES)
  const taken = new Float64Array(vcpus)
  for (let i = 0; i < vcpus; i++) {
    const begin = os.now()
    other ??= newVm()
    const vcpu = other.createVcpu(ownVm ? i : vcpus + i)
    const created = os.now()
    // A fresh vCPU's own registers: reading them is not part of the creation, handing them over is.
    vcpu.registers("GET_SREGS", sregs)
    const resumed = os.now()
    vcpu.registers("SET_SREGS", sregs)
    vcpu.setRunnable()
    if (threads) must("pthread_create", os.createThread())
    taken[i] = os.now() - resumed + (created - begin)
    if (threads) must("pthread_join", os.joinThread())
  }
  return taken
}
