import { KVM_CAP } from "../kvm/Abi.ts"
import type { KvmSystem } from "../kvm/KvmSystem.ts"
import type { KvmVcpu } from "../kvm/KvmVcpu.ts"
import type { KvmVm } from "../kvm/KvmVm.ts"
import type { Mapping } from "../os/Os.ts"
import type { Resources } from "../Resources.ts"
import { guestMemory } from "../tasks/Creation.ts"
import type { SharedVcpu } from "../tasks/Task.ts"
import { enterMode, GUEST, type Mode, prepareMemory, type Start } from "./Modes.ts"
import { IRET } from "./Programs.ts"

/** One vCPU of a guest: its program, where that lies, and the VM object that it belongs to. */
export interface VcpuPlan {
  readonly program: Uint8Array
  readonly at: number
  readonly start?: Omit<Start, "rip">
  /** Index of the VM object. */
  readonly vm?: number
}

/** A guest: VM objects over the same memory, and vCPUs in one mode. */
export interface GuestPlan {
  readonly mode: Mode
  readonly vcpus: ReadonlyArray<VcpuPlan>
  readonly vms?: number
  readonly irqchip?: boolean
  /** How long a halted vCPU polls, in ns; KVM's own setting when left out. */
  readonly haltPollNs?: number
}

export interface Guest {
  readonly memory: Mapping
  readonly vms: ReadonlyArray<KvmVm>
  readonly vcpus: ReadonlyArray<KvmVcpu>
  /** The vCPUs as tasks take them. */
  readonly shared: ReadonlyArray<SharedVcpu>
}

/**
 * Creates a guest; everything in it is released with `resources`.
 * @throws LiveFailed naming the ioctl that fails
 */
export const makeGuest = (system: KvmSystem, resources: Resources, plan: GuestPlan): Guest => {
  const memory = guestMemory(system.os, resources)
  prepareMemory(memory)
  memory.octets.set(IRET, GUEST.HANDLER)
  const vms = Array.from({ length: plan.vms ?? 1 }, () => {
    const vm = system.createVm(resources)
    vm.setTssAddress()
    if (plan.irqchip === true) vm.createIrqchip()
    if (plan.haltPollNs !== undefined && system.capability(KVM_CAP.HALT_POLL) > 0) vm.setHaltPoll(plan.haltPollNs)
    vm.addMemory(0, memory)
    return vm
  })
  const ids = vms.map(() => 0)
  const vcpus = plan.vcpus.map(({ program, at, start, vm = 0 }) => {
    memory.octets.set(program, at)
    const vcpu = vms[vm]!.createVcpu(ids[vm]!++)
    vcpu.setCpuid(system.supportedCpuid())
    if (plan.irqchip === true) vcpu.enableApic()
    enterMode(vcpu, plan.mode, { rip: at, ...start })
    return vcpu
  })
  const shared = vcpus.map(({ fd, run: { address, bytes } }) => ({ fd, run: { address, bytes } }))
  return { memory, vms, vcpus, shared }
}
