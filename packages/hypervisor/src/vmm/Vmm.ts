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

  /**
   * A vCPU descriptor with a thread of its own, which sleeps until the VMM lets the vCPU run. The creating thread pays
   * for it.
   */
  spawnVcpu(group: VcpuGroup, vcpu: Vcpu, vmpl: number, by: HostThread, threadPerLevel: boolean): VmmVcpu {
    by.charge(PRIMITIVE.thread_spawn)
    const { host } = this.kvm
    const level = threadPerLevel ? vmpl : -1
    const affinity = affinityOf(this.#placement, this.pins, group.apicId, level, host.threads.length)
    const thread = host.spawn(`vcpu${group.apicId}${threadPerLevel ? `.vmpl${vmpl}` : ""}`, affinity)
    thread.program = vcpuThread(this, group, thread)
    this.vcpuThreads++
    return this.#addVcpu(group, vcpu, vmpl, thread)
  }

  /** A vCPU descriptor that the thread of the group's first one runs too. */
  adoptVcpu(group: VcpuGroup, vcpu: Vcpu, vmpl: number): VmmVcpu {
    return this.#addVcpu(group, vcpu, vmpl, group.vcpus.find((known) => known !== null)!.thread)
  }

  #addVcpu(group: VcpuGroup, vcpu: Vcpu, vmpl: number, thread: HostThread): VmmVcpu {
    const self: VmmVcpu = { vcpu, thread, group, vmpl, interrupted: false }
    group.add(self)
    return self
  }

  fail(detail: string): void {
    this.failure ??= detail
  }
}
