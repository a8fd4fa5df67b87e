import { IOPM_SIZE, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { assert, type Host, type HostThread, PRIMITIVE } from "@vmpl-lab/sim"
import type { GuestMode, HostHardware } from "@vmpl-lab/vmpl"
import { LastVmcb } from "./asid/LastVmcb.ts"
import { type AsidFlush, SevAsids } from "./asid/SevAsids.ts"
import { HOST_SEV } from "./CpuidTable.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import { HALT_POLL, type HaltPollParameters } from "./HaltPoll.ts"
import type { HostFrames } from "./HostFrames.ts"
import type { InterruptMeter } from "./InterruptMeter.ts"
import { ioctl } from "./Ioctl.ts"
import type { Meter } from "./Meter.ts"
import { DEFAULT_STRATEGY_OPTIONS, type StrategyOptions } from "./StrategyOptions.ts"
import type { TracePoints } from "./TracePoints.ts"
import { Vm, type VmConfig } from "./Vm.ts"
import type { VmplOperations } from "./VmplOperations.ts"

/** The KVM module of the host: VM objects, and what it keeps per core. */
export class Kvm {
  readonly host: Host
  readonly hardware: HostHardware
  readonly #enterCore: (thread: HostThread) => GuestMode
  readonly frames: HostFrames
  readonly meter: Meter
  readonly vms: Array<Vm> = []
  /** Trace points; null when nobody listens. */
  trace: TracePoints | null = null
  /** Measures interrupts; null when nobody asks. */
  interruptMeter: InterruptMeter | null = null
  /** The thread that is in KVM's code, for kicks that it causes; null in a timer's interrupt. */
  running: HostThread | null = null
  /** How it does what the published series leave open. */
  options: StrategyOptions = DEFAULT_STRATEGY_OPTIONS
  /** Module parameters of halt polling. */
  haltPoll: HaltPollParameters = HALT_POLL
  /** System address of the I/O permission map, which intercepts every port of every guest. */
  readonly iopm: number
  readonly lastVmcb: LastVmcb
  /** ASIDs of encrypted guests. A freed one is used again after WBINVD everywhere and the firmware's DF_FLUSH. */
  readonly sevAsids: SevAsids
  /** The firmware's part of that; without firmware there is nothing that a DF_FLUSH could fail at. */
  asidFlush: AsidFlush = { wbinvdOnAllCpus: () => {}, dfFlush: () => "SUCCESS" }
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
    this.iopm = this.permissionMap(new Uint8Array(IOPM_SIZE).fill(0xff)) * PAGE_SIZE
    this.lastVmcb = new LastVmcb(host.cores.length)
    this.sevAsids = new SevAsids({
      capabilities: HOST_SEV,
      flush: {
        wbinvdOnAllCpus: () => this.asidFlush.wbinvdOnAllCpus(),
        dfFlush: () => this.asidFlush.dfFlush()
      },
      freed: (asid) => this.lastVmcb.forget(asid)
    })
    this.#processors = new Array(host.cores.length)
  }

  /** A permission map in frames of its own that follow each other. @returns the first */
  permissionMap(map: Uint8Array): number {
    const pages = map.length / PAGE_SIZE
    const first = this.frames.allocateContiguous(pages)
    for (let i = 0; i < pages; i++) {
      const stored = this.hardware.host.writePage(first + i, map.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE))
      assert(stored === 0, "KVM's own pages are hypervisor-owned")
    }
    return first
  }

  /** KVM_CREATE_VM. */
  createVm(thread: HostThread, memory: GuestMemory, operations: VmplOperations, config?: VmConfig): Vm {
    ioctl(thread)
    thread.charge(PRIMITIVE.create_vm)
    // Now and then the VM's worker thread waits for a lock of the process.
    if (this.host.costs.occurs(PRIMITIVE.create_vm_tail)) thread.charge(PRIMITIVE.create_vm_tail)
    const vm = new Vm(this, memory, operations, config)
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
