import { type Host, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { GuestMode, HostHardware } from "@vmpl-lab/vmpl"
import { LastVmcb } from "./asid/LastVmcb.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import type { HostFrames } from "./HostFrames.ts"
import { ioctl } from "./Ioctl.ts"
import type { Meter } from "./Meter.ts"
import { Vm } from "./Vm.ts"
import type { VmplOperations } from "./VmplOperations.ts"

/** The KVM module of the host: VM objects, and what it keeps per core. */
export class Kvm {
  readonly host: Host
  readonly hardware: HostHardware
  readonly #enterCore: (thread: HostThread) => GuestMode
  readonly frames: HostFrames
  readonly meter: Meter
  readonly vms: Array<Vm> = []
  readonly lastVmcb: LastVmcb
  readonly #processors: Array<GuestMode | undefined>

  /** @param enterCore the guest mode of the core on which a thread runs, as the processor offers it */
  constructor(
    host: Host,
    hardware: HostHardware,
    enterCore: (thread: HostThread) => GuestMode,
    frames: HostFrames,
    meter: Meter
  ) {
    this.host = host
    this.hardware = hardware
    this.#enterCore = enterCore
    this.frames = frames
    this.meter = meter
    this.lastVmcb = new LastVmcb(host.cores.length)
    this.#processors = new Array(host.cores.length)
  }

  /** KVM_CREATE_VM. */
  createVm(thread: HostThread, memory: GuestMemory, operations: VmplOperations): Vm {
    ioctl(thread)
    thread.charge(PRIMITIVE.create_vm)
    const vm = new Vm(this, memory, operations)
    this.vms.push(vm)
    return vm
  }

  /** The core's guest-mode state, on behalf of the thread that now runs there. */
  processor(thread: HostThread): GuestMode {
    let processor = this.#processors[thread.core]
    if (processor === undefined) {
      processor = this.#enterCore(thread)
      this.#processors[thread.core] = processor
    }
    processor.thread = thread
    return processor
  }
}
