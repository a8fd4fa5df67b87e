import { type HostProgram, type HostThread, PRIMITIVE, WAIT } from "@vmpl-lab/sim"
import { type DeviceInterrupt, signalMsi } from "../SignalMsi.ts"
import type { Vmm } from "../Vmm.ts"
import type { Device } from "./DeviceBus.ts"

/** One queue of the device: what it raises on each vCPU, and when. */
export interface MsiQueue {
  readonly vector: number
  /** Level that the queue belongs to. */
  readonly vmpl: number
  /** Virtual ns after the vCPU's driver has started it, ascending. */
  readonly times: (apicId: number) => ReadonlyArray<number>
}

/**
 * A device with a queue per source and an MSI for each: a write of an APIC ID to its register starts that vCPU's queues.
 * An I/O thread of the VMM brings the MSIs to KVM, one after the other.
 */
export class MsiDevice implements Device {
  readonly base: number
  readonly size = 4
  readonly #vmm: Vmm
  readonly #queues: ReadonlyArray<MsiQueue>
  readonly #thread: HostThread
  readonly #raised: Array<DeviceInterrupt> = []

  constructor(vmm: Vmm, base: number, queues: ReadonlyArray<MsiQueue>) {
    this.base = base
    this.#vmm = vmm
    this.#queues = queues
    this.#thread = vmm.kvm.host.spawn("device-io", -1)
    this.#thread.program = this.#io()
  }

  read(_offset: number, data: Uint8Array): void {
    data.fill(0)
  }

  write(_offset: number, data: Uint8Array): void {
    const apicId = data.reduceRight((sum, byte) => sum * 256 + byte, 0)
    if (apicId >= this.#vmm.groups.length) return
    const { host, running } = this.#vmm.kvm
    const begin = running?.time ?? host.now
    for (const queue of this.#queues) this.#next(apicId, queue, queue.times(apicId), 0, begin)
  }

  /** Sets the clock for the next interrupt of a queue: one timer a queue, however long it is. */
  #next(apicId: number, queue: MsiQueue, times: ReadonlyArray<number>, at: number, begin: number): void {
    const { host } = this.#vmm.kvm
    const offset = times[at]
    if (offset === undefined) return
    host.setTimer(begin + offset, (time) => {
      this.#raised.push({ apicId, vector: queue.vector, vmpl: queue.vmpl, raisedAt: time })
      host.wakeAt(this.#thread, time)
      this.#next(apicId, queue, times, at + 1, begin)
    })
  }

  *#io(): HostProgram {
    const { host } = this.#vmm.kvm
    for (;;) {
      const interrupt = this.#raised.shift()
      if (interrupt === undefined) {
        yield WAIT.BLOCK
        continue
      }
      this.#thread.time = Math.max(this.#thread.time, interrupt.raisedAt)
      this.#thread.charge(PRIMITIVE.vmm_dispatch)
      if (host.ahead(this.#thread)) yield WAIT.SYNC
      signalMsi(this.#vmm, this.#thread, interrupt)
    }
  }
}
