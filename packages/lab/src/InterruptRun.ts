import { type BodyPlan, type GuestBody, type InterruptGuestPlan, interruptGuest } from "@vmpl-lab/guest"
import {
  DEFAULT_VM_CONFIG,
  InterruptMeter,
  type InterruptTag,
  type InterruptTotals,
  MsiDevice,
  type MsiQueue,
  type VmConfig,
  type Vmm
} from "@vmpl-lab/hypervisor"
import { HV_FEATURE, SEV_FEATURES } from "@vmpl-lab/sev-es"
import { RandomStream } from "@vmpl-lab/sim"
import type { SvsmInterrupts } from "@vmpl-lab/svsm"
import type { Scenario } from "./Scenario.ts"
import type { InterruptSource, Interrupts } from "./workloads/Interrupts.ts"
import { mixedBody } from "./workloads/Mixed.ts"

/** Port of the device that raises MSIs. */
const DEVICE_PORT = 0x600

/** How long the guest goes on when no source runs any more, virtual ns: many calls under any strategy. */
const DRAIN_NS = 2_000_000

/** A vector for each source and level, each in a priority class of its own. */
const VECTORS: { readonly [K in InterruptSource["source"]]: { readonly 0: number; readonly 2: number } } = {
  device: { 0: 0x71, 2: 0x41 },
  timer: { 0: 0x81, 2: 0x51 },
  ipi: { 0: 0x91, 2: 0x61 }
}

/** How the SVSM is launched for it. */
export interface InterruptLaunch {
  /** SEV_FEATURES of VMPL0 beside SNPActive. */
  readonly svsmFeatures: number
  readonly svsm: SvsmInterrupts
}

/** What became of one source's interrupts for one level, under one strategy. */
export interface InterruptRecord
  extends Pick<InterruptTotals, Exclude<keyof InterruptTotals, "directNs" | "delayedNs">> {
  readonly source: string
  readonly vmpl: number
  /** Latencies of those delivered at their own level, by whether that level ran when they were raised. */
  readonly directNs: ReadonlyArray<number>
  readonly delayedNs: ReadonlyArray<number>
}

const INJECTION_FEATURE = {
  normal: 0,
  restricted: SEV_FEATURES.RestrictedInjection,
  alternate: SEV_FEATURES.AlternateInjection,
  blocked: SEV_FEATURES.RestrictedInjection
} as const

/** Workloads that take interrupts: one always, one where its scenario says so. */
const TAKES_INTERRUPTS: ReadonlySet<Scenario["workload"]> = new Set(["interrupts", "mixed"])

const keysOf = ({ workload, interrupts }: Scenario): Interrupts | null =>
  TAKES_INTERRUPTS.has(workload) ? (interrupts ?? null) : null

/** How to launch the guest of a scenario with interrupts; undefined for any other. */
export const interruptLaunch = (scenario: Scenario): InterruptLaunch | undefined => {
  const keys = keysOf(scenario)
  if (keys === null) return undefined
  const at0 = (kind: InterruptSource["source"]): InterruptSource | undefined =>
    keys.sources.find(({ source, vmpl }) => source === kind && vmpl === 0)
  const timer = at0("timer")
  const ipi = at0("ipi")
  return {
    svsmFeatures: INJECTION_FEATURE[keys.svsmInjection],
    svsm: {
      guestFeatures: SEV_FEATURES.SNPActive | INJECTION_FEATURE[keys.injection],
      takes: keys.svsmInjection !== "blocked",
      timerVector: timer === undefined ? 0 : VECTORS.timer[0],
      timerPeriodNs: timer?.periodNs ?? 0,
      ipiVector: ipi === undefined ? 0 : VECTORS.ipi[0],
      callsPerIpi: ipi?.everyCalls ?? 0
    }
  }
}

/**
 * KVM for a guest that takes interrupts. The series with planes want the I/O APIC in user space; MSIs do not need one.
 * @param lowerLevelEvents VMPL0 gets those of the levels below it, as alternate injection needs
 */
export const interruptVmConfig = (lowerLevelEvents: boolean): VmConfig => {
  const alternate = lowerLevelEvents ? HV_FEATURE.ALTERNATE_INJECTION : 0
  const hvFeatures = DEFAULT_VM_CONFIG.hvFeatures | HV_FEATURE.RESTRICTED_INJECTION | alternate
  return { ...DEFAULT_VM_CONFIG, irqchip: "split", lowerLevelEvents, hvFeatures }
}

/** A launch under alternate injection with no source of interrupts at VMPL0. */
export const ALTERNATE_INJECTION: InterruptLaunch = {
  svsmFeatures: INJECTION_FEATURE.restricted,
  svsm: {
    guestFeatures: SEV_FEATURES.SNPActive | INJECTION_FEATURE.alternate,
    takes: true,
    timerVector: 0,
    timerPeriodNs: 0,
    ipiVector: 0,
    callsPerIpi: 0
  }
}

/** One machine's sources, guest and measurement of interrupts. */
export class InterruptRun {
  readonly vmConfig: VmConfig
  readonly body: GuestBody
  readonly #meter: InterruptMeter
  readonly #queues: ReadonlyArray<MsiQueue>

  /**
   * @param first what each vCPU does first while sources run
   * @param counting whether the guest is up: what is raised before does not count
   */
  constructor(keys: Interrupts, first: BodyPlan | undefined, seed: number, counting: () => boolean) {
    this.vmConfig = interruptVmConfig(keys.injection === "alternate")
    this.body = interruptGuest(guestPlan(keys, first))
    const tags = keys.sources.map(({ source, vmpl }): [number, InterruptTag] => [
      VECTORS[source][vmpl],
      { source, vmpl }
    ])
    this.#meter = new InterruptMeter(new Map(tags), counting)
    this.#queues = keys.sources.filter(({ source }) => source === "device").map((source) => queueOf(keys, source, seed))
  }

  /** Puts the device into the machine, and the meter. */
  attach(vmm: Vmm): void {
    vmm.devices.addPort(new MsiDevice(vmm, DEVICE_PORT, this.#queues))
    vmm.kvm.interruptMeter = this.#meter
  }

  get meter(): InterruptMeter {
    return this.#meter
  }

  /** The end of the run: what has become of everything. */
  close({ kvm }: Vmm): ReadonlyArray<InterruptRecord> {
    const lapics = kvm.vms.flatMap(({ vcpus }) => [...vcpus.values()].map(({ lapic }) => lapic!))
    this.#meter.close((apicId, vector) => lapics.some((lapic) => lapic.id === apicId && lapic.isRequested(vector)))
    return [...this.#meter.totals].map(([{ source, vmpl }, totals]) => ({ source, vmpl, ...totals }))
  }
}

/** The interrupts of a machine; null where its scenario has none. */
export const interruptRun = (scenario: Scenario, seed: number, counting: () => boolean): InterruptRun | null => {
  const keys = keysOf(scenario)
  if (keys === null) return null
  return new InterruptRun(keys, scenario.workload === "mixed" ? mixedBody(scenario) : undefined, seed, counting)
}

const guestPlan = (
  { sources, svsmShare, pagesPerCall, durationNs, leavesApicAtNs }: Interrupts,
  first: BodyPlan | undefined
): InterruptGuestPlan => {
  const own = (kind: "timer" | "ipi"): InterruptGuestPlan["timer"] => {
    const source = sources.find((one) => one.source === kind && one.vmpl === 2)
    return source === undefined ? null : { vector: VECTORS[kind][2], periodNs: source.periodNs! }
  }
  return {
    devicePort: DEVICE_PORT,
    timer: own("timer"),
    ipi: own("ipi"),
    svsmShare,
    pagesPerCall,
    durationNs,
    drainNs: DRAIN_NS,
    leavesApicAtNs: leavesApicAtNs ?? null,
    first
  }
}

/** A device's interrupts come at times of its own, the same under every strategy: between half and one and a half periods apart. */
const queueOf = ({ durationNs }: Interrupts, { vmpl, periodNs }: InterruptSource, seed: number): MsiQueue => ({
  vector: VECTORS.device[vmpl],
  vmpl,
  times: (apicId) => {
    const stream = new RandomStream(seed, `interrupts:${vmpl}:${apicId}`)
    const times: Array<number> = []
    const period = periodNs!
    const gap = (): number => stream.int(Math.floor(period / 2), Math.floor(period / 2) + period)
    for (let at = gap(); at < durationNs; at += gap()) times.push(at)
    return times
  }
})
