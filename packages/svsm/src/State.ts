import type { Program } from "@vmpl-lab/vmpl"
import { pause } from "@vmpl-lab/vmpl"
import type { CpuInterrupts } from "./Interrupts.ts"
import { PageSet } from "./PageSet.ts"
import type { SvsmParameters } from "./Parameters.ts"
import type { SvsmService } from "./services/SvsmService.ts"

/** A VMSA and its calling area: one level of one vCPU. */
export interface GuestVmsa {
  readonly vmsaGpa: number
  caGpa: number
  readonly apicId: number
  readonly vmpl: number
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
  /** Protocols beside the SVSM's own. */
  readonly services: ReadonlyArray<SvsmService>
  /** What each CPU serves, by APIC ID and VMPL: the latest VMSA of a level. */
  readonly served: Array<Array<GuestVmsa | undefined>> = []
  /** The VMSA that a CPU runs when nobody calls, by APIC ID: the one whose call it served last. */
  readonly running: Array<GuestVmsa | undefined> = []
  /** Every VMSA that exists for the guest, with its calling area. */
  readonly registry: Array<GuestVmsa> = []
  /** GFNs of guest memory that this SVSM knows to be validated; it touches no other. */
  readonly validated = new PageSet()
  /** GFNs that a CPU is validating at this moment. */
  readonly validating = new PageSet()
  /** What each CPU does about interrupts, by APIC ID; empty where the SVSM takes none. */
  readonly interrupts: Array<CpuInterrupts> = []
  /** Users of the APIC protocol, the guest's boot code among them. */
  apicUsers = 1
  /** PVALIDATE reads; REMAP_CA and CREATE_VCPU write: a page must not become a VMSA while it is being granted. */
  readonly lock = new RwLock()

  constructor(services: ReadonlyArray<SvsmService> = []) {
    this.services = services
  }

  /** A VMSA that exists from now on: its CPU serves it in place of an earlier one of that level. */
  register(vmsa: GuestVmsa): void {
    this.registry.push(vmsa)
    const levels = this.served[vmsa.apicId]!
    levels[vmsa.vmpl] = vmsa
    const running = this.running[vmsa.apicId]
    if (running === undefined || running.vmpl === vmsa.vmpl) this.running[vmsa.apicId] = vmsa
  }
}
