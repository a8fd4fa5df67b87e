import { createHash } from "node:crypto"
import { DEFAULT_STRATEGY_OPTIONS, type StrategyOptions } from "@vmpl-lab/hypervisor"
import { resolveSwitches, type Switches } from "@vmpl-lab/rmp"
import { PRIMITIVE, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import { assumedShare, type BreakdownRow, breakdown } from "./Breakdown.ts"
import {
  COUNTERS,
  type ComparisonRun,
  type CounterName,
  type HostObjects,
  type OperationName,
  type OperationRecord,
  type StrategyRun
} from "./ComparisonRun.ts"
import { interruptEntries, type StrategyInterrupts } from "./InterruptSummary.ts"
import type { Timeline } from "./observe/Timeline.ts"
import type { Scenario } from "./Scenario.ts"
import type { PairedJson } from "./statistics/PairedRuns.ts"
import { distribution, nearestRank } from "./statistics/Quantile.ts"
import { type QuantileIntervals, quantileIntervals } from "./statistics/QuantileInterval.ts"
import type { AcceptanceRecord, HostRecord, PanicRecord } from "./WorkloadRecord.ts"
import { workloadOf } from "./workloads/Work.ts"
import { keysOfWorkload, type WorkloadName } from "./workloads/Workload.ts"

/** Virtual nanoseconds of one operation. All null without samples. Quantiles are samples, by nearest rank. */
export interface Latency {
  readonly p50: number | null
  readonly p90: number | null
  readonly p99: number | null
  readonly mean: number | null
  readonly min: number | null
  readonly max: number | null
}

/** One operation under one strategy. */
export interface ResultEntry {
  readonly strategy: string
  readonly variant: string | null
  readonly operation: OperationName
  readonly samples: number
  readonly ns: Latency
  /** Percentiles 0 to 100 by nearest rank, virtual ns; null without samples. */
  readonly distribution: ReadonlyArray<number> | null
  /** Confidence intervals of p50, p90 and p99, virtual ns; null without samples. */
  readonly interval: QuantileIntervals | null
  /** How many times slower than the fastest strategy at the median; null without samples. */
  readonly ratioToFastest: number | null
  /** Means for one VMPL switch (a round trip has two); all null without samples. */
  readonly perSwitch: { readonly [K in CounterName]: number | null }
  readonly breakdown: ReadonlyArray<BreakdownRow>
  /** An AP create by VMPL and request: the first use of a level also creates its objects. Empty for the others. */
  readonly groups: ReadonlyArray<{ readonly name: string; readonly samples: number; readonly ns: Latency }>
  /** Share of the mean, from 0 to 1, that rests on assumed costs; null without samples. */
  readonly assumedShare: number | null
}

/** One strategy as a whole. */
export interface StrategyEntry {
  readonly strategy: string
  readonly variant: string | null
  readonly summary: string
  readonly hostObjects: HostObjects
  /** KVM's own objects, VMs and vCPUs, for each vCPU that the guest sees. */
  readonly kvmObjectsPerGuestVcpu: number
  readonly host: HostRecord
  /** From LAUNCH_FINISH until all levels of all vCPUs are up, and AP creates: the first of a boot, and those after it. */
  readonly boot: {
    readonly allUpNs: Latency
    readonly apCreate: ReadonlyArray<{ readonly name: string; readonly first: Latency; readonly later: Latency }>
  }
  /** Memory that the guest accepted; null where it accepted none. */
  readonly acceptance: AcceptanceRecord | null
  /** Where COCONUT-SVSM would have stopped the guest, and how often; null where the SVSM does not act as it. */
  readonly coconutPanics: ReadonlyArray<PanicRecord> | null
  readonly launchNs: number
  readonly virtualNs: number
  readonly stateDigest: string
  readonly guestDigest: string
}

/** The object that `compare --json` prints. */
export interface ComparisonJson {
  readonly seed: number
  readonly commit: string
  readonly profile: string
  readonly machine: string
  readonly scenario: string
  /** The scenario's values as run, command line included. */
  readonly parameters: Omit<Scenario, "name" | "rmpSwitches" | "workload" | "strategyOptions"> & {
    readonly workload: WorkloadName
    /** How the strategies do what published series leave open, every option spelled out. */
    readonly strategyOptions: StrategyOptions
  }
  /** How the model answers what the public documents leave open about the RMP, every switch spelled out. */
  readonly rmpSwitches: Switches
  /** Primitives that vary from one execution to the next; all others cost the same every time. */
  readonly varying: ReadonlyArray<string>
  /** Primitives of which it is drawn whether they are taken at all. */
  readonly occasional: ReadonlyArray<string>
  readonly firmware: ComparisonRun["firmware"]
  readonly launchDigest: string
  /** SHA-256 over the strategies' names and state digests. */
  readonly stateDigest: string
  /** What the guest saw, equal under every strategy; null would mean that a strategy changed what the guest saw. */
  readonly guestDigest: string | null
  readonly results: ReadonlyArray<ResultEntry>
  readonly strategies: ReadonlyArray<StrategyEntry>
  /** Interrupts from source to handler; only where the scenario has them. */
  readonly interrupts?: ReadonlyArray<StrategyInterrupts>
  /** One call with the median latency under each strategy, step by step; in the JSON that `compare` prints. */
  readonly timeline?: ReadonlyArray<Timeline>
  /** Strategies run by run on equal seeds; null where none were asked for. */
  readonly paired: PairedJson | null
  /** Host wall time: the only part that differs from run to run. */
  readonly wall: {
    readonly totalMs: number
    readonly strategies: ReadonlyArray<{ strategy: string; variant: string | null; ms: number }>
  }
}

/** What a summary is made from. */
export interface SummaryInput {
  readonly run: ComparisonRun
  readonly profile: Profile
  readonly scenario: Scenario
  readonly seed: number
  readonly commit: string
  readonly paired?: PairedJson | null
}

const NO_LATENCY: Latency = { p50: null, p90: null, p99: null, mean: null, min: null, max: null }

/** Quantiles, mean and extremes of virtual nanoseconds. */
export const latency = (samples: ReadonlyArray<number>): Latency => {
  if (samples.length === 0) return NO_LATENCY
  const sorted = Float64Array.from(samples).sort()
  return {
    p50: nearestRank(sorted, 50),
    p90: nearestRank(sorted, 90),
    p99: nearestRank(sorted, 99),
    mean: sorted.reduce((sum, ns) => sum + ns, 0) / sorted.length,
    min: sorted[0]!,
    max: sorted[sorted.length - 1]!
  }
}

const perSwitch = (record: OperationRecord): ResultEntry["perSwitch"] => {
  const switches = record.ns.length * record.switchesPerOperation
  const mean = (name: CounterName) => (switches === 0 ? null : record.counters[name] / switches)
  return Object.fromEntries(COUNTERS.map((name) => [name, mean(name)])) as { [K in CounterName]: number | null }
}

/** Primitives whose price varies from one execution to the next. */
const varyingOf = (profile: Profile) => PRIMITIVES.filter((name) => profile.primitives[name].quantiles !== undefined)

/** Primitives that are taken now and then only. */
const occasionalOf = (profile: Profile) =>
  PRIMITIVES.filter((name) => {
    const permille = profile.primitives[name].probability?.permille ?? 0
    return permille > 0 && permille < 1_000
  })

/** Steps on which an occasional one may follow; where such a step was taken, chance had a part, whatever it drew. */
const OCCASIONS: { readonly [K in PrimitiveName]?: ReadonlyArray<PrimitiveName> } = {
  srcu_grace_period: ["create_vcpu", "create_vcpu_first", "memslot_setup"],
  create_vm_tail: ["create_vm"]
}

/**
 * Whether chance had a part in an operation: in a price that varies, in whether a step was taken, or, where latencies
 * differ, in the mix of calls. Boots make no calls; they repeat exactly under a profile that leaves nothing to chance.
 */
const isDrawn = ({ operation, ns, countByPrimitive }: OperationRecord, profile: Profile): boolean => {
  const varying = varyingOf(profile)
  const taken = (name: PrimitiveName): boolean => countByPrimitive[PRIMITIVE[name]]! > 0
  const occasional = occasionalOf(profile)
  if (varying.some(taken) || occasional.some((name) => [name, ...(OCCASIONS[name] ?? [])].some(taken))) return true
  if (operation === "ap-create" && varying.length + occasional.length === 0) return false
  return ns.some((one) => one !== ns[0])
}

const results = (run: ComparisonRun, profile: Profile): ReadonlyArray<ResultEntry> => {
  const entries = run.runs.flatMap(({ strategy, variant, operations }) =>
    operations.map((record) => {
      const rows = breakdown(record, profile)
      return {
        strategy,
        variant,
        operation: record.operation,
        samples: record.ns.length,
        ns: latency(record.ns),
        distribution: distribution(record.ns),
        interval: quantileIntervals(record.ns, isDrawn(record, profile)),
        perSwitch: perSwitch(record),
        breakdown: rows,
        groups: record.groups.map(({ name, ns }) => ({ name, samples: ns.length, ns: latency(ns) })),
        assumedShare: assumedShare(rows)
      }
    })
  )
  return entries.map(({ strategy, variant, operation, samples, ns, ...rest }) => {
    const medians = entries.flatMap((other) => (other.operation === operation ? (other.ns.p50 ?? []) : []))
    const fastest = Math.min(...medians)
    // A free operation (every price zero) has no ratio.
    const ratioToFastest = ns.p50 === null || fastest === 0 ? null : ns.p50 / fastest
    return { strategy, variant, operation, samples, ns, ratioToFastest, ...rest }
  })
}

const strategyEntry = (run: StrategyRun): StrategyEntry => ({
  strategy: run.strategy,
  variant: run.variant,
  summary: run.summary,
  hostObjects: run.hostObjects,
  kvmObjectsPerGuestVcpu: (run.hostObjects.vms + run.hostObjects.vcpus) / run.guestVcpus,
  host: run.host,
  boot: {
    allUpNs: latency(run.boot.allUpNs),
    apCreate: run.boot.apCreate.map(({ name, firstNs, laterNs }) => ({
      name,
      first: latency(firstNs),
      later: latency(laterNs)
    }))
  },
  acceptance: run.acceptance,
  coconutPanics: run.coconutPanics,
  launchNs: run.launchNs,
  virtualNs: run.virtualNs,
  stateDigest: run.stateDigest,
  guestDigest: run.guestDigest
})

const digestOfStates = (runs: ReadonlyArray<StrategyRun>): string => {
  const hash = createHash("sha256")
  for (const run of runs) hash.update(`${run.strategy} ${run.variant ?? ""} ${run.stateDigest}\n`)
  return hash.digest("hex")
}

/** A scenario's values as run, its workload spelled out: what a result can be repeated by, with name and RMP switches. */
export const parametersOf = (scenario: Scenario): ComparisonJson["parameters"] => {
  const { vcpus, calls, boots, mix, ring, host } = scenario
  const strategyOptions = { ...DEFAULT_STRATEGY_OPTIONS, ...scenario.strategyOptions }
  const workload = { workload: workloadOf(scenario), ...keysOfWorkload(scenario) }
  const svsmKey = scenario.svsm === undefined ? {} : { svsm: scenario.svsm }
  return { ...workload, ...svsmKey, vcpus, calls, boots, mix, ring, strategyOptions, host }
}

/** The result of a comparison, ready to be printed. Equal inputs give equal objects, but for `wall`. */
export const summarize = ({ run, profile, scenario, seed, commit, paired = null }: SummaryInput): ComparisonJson => {
  const interrupts = interruptEntries(run.runs)
  const guestDigests = new Set(run.runs.map((one) => one.guestDigest))
  return {
    seed,
    commit,
    profile: profile.name,
    machine: profile.machine,
    scenario: scenario.name,
    parameters: parametersOf(scenario),
    rmpSwitches: resolveSwitches(scenario.rmpSwitches),
    varying: varyingOf(profile),
    occasional: occasionalOf(profile),
    firmware: run.firmware,
    launchDigest: run.launchDigest,
    stateDigest: digestOfStates(run.runs),
    guestDigest: guestDigests.size === 1 ? [...guestDigests][0]! : null,
    results: results(run, profile),
    strategies: run.runs.map(strategyEntry),
    ...(interrupts === undefined ? {} : { interrupts }),
    paired,
    wall: {
      totalMs: run.runs.reduce((ms, one) => ms + one.wallMs, 0),
      strategies: run.runs.map((one) => ({ strategy: one.strategy, variant: one.variant, ms: one.wallMs }))
    }
  }
}
