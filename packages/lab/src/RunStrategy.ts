import { createHash } from "node:crypto"
import { type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import { OperationTotals } from "@vmpl-lab/hypervisor"
import type { Profile } from "@vmpl-lab/sim"
import {
  COUNTERS,
  type CounterName,
  type HostObjects,
  type LatencyGroup,
  type OperationName,
  type OperationRecord,
  type StrategyRun
} from "./ComparisonRun.ts"
import { Machine } from "./Machine.ts"
import type { Scenario } from "./Scenario.ts"
import type { SvsmLaunch } from "./SvsmLaunch.ts"
import { acceptanceRecord, BootTotals } from "./WorkloadRecord.ts"

/** Events between two pauses: a run can be interrupted there. */
const EVENTS_PER_CHUNK = 50_000

/** What a strategy is run on. */
export interface StrategyInput {
  readonly strategy: Strategy
  readonly scenario: Scenario
  readonly profile: Profile
  readonly seed: number
  readonly svsm: SvsmLaunch
}

/** A finished strategy, with the launch digest that all strategies share. */
export interface StrategyOutcome {
  readonly launchDigest: string
  readonly run: StrategyRun
}

/**
 * Runs all boots of a scenario under one strategy. Yields the work done so far (boots plus calls) between chunks.
 * @returns the outcome, or why the guest did not come to its end
 */
export function* runStrategy(input: StrategyInput): Generator<number, StrategyOutcome | string, void> {
  const { strategy, scenario, profile, seed, svsm } = input
  const begin = performance.now()
  const apCreate = new OperationTotals()
  const groups = new Map<string, Array<number>>()
  let first: Machine | null = null
  const roundTripGroups = new Map<string, Array<number>>()
  const boots = new BootTotals()
  let callsMade = 0
  for (let boot = 0; boot < scenario.boots; boot++) {
    const machine = new Machine({ strategy, scenario, profile, seed, boot, calls: boot === 0, svsm })
    while (machine.stepMany(EVENTS_PER_CHUNK)) yield boot + callsMade + machine.log.callsMade
    const failure = machine.failure()
    if (failure !== null) return `${strategyName(strategy)}, boot ${boot}: ${failure}`
    callsMade += machine.log.callsMade
    apCreate.merge(machine.meter.apCreate)
    for (const [name, ns] of machine.meter.apCreateGroups) groups.set(name, [...(groups.get(name) ?? []), ...ns])
    for (const [name, ns] of machine.meter.roundTripGroups) if (boot === 0) roundTripGroups.set(name, ns)
    boots.add(machine)
    first ??= machine
    yield boot + 1 + callsMade
  }
  const creations = record("ap-create", apCreate, 1, named(groups))
  return {
    launchDigest: first!.launchDigest,
    run: strategyRun(input, first!, creations, named(roundTripGroups), boots, performance.now() - begin)
  }
}

const strategyRun = (
  { strategy, scenario }: StrategyInput,
  machine: Machine,
  creations: OperationRecord,
  levelPairs: ReadonlyArray<LatencyGroup>,
  boots: BootTotals,
  wallMs: number
): StrategyRun => {
  const operations = [
    creations,
    record("run-vmpl-round-trip", machine.meter.roundTrip, 2, levelPairs),
    record("run-vmpl-one-way", machine.meter.oneWay, 1)
  ]
  return {
    strategy: strategy.key,
    variant: strategy.variant,
    summary: strategy.summary,
    operations,
    ...(machine.interrupts === null ? {} : { interrupts: machine.interrupts.close(machine.vmm) }),
    hostObjects: hostObjects(machine),
    guestVcpus: scenario.vcpus,
    host: machine.hostRecord(),
    boot: boots.record(),
    acceptance: acceptanceRecord(machine),
    coconutPanics: machine.svsm.behaviour.name === "coconut" ? boots.panics() : null,
    stateDigest: digestOf(machine.stateDigest(), operations),
    guestDigest: machine.log.digest(),
    virtualNs: machine.host.threads.reduce((latest, { time }) => Math.max(latest, time), 0),
    launchNs: machine.launchNs,
    wallMs
  }
}

/** The first boot's final state together with every sample of all boots. */
const digestOf = (state: string, operations: ReadonlyArray<OperationRecord>): string => {
  const hash = createHash("sha256").update(state)
  for (const { operation, ns } of operations) hash.update(operation).update(Float64Array.from(ns))
  return hash.digest("hex")
}

const named = (groups: ReadonlyMap<string, ReadonlyArray<number>>): ReadonlyArray<LatencyGroup> =>
  [...groups].sort(byName).map(([name, ns]) => ({ name, ns }))

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1)

const record = (
  operation: OperationName,
  totals: OperationTotals,
  switchesPerOperation: number,
  groups: ReadonlyArray<LatencyGroup> = []
): OperationRecord => ({
  operation,
  ns: totals.ns,
  switchesPerOperation,
  counters: Object.fromEntries(COUNTERS.map((name, i) => [name, totals.counters[i]!])) as Record<CounterName, number>,
  nsByPrimitive: Array.from(totals.nsByPrimitive),
  countByPrimitive: Array.from(totals.countByPrimitive),
  groups
})

const hostObjects = ({ kvm, vmm }: Machine): HostObjects => {
  const vcpus = kvm.vms.reduce((sum, vm) => sum + vm.vcpus.size, 0)
  return {
    vms: kvm.vms.length,
    vcpus,
    // KVM gives every vCPU object a VMCB and, with an in-kernel irqchip, a LAPIC.
    vmcbs: vcpus,
    lapics: vcpus,
    threads: vmm.vcpuThreads,
    nestedPageTables: kvm.hardware.nestedTables.size
  }
}
