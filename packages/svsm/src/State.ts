import type { Program } from "@vmpl-lab/vmpl"
import { pause } from "@vmpl-lab/vmpl"
import type { CpuInterrupts } from "./Interrupts.ts"
import type { SvsmParameters } from "./Parameters.ts"

/** The VMSA and calling area that a CPU serves, if any. */
export interface GuestVmsa {
  readonly vmsaGpa: number
  caGpa: number
  readonly apicId: number
  /** Made by CREATE_VCPU; the boot VMSA is not. */
  readonly guestOwned: boolean
}

/** Each look that finds a lock taken doubles the PAUSEs until the next one, up to 64. */
const backOff = (times: number): number => Math.min(2 * times, 64)

/** Readers and one writer, spinning with PAUSE and backing off. */
export class RwLock {
  #readers = 0
  #writing = false;

  *read(): Program {
    for (let times = 1; this.#writing; times = backOff(times)) yield pause(times)
    this.#readers++
  }

  *write(): Program {
    for (let times = 1; this.#writing || this.#readers > 0; times = backOff(times)) yield pause(times)
    this.#writing = true
  }

  release(): void {
    if (this.#writing) this.#writing = false
    else this.#readers--
  }
}

/** The SVSM's private data, shared by its CPUs. */
export class SvsmState {
  parameters!: SvsmParameters
  /** Served pair of each CPU, by APIC ID. */
  readonly served: Array<GuestVmsa | null> = []
  /** Every VMSA that exists for the guest, with its calling area. */
  readonly registry: Array<GuestVmsa> = []
  /** GFNs of guest memory that this SVSM knows to be validated; it touches no other. */
  readonly validated = new Set<number>()
  /** GFNs that a CPU is validating at this moment. */
  readonly validating = new Set<number>()
  /** What each CPU does about interrupts, by APIC ID; empty where the SVSM takes none. */
  readonly interrupts: Array<CpuInterrupts> = []
  /** Users of the APIC protocol, the guest's boot code among them. */
  apicUsers = 1
  /** PVALIDATE reads; REMAP_CA and CREATE_VCPU write: a page must not become a VMSA while it is being granted. */
  readonly lock = new RwLock()
}
