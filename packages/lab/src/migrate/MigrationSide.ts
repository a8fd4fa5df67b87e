import {
  type AgentCommand,
  type AgentPort,
  type AgentReply,
  type GuestPlan,
  migrationAgent,
  migrationWriter,
  type PageRange,
  resumedWriter,
  SVSM_RESULT,
  WRITER_RESUME,
  type WriterPlan
} from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import { DEFAULT_VM_CONFIG } from "@vmpl-lab/hypervisor"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { Profile } from "@vmpl-lab/sim"
import { type MigrationService, migrationService, type Protocol } from "@vmpl-lab/svsm"
import { OP, OutsidePort } from "@vmpl-lab/vmpl"
import { hostCertificates } from "../attestation/AttestRun.ts"
import { builtInFirmware } from "../Compare.ts"
import { DEFAULT_SCENARIO } from "../DefaultScenario.ts"
import { Machine } from "../Machine.ts"
import { RunFailed } from "../RunFailed.ts"
import { HIGH_RAM_GPA, svsmLaunch } from "../SvsmLaunch.ts"
import type { MigrationCallTime } from "./MigrateOptions.ts"
import { transportOptions } from "./Trust.ts"

/** Pages through which a host gets and gives what is sealed: a batch of them, or all VMSAs. */
export const BUFFER_PAGES = 40
const REGION = 0x20_0000
/** APIC ID of the agent. */
const AGENT = 0
const EVENTS_PER_CHUNK = 10_000

/** What one of the two machines is made of. */
export interface SideOptions {
  readonly name: "source" | "target"
  readonly strategy: Strategy
  readonly profile: Profile
  readonly seed: number
  readonly chip: number
  /** vCPUs of the guest, the agent's among them. */
  readonly vcpus: number
  readonly data: PageRange
  readonly paceNs: number
  readonly callEvery: number
  readonly writes: (apicId: number) => number
  readonly writesAfter: number
  readonly wrote?: (apicId: number, gpa: number, value: number) => void
  readonly called?: (call: MigrationCallTime) => void
}

/** Where the pages are that the guest writes to. */
export const dataRange = (pages: number): PageRange => ({ gpa: HIGH_RAM_GPA, pages })

/** One machine with a guest whose first vCPU is a migration agent and whose others write to memory. */
export class MigrationSide {
  readonly machine: Machine
  readonly service: MigrationService
  /** Writes that each vCPU has made on this machine. */
  readonly writes: Array<number>
  /** When vCPUs ran their last instruction before they parked, and their first one after, by their TSC in ns. */
  readonly parkedNs: Array<number> = []
  readonly resumedNs: Array<number> = []
  readonly #options: SideOptions
  readonly #port: AgentPort = new OutsidePort()
  readonly #buffer: PageRange
  /** The same as of `parkedNs`, by APIC ID. */
  readonly #parks: Array<number> = []

  constructor(options: SideOptions) {
    const { name, strategy, profile, seed, chip, vcpus, data } = options
    const incoming = name === "target"
    const memory = (data.pages + BUFFER_PAGES) * PAGE_SIZE
    const svsm = svsmLaunch(builtInFirmware(), vcpus, { highRam: Math.ceil(memory / REGION) * REGION })
    const writer = this.#writer(options)
    let plan: GuestPlan | null = null
    this.#options = options
    this.#buffer = { gpa: data.gpa + data.pages * PAGE_SIZE, pages: BUFFER_PAGES }
    this.writes = new Array(vcpus).fill(0)
    this.service = migrationService(transportOptions(seed, name))
    const accepts = incoming ? { gpa: data.gpa, pages: 0 } : data
    const agent = migrationAgent({ port: this.#port, buffer: this.#buffer, accepts })
    this.machine = new Machine({
      strategy,
      scenario: { ...DEFAULT_SCENARIO, name: "migrate", vcpus, calls: 0, boots: 1 },
      profile,
      seed,
      chip,
      svsm,
      calls: true,
      incoming,
      vmConfig: { ...DEFAULT_VM_CONFIG, vmplFaults: "run-vmpl0" },
      services: [this.#heard(this.service.protocol)],
      certificates: (identity) => hostCertificates(identity, "VCEK"),
      outside: [this.#port],
      body: (guest, apicId, caGpa) => {
        plan = guest
        return apicId === 0 ? agent(guest, apicId, caGpa) : migrationWriter(writer, guest, apicId)
      }
    })
    this.machine.hardware.programs.install(WRITER_RESUME, () => resumedWriter(writer, plan!))
  }

  /** All that its vCPUs have written. */
  get written(): number {
    return this.writes.reduce((sum, each) => sum + each, 0)
  }

  /** VMPL switches that have been completed so far. */
  get switches(): number {
    return this.machine.meter.oneWay.ns.length
  }

  /** From power-on until the agent asks what to do. */
  *boot(): Generator<void, AgentReply> {
    return yield* this.#untilAsked()
  }

  /** One command, until the agent asks for the next. */
  *command(kind: AgentCommand["kind"], value = 0, waitNs = 0): Generator<void, AgentReply> {
    const { meter } = this.machine
    const before = meter.switching(AGENT).switchNs
    this.#port.answer({ kind, value, waitNs: Math.ceil(waitNs) })
    const reply = yield* this.#untilAsked()
    const { result, rdx, callNs } = reply
    const switchNs = meter.switching(AGENT).switchNs - before
    if (kind !== "wait") this.#options.called?.({ side: this.#options.name, kind, result, rdx, ns: callNs, switchNs })
    return reply
  }

  /** PARK does not return: its time is up to the SVSM's last store, which clears the call. */
  #heard(protocol: Protocol): Protocol {
    const { called, name } = this.#options
    if (called === undefined) return protocol
    const completed: Protocol["completed"] = (state, apicId, operation) => {
      protocol.completed?.(state, apicId, operation)
      const caller = [...this.service.migration.parking].find((vmsa) => vmsa.apicId === apicId)
      if (operation.op !== OP.WRITE || operation.address !== caller?.caGpa) return
      const { meter, vmm } = this.machine
      const ns = vmm.groups[apicId]!.active!.thread.time - this.#parks[apicId]!
      const switchNs = meter.openSwitchNs(apicId, caller.vmpl)
      called({ side: name, kind: "park", result: SVSM_RESULT.SUCCESS, rdx: 0, ns, switchNs })
    }
    return { ...protocol, completed }
  }

  /** The last command: the machine runs until its guest has done all its work. */
  *finish(): Generator<void, void> {
    const { machine } = this
    this.#port.answer({ kind: "end", value: 0, waitNs: 0 })
    while (machine.stepMany(EVENTS_PER_CHUNK)) yield
    const failure = machine.failure()
    if (failure !== null) throw this.#failed(failure)
  }

  /** What the host finds in the shared buffer. */
  take(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let at = 0; at < length; at += PAGE_SIZE)
      bytes.set(this.#host.readPage(this.#frame(at)).subarray(0, length - at), at)
    return bytes
  }

  /** What the host puts there. */
  put(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
      const page = new Uint8Array(PAGE_SIZE)
      page.set(bytes.subarray(at, at + PAGE_SIZE))
      this.#host.writePage(this.#frame(at), page)
    }
  }

  get #host() {
    return this.machine.hardware.host
  }

  #frame(offset: number): number {
    return this.machine.vmm.owner.frameForHost((this.#buffer.gpa + offset) / PAGE_SIZE)
  }

  *#untilAsked(): Generator<void, AgentReply> {
    const { machine } = this
    while (this.#port.open === undefined) {
      if (!machine.stepMany(EVENTS_PER_CHUNK)) throw this.#failed(machine.failure() ?? "the agent has ended")
      yield
    }
    return this.#port.open.ask
  }

  #failed(why: string): RunFailed {
    return new RunFailed({ why: `${this.#options.name} under ${this.#options.strategy.key}: ${why}` })
  }

  #writer({ data, paceNs, callEvery, seed, writes, writesAfter, wrote }: SideOptions): WriterPlan {
    return {
      data,
      paceNs,
      callEvery,
      seed: (apicId) => ((Math.imul(seed + 1, 0x9e37_79b1) ^ Math.imul(apicId, 0x85eb_ca6b)) >>> 0) | 1,
      writes,
      writesAfter,
      wrote: (apicId, gpa, value) => {
        this.writes[apicId]! += 1
        wrote?.(apicId, gpa, value)
      },
      parks: (apicId, ns) => {
        this.#parks[apicId] = ns
        this.parkedNs.push(ns)
      },
      resumes: (_apicId, ns) => this.resumedNs.push(ns)
    }
  }
}
