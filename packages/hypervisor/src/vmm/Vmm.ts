import { type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import { GuestMemory, type MemorySlot } from "../kvm/GuestMemory.ts"
import type { Kvm } from "../kvm/Kvm.ts"
import type { Vcpu } from "../kvm/Vcpu.ts"
import { DEFAULT_VM_CONFIG, type Vm, type VmConfig } from "../kvm/Vm.ts"
import { DeviceBus } from "./devices/DeviceBus.ts"
import { affinityOf, HAND_OFF, type Pin, type Placement } from "./Placement.ts"
import { VcpuGroup, type VmmVcpu } from "./VcpuGroup.ts"
import { vcpuThread } from "./VcpuThread.ts"
import type { VmmOperations } from "./VmmOperations.ts"

/** The user-space VMM: one process that owns the guest's VM objects, vCPU threads and memory. */
export class Vmm {
  readonly kvm: Kvm
  readonly operations: VmmOperations
  readonly memory: GuestMemory
  readonly memorySlots: ReadonlyArray<MemorySlot>
  readonly groups: ReadonlyArray<VcpuGroup>
  /** VM objects by the VMPL they stand for; a strategy with one VM object has it at 0. */
  readonly vms: [Vm | null, Vm | null, Vm | null, Vm | null] = [null, null, null, null]
  /** GFNs that the guest has made shared: a VM object that joins later must be told. */
  readonly sharedGfns = new Set<number>()
  /** The first thing that went wrong; the guest has stopped. */
  failure: string | null = null
  vcpuThreads = 0
  /** What answers at ports and in MMIO. */
  readonly devices = new DeviceBus()
  /** By what its threads let each other run. */
  handOff: (typeof HAND_OFF)[keyof typeof HAND_OFF] = HAND_OFF.futex
  /** Threads whose core is fixed one by one. */
  pins: ReadonlyArray<Pin> = []
  readonly #config: VmConfig
  readonly #placement: Placement

  constructor(
    kvm: Kvm,
    operations: VmmOperations,
    memorySlots: ReadonlyArray<MemorySlot>,
    vcpus: number,
    placement: Placement,
    config: VmConfig = DEFAULT_VM_CONFIG
  ) {
    this.#config = config
    this.kvm = kvm
    this.operations = operations
    this.memory = new GuestMemory(kvm.frames)
    this.memorySlots = memorySlots
    this.groups = Array.from({ length: vcpus }, (_, apicId) => new VcpuGroup(apicId))
    this.#placement = placement
  }

  /** The VM that launches: it owns the guest's encryption context. */
  get owner(): Vm {
    return this.vms[0]!
  }

  /** Creates a VM object with the guest's memory slots. */
  createVm(thread: HostThread): Vm {
    const vm = this.kvm.createVm(thread, this.memory, this.operations.kernel, this.#config)
    for (const slot of this.memorySlots) vm.setMemoryRegion(thread, slot)
    return vm
  }

  /** A thread for a vCPU object; it sleeps until the VMM lets its vCPU run. */
  addVcpu(group: VcpuGroup, vcpu: Vcpu, vmpl: number): VmmVcpu {
    const { host } = this.kvm
    const affinity = affinityOf(this.#placement, this.pins, group.apicId, vmpl, host.threads.length)
    const thread = host.spawn(`vcpu${group.apicId}${vmpl < 0 ? "" : `.vmpl${vmpl}`}`, affinity)
    const self: VmmVcpu = { vcpu, thread, group, vmpl, interrupted: false }
    thread.program = vcpuThread(this, self)
    group.vcpus[Math.max(vmpl, 0)] = self
    this.vcpuThreads++
    return self
  }

  /** The same for a vCPU that is created while the guest runs: the creating thread pays for the new one. */
  spawnVcpu(group: VcpuGroup, vcpu: Vcpu, vmpl: number, by: HostThread): VmmVcpu {
    by.charge(PRIMITIVE.thread_spawn)
    return this.addVcpu(group, vcpu, vmpl)
  }

  fail(detail: string): void {
    this.failure ??= detail
  }
}
