import { createHash } from "node:crypto"
import { AP_TRAMPOLINE_GPA, applicationProcessor, bootProcessor, type GuestBody, type GuestPlan } from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import { type Kvm, launch, type Meter, type VmConfig, type Vmm, type VmmVcpu } from "@vmpl-lab/hypervisor"
import type { PlatformIdentity, PlatformIdentityOptions, SnpFirmware } from "@vmpl-lab/psp"
import {
  ACCOUNT,
  type Host,
  type HostProgram,
  type HostThread,
  hostTime,
  type Profile,
  sumAccounts,
  type TraceSink,
  WAIT
} from "@vmpl-lab/sim"
import {
  IMAGE,
  type Protocol,
  SHIPPED_PROTOCOLS,
  SvsmState,
  svsmApplicationProcessor,
  svsmBootProcessor
} from "@vmpl-lab/svsm"
import type { Hardware, ProgramMemory } from "@vmpl-lab/vmpl"
import { callPlan } from "./CallPlan.ts"
import { GuestLog } from "./GuestLog.ts"
import { hostBytes } from "./HostBytes.ts"
import { type InterruptRun, interruptRun } from "./InterruptRun.ts"
import { guestRequestsOf, Platform } from "./Platform.ts"
import type { Scenario } from "./Scenario.ts"
import type { SvsmLaunch } from "./SvsmLaunch.ts"
import type { HostRecord } from "./WorkloadRecord.ts"
import { type Work, workOf } from "./workloads/Work.ts"

/** Virtual time without any call made or vCPU started, after the launch, that counts as a guest that hangs. */
const NO_PROGRESS_NS = 10_000_000_000

/** What one machine is made of. */
export interface MachineOptions {
  readonly strategy: Strategy
  readonly scenario: Scenario
  readonly profile: Profile
  readonly seed: number
  /** Which boot of the seed this is: its costs vary in their own way. */
  readonly boot?: number
  /** The workload of this boot. */
  readonly calls: boolean
  readonly svsm: SvsmLaunch
  /** Sees what happens on the host's threads. */
  readonly trace?: TraceSink
  /** Protocols of the SVSM beside its own. */
  readonly services?: ReadonlyArray<Protocol>
  /** What each vCPU does once it is up, instead of the scenario's workload. */
  readonly body?: GuestBody
  /** A workload in place of the scenario's, levels included. */
  readonly work?: Work
  /** Questions to the world outside of the simulation: it stops while one is open. */
  readonly outside?: ReadonlyArray<{ readonly open: unknown }>
  /** What the platform's firmware signs as. */
  readonly identity?: PlatformIdentityOptions | undefined
  /** The certificates that the host gives its guests, made for the platform that it has. */
  readonly certificates?: (identity: PlatformIdentity) => Uint8Array
  /** KVM's side of interrupts, where the guest has some without a workload that does. */
  readonly vmConfig?: VmConfig
  /** Level at which the guest boots, where it is another than the workload's. */
  readonly guestVmpl?: number
}

/** Time that the threads of one guest vCPU waited for a core; one thread may stand for several levels. */
const stolen = (vcpus: ReadonlyArray<VmmVcpu | null>): number =>
  sumAccounts(new Set(vcpus.flatMap((vcpu) => vcpu?.thread ?? [])))[ACCOUNT.STEAL]!

/** One host with one guest, from power-on to the guest's last call. */
export class Machine {
  readonly host: Host
  readonly hardware: Hardware
  readonly kvm: Kvm
  readonly vmm: Vmm
  readonly meter: Meter
  readonly log: GuestLog
  /** Launch digest, hex; empty until the launch has finished. */
  launchDigest = ""
  /** The SVSM's private data, which the host does not see. */
  readonly svsm: SvsmState
  /** Sources and measurement of interrupts, where the scenario has them. */
  readonly interrupts: InterruptRun | null
  /** Virtual time that the launch took. */
  launchNs = 0
  /** When it had finished. */
  launchedAt = 0
  /** Progress of the guest when it was last looked at, and the time then. */
  #progress = 0
  #progressAt = 0
  /** Core time spent and calls made when the last vCPU was ready. */
  #readyHostNs = 0
  #readyCalls = 0
  readonly #options: MachineOptions
  readonly #firmware: SnpFirmware

  constructor(options: MachineOptions) {
    const { strategy, scenario, profile, seed, svsm } = options
    const { vcpus, host } = scenario
    this.#options = options
    this.svsm = new SvsmState([...SHIPPED_PROTOCOLS, ...(options.services ?? [])])
    this.log = new GuestLog(vcpus)
    this.interrupts = interruptRun(scenario, seed, () => this.log.started === vcpus && this.log.finished === 0)
    const platform = new Platform({
      operations: strategy.operations,
      host,
      vcpus,
      memorySlots: svsm.memorySlots,
      profile,
      seed,
      boot: options.boot,
      rmpSwitches: scenario.rmpSwitches,
      strategyOptions: scenario.strategyOptions,
      vmConfig: options.vmConfig ?? this.interrupts?.vmConfig,
      counting: (apicId) => this.log.isReady(apicId),
      identity: options.identity,
      trace: options.trace
    })
    this.host = platform.host
    this.hardware = platform.hardware
    this.kvm = platform.kvm
    this.vmm = platform.vmm
    this.meter = platform.meter
    this.log.switching = (apicId) => this.meter.switching(apicId)
    this.log.allReady = () => {
      this.#readyHostNs = this.#hostNs()
      this.#readyCalls = this.log.callsMade
    }
    this.#firmware = platform.snp
    this.#installPrograms(this.hardware.programs)
    if (options.calls) this.interrupts?.attach(this.vmm)
    const main = this.host.spawn("vmm-main", -1)
    main.program = this.#main(main)
    this.host.start(main, 0)
  }

  /** Simulates up to `maxEvents` events. False when nothing is left to happen. */
  stepMany(maxEvents: number): boolean {
    const more = this.vmm.failure === null && this.#step(maxEvents)
    const progress = this.log.callsMade + this.log.started + (this.launchDigest === "" ? 0 : 1)
    if (progress !== this.#progress || this.launchDigest === "") {
      this.#progress = progress
      this.#progressAt = this.host.now
    } else if (this.host.now - this.#progressAt > NO_PROGRESS_NS) {
      this.vmm.fail(`the guest makes no progress since ${this.#progressAt} ns`)
    }
    return more
  }

  /** A question to the outside is open: nothing goes on before it is answered. */
  get isAsking(): boolean {
    return this.#options.outside?.some(({ open }) => open !== undefined) === true
  }

  /** With interrupts the end is the guest's: timers would go on for ever. */
  #step(maxEvents: number): boolean {
    if (this.interrupts === null && this.#options.outside === undefined) return this.host.stepMany(maxEvents)
    const { vcpus } = this.#options.scenario
    for (let left = maxEvents; left > 0; left--) {
      if (this.isAsking) return true
      if (this.log.finished === vcpus || !this.host.stepMany(1)) return false
    }
    return true
  }

  /** Why the guest did not come to its end, or null when it did. */
  failure(): string | null {
    const { vcpus } = this.#options.scenario
    if (this.vmm.failure !== null) return this.vmm.failure
    if (this.log.finished === vcpus) return null
    return `nothing left to run, but ${vcpus - this.log.finished} of ${vcpus} vCPUs have not finished`
  }

  /** What the host spent: core time of all threads per call from when all vCPUs were ready, and the rest over all. */
  hostRecord(): HostRecord {
    const calls = this.log.callsMade - this.#readyCalls
    const bytes = hostBytes(this.kvm.vms, this.vmm)
    return {
      cpuNsPerCall: calls === 0 ? null : (this.#hostNs() - this.#readyHostNs) / calls,
      stolenNs: this.vmm.groups.reduce((sum, group) => sum + stolen(group.vcpus), 0),
      bytesPerVcpu: bytes.reduce((sum, row) => sum + row.bytes, 0) / this.#options.scenario.vcpus,
      bytes
    }
  }

  #hostNs(): number {
    return hostTime(sumAccounts(this.host.threads))
  }

  /** SHA-256 over RMP, memory with its keys' owners, and virtual time, hex. */
  stateDigest(): string {
    const hash = createHash("sha256")
    this.hardware.rmp.digestInto((bytes) => hash.update(bytes))
    this.hardware.memory.digestInto((data) => hash.update(data))
    for (const { time, core } of this.host.threads) hash.update(`${time}@${core};`)
    return hash.digest("hex")
  }

  #installPrograms(programs: ProgramMemory): void {
    const { scenario, calls, svsm, seed, body, guestVmpl } = this.#options
    const { parameters, heapGpa } = svsm
    const state = this.svsm
    const base = parameters.svsm.gpa
    programs.install(base + IMAGE.BOOT_ENTRY, () => svsmBootProcessor(state, base))
    programs.install(base + IMAGE.AP_ENTRY, () => svsmApplicationProcessor(state, base))
    const work = this.#options.work ?? workOf(scenario, seed)
    const plan: GuestPlan = {
      vcpus: scenario.vcpus,
      secretsGpa: parameters.secretsGpa,
      heapGpa,
      ring: scenario.ring,
      calls: (apicId) => (calls ? callPlan(scenario, seed, apicId) : new Uint8Array(0)),
      report: this.log,
      ...work.guest(calls),
      ...(calls && this.interrupts !== null ? { body: this.interrupts.body } : {}),
      ...(body === undefined ? {} : { body }),
      ...(guestVmpl === undefined ? {} : { guestVmpl })
    }
    work.install(programs, plan, calls)
    programs.install(parameters.resetVector, () => bootProcessor(plan))
    programs.install(AP_TRAMPOLINE_GPA, () => applicationProcessor(plan))
  }

  /** The VMM's main thread: creates the guest, launches it, lets the vCPU threads go. */
  *#main(thread: HostThread): HostProgram {
    const { strategy, scenario, svsm } = this.#options
    strategy.operations.createGuest(this.vmm, thread, scenario.vcpus)
    const boot = this.vmm.groups[0]!.active!.vcpu
    const begin = thread.time
    const certificates = this.#options.certificates?.(this.#firmware.identity)
    const requests = guestRequestsOf(this.#firmware, certificates)
    const outcome = launch(this.vmm, thread, this.#firmware, svsm.plan, [boot], requests)
    this.launchNs = thread.time - begin
    this.launchedAt = thread.time
    if (!outcome.ok) {
      this.vmm.fail(outcome.detail)
      return
    }
    this.launchDigest = outcome.digest
    yield WAIT.SYNC
    for (const { active } of this.vmm.groups) {
      if (active !== null) this.host.wake(active.thread, thread, null)
    }
  }
}
