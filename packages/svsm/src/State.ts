import { BEHAVIOUR, type Behaviour } from "./Behaviour.ts"
import type { CoconutPanic } from "./CoconutPanic.ts"
import type { FirmwareMessages } from "./FirmwareMessages.ts"
import { SvsmHeap } from "./Heap.ts"
import type { CpuInterrupts } from "./Interrupts.ts"
import { type Lock, RwLock } from "./Lock.ts"
import { PageSet } from "./PageSet.ts"
import type { SvsmParameters } from "./Parameters.ts"
import type { Protocol } from "./protocols/Protocol.ts"
import { protocolTable, SHIPPED_PROTOCOLS } from "./protocols/Protocols.ts"
import type { ServiceManifest } from "./ServiceManifest.ts"

/** A VMSA and its calling area: one level of one vCPU. */
export interface GuestVmsa {
  readonly vmsaGpa: number
  caGpa: number
  readonly apicId: number
  readonly vmpl: number
  /** Made by CREATE_VCPU; the boot VMSA is not. */
  readonly guestOwned: boolean
  /** The host has run it. */
  hasRun?: boolean
}

/** The SVSM's private data, shared by its CPUs. */
export class SvsmState {
  parameters!: SvsmParameters
  /** Answers where specification and COCONUT-SVSM differ; the loader's parameters say which. */
  behaviour: Behaviour = BEHAVIOUR.specification
  /** By number. */
  readonly protocols: ReadonlyMap<number, Protocol>
  /** What the services of this SVSM say of themselves in reports; a service adds its own when it starts. */
  readonly services: Array<ServiceManifest> = []
  /** The way to the AMD-SP; null until the SVSM has read its key. */
  messages: FirmwareMessages | null = null
  /** Pages for whatever a service keeps. */
  readonly heap = new SvsmHeap()
  /** SEV_FEATURES of the start-up vCPU of the guest. */
  startUpFeatures = 0
  /** What each CPU serves, by APIC ID and VMPL: the latest VMSA of a level. */
  readonly served: Array<Array<GuestVmsa | undefined>> = []
  /** The VMSA that a CPU runs when nobody calls, by APIC ID: the one whose call it served last. */
  readonly running: Array<GuestVmsa | undefined> = []
  /** The VMSA that a CPU looks at or writes to at this moment, by APIC ID: another CPU must not give it away. */
  readonly serving: Array<GuestVmsa | undefined> = []
  /** Every VMSA that exists for the guest, with its calling area. */
  readonly registry: Array<GuestVmsa> = []
  /** GFNs of guest memory that this SVSM knows to be validated; it touches no other. */
  readonly validated = new PageSet()
  /** GFNs that a CPU is validating, rescinding or taking at this moment: no other CPU may rely on them. */
  readonly changing = new PageSet()
  /** GFN of the list that a CPU is working through, by APIC ID: it must stay what it is until the end. */
  readonly lists: Array<number | undefined> = []
  /** GFNs that the guest has deposited, with the level that did, oldest first: the SVSM's own for now. */
  readonly deposited = new Map<number, number>()
  /** What each CPU does about interrupts, by APIC ID; empty where the SVSM takes none. */
  readonly interrupts: Array<CpuInterrupts> = []
  /** Users of the APIC protocol, the guest's boot code among them. */
  apicUsers = 1
  /** Answers given where COCONUT-SVSM would have stopped, and how often; kept under its behaviour only. */
  readonly panics = new Map<CoconutPanic, number>()
  /**
   * PVALIDATE, DEPOSIT_MEM and WITHDRAW_MEM read; REMAP_CA, CREATE_VCPU and DELETE_VCPU write: a page must not become a
   * VMSA while it is being granted.
   */
  readonly lock: Lock

  /**
   * @param protocols what is served; numbers must differ
   * @param lock other than the one that keeps the calls apart, to see what becomes of them without
   */
  constructor(protocols: ReadonlyArray<Protocol> = SHIPPED_PROTOCOLS, lock: Lock = new RwLock()) {
    this.protocols = protocolTable(protocols)
    this.lock = lock
  }

  /** A VMSA that exists from now on: its CPU serves it in place of an earlier one of that level. */
  register(vmsa: GuestVmsa): void {
    this.registry.push(vmsa)
    const levels = this.served[vmsa.apicId]!
    levels[vmsa.vmpl] = vmsa
    const running = this.running[vmsa.apicId]
    if (running === undefined || running.vmpl === vmsa.vmpl) this.running[vmsa.apicId] = vmsa
  }

  /** A VMSA that exists no longer: its CPU goes on with its most privileged level that is left, if any. */
  unregister(vmsa: GuestVmsa): void {
    this.registry.splice(this.registry.indexOf(vmsa), 1)
    const levels = this.served[vmsa.apicId]!
    if (levels[vmsa.vmpl] === vmsa) levels[vmsa.vmpl] = undefined
    if (this.running[vmsa.apicId] === vmsa) this.running[vmsa.apicId] = levels.find((level) => level !== undefined)
  }

  /** Notes that COCONUT-SVSM would be no more. */
  wouldPanic(why: CoconutPanic): void {
    if (this.behaviour.name === "coconut") this.panics.set(why, (this.panics.get(why) ?? 0) + 1)
  }
}
