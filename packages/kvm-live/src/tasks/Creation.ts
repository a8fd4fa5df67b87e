import { GUEST } from "../guest/Modes.ts"
import { KvmSystem } from "../kvm/KvmSystem.ts"
import { LiveFailed, must } from "../LiveFailed.ts"
import { errnoText } from "../os/Errno.ts"
import type { Mapping, Os } from "../os/Os.ts"
import { Resources } from "../Resources.ts"
import { collect, type Samples, type TaskContext } from "./Task.ts"

/** vCPUs that one VM object gets before the next VM is created. */
const VCPUS_PER_VM = 64

/** Anonymous guest memory. */
export const guestMemory = (os: Os, resources: Resources): Mapping => {
  const memory = os.mmap(-1, GUEST.BYTES)
  if (typeof memory === "number") throw new LiveFailed({ why: `mmap of guest memory fails with ${errnoText(-memory)}` })
  return resources.mapping(memory)
}

/** What is created and timed; everything it needs is created before, and all of it is released after, untimed. */
export type Created = "vm" | "memory slot" | "first vcpu" | "irqchip"

/** One object in a VM of its own each time. */
export const create = (
  context: TaskContext,
  { path, what }: { readonly path: string; readonly what: Created }
): Samples => {
  const { os, ledger } = context
  const outer = new Resources(os, ledger)
  try {
    const system = new KvmSystem(os, outer, path)
    return collect(context, () => {
      const inner = new Resources(os, ledger)
      try {
        const start = os.now()
        const vm = system.createVm(inner)
        if (what === "vm") return os.now() - start
        vm.setTssAddress()
        const memory = guestMemory(os, inner)
        if (what !== "memory slot") vm.addMemory(0, memory)
        const begin = os.now()
        if (what === "memory slot") vm.addMemory(0, memory)
        else if (what === "irqchip") vm.createIrqchip()
        else vm.createVcpu(0)
        return os.now() - begin
      } finally {
        inner.release()
      }
    })
  } finally {
    outer.release()
  }
}

/** KVM_CREATE_VCPU and the mapping of kvm_run in a VM that has at least one already. */
export const createNextVcpu = (context: TaskContext, { path }: { readonly path: string }): Samples => {
  const { os, ledger } = context
  const outer = new Resources(os, ledger)
  let inner = new Resources(os, ledger)
  try {
    const system = new KvmSystem(os, outer, path)
    let id = VCPUS_PER_VM
    let vm = system.createVm(inner)
    return collect(context, () => {
      if (id === VCPUS_PER_VM) {
        inner.release()
        inner = new Resources(os, ledger)
        vm = system.createVm(inner)
        vm.createVcpu(0)
        id = 1
      }
      const begin = os.now()
      vm.createVcpu(id++)
      return os.now() - begin
    })
  } finally {
    inner.release()
    outer.release()
  }
}

/** pthread_create: the creating thread's share. */
export const createThread = (context: TaskContext): Samples => {
  const { os } = context
  return collect(context, () => {
    const begin = os.now()
    const created = os.createThread()
    const ns = os.now() - begin
    must("pthread_create", created)
    must("pthread_join", os.joinThread())
    return ns
  })
}
