import { STRATEGIES, type Strategy } from "@vmpl-lab/hv-strategies"
import { EXIT_REASON } from "@vmpl-lab/hypervisor"
import type { ApCreation, Choreography } from "@vmpl-lab/kvm-live"
import { PRIMITIVE, PRIMITIVES, type Profile, type TraceSink } from "@vmpl-lab/sim"
import { builtInFirmware } from "../Compare.ts"
import { Machine } from "../Machine.ts"
import { RunFailed } from "../RunFailed.ts"
import { runStrategy } from "../RunStrategy.ts"
import { Scenario } from "../Scenario.ts"
import { svsmLaunch } from "../SvsmLaunch.ts"
import { nearestRank } from "../statistics/Quantile.ts"

/** Calls behind a predicted median: with constant prices each is the same. */
const CALLS = 50
const EVENTS_PER_CHUNK = 50_000
const SEED = 1

/** The host that a live placement is: how many cores the two threads have, and where they are pinned. */
const HOST = {
  "one core": { cores: 1, placement: "same-core" },
  "two cores": { cores: 2, placement: "two-cores" },
  unpinned: { cores: 2, placement: "unpinned" },
  "one thread": { cores: 1, placement: "same-core" },
  "lower bound": { cores: 1, placement: "same-core" },
  "upper bound": { cores: 1, placement: "same-core" }
} as const satisfies { readonly [P in Choreography["placement"]]: unknown }

const strategyOf = (key: string, variant: string | null): Strategy => {
  const found = STRATEGIES.find((one) => one.key === key && one.variant === variant)
  if (found === undefined) throw new RunFailed({ why: `no strategy ${key}${variant === null ? "" : `/${variant}`}` })
  return found
}

/**
 * The strategy of the model that takes the steps of a live case. The upper bound of multi-vmpl-vcpu is no strategy: user
 * space swaps registers, which is one thread with two vCPUs as far as the model's steps go.
 */
export const predictedBy = ({ strategy, variant, placement }: Choreography): Strategy =>
  placement === "upper bound" ? strategyOf("vcpu-per-vmpl", "vmm-one-thread") : strategyOf(strategy, variant)

const scenarioOf = (placement: Choreography["placement"], vcpus: number, calls: number): Scenario =>
  new Scenario({
    name: "live",
    vcpus,
    calls,
    boots: 1,
    mix: { QUERY_PROTOCOL: 1, PVALIDATE: 0, REMAP_CA: 0 },
    ring: "msr",
    host: HOST[placement]
  })

/**
 * The model's median round trip of a live case, virtual ns.
 * @throws RunFailed when the simulation does not come to its end
 */
export const predictRoundTrip = (one: Choreography, profile: Profile): number => {
  const scenario = scenarioOf(one.placement, 1, CALLS)
  const svsm = svsmLaunch(builtInFirmware(), scenario.vcpus)
  const run = runStrategy({ strategy: predictedBy(one), scenario, profile, seed: SEED, svsm })
  let step = run.next()
  while (step.done !== true) step = run.next()
  if (typeof step.value === "string") throw new RunFailed({ why: step.value })
  const trips = step.value.run.operations.find(({ operation }) => operation === "run-vmpl-round-trip")
  if (trips === undefined || trips.ns.length === 0) throw new RunFailed({ why: "the model made no round trip" })
  return nearestRank(Float64Array.from(trips.ns).sort(), 50)
}

/**
 * What the model's VMM spends on each creation at VMPL2, in order, virtual ns: from its decision what to do until it
 * calls KVM_RUN again.
 */
export const predictApCreations = (creation: ApCreation, profile: Profile, vcpus: number): ReadonlyArray<number> => {
  const scenario = scenarioOf("one core", vcpus, 0)
  const begins = new Map<number, number>()
  const taken: Array<number> = []
  const trace: TraceSink = (thread, kind, value, ns) => {
    if (kind === "KVM_EXIT") {
      if (value === EXIT_REASON.AP_CREATE) begins.set(thread.id, thread.time)
    } else if (kind === "charge" && value === PRIMITIVE.userspace_entry) {
      const begin = begins.get(thread.id)
      if (begin !== undefined) taken.push(thread.time - ns - begin)
      begins.delete(thread.id)
    }
  }
  const machine = new Machine({
    strategy: strategyOf(creation.strategy, creation.variant),
    scenario,
    profile,
    seed: SEED,
    calls: false,
    svsm: svsmLaunch(builtInFirmware(), vcpus),
    trace
  })
  while (machine.stepMany(EVENTS_PER_CHUNK)) {}
  const failure = machine.failure()
  if (failure !== null) throw new RunFailed({ why: failure })
  // The SVSM's own APs come first, one less than vCPUs; then the guest's level, all of them.
  return taken.slice(vcpus - 1)
}

/** The profile with nothing in it but what was measured: all else costs nothing, so that no guess can hide a gap. */
export const onlyMeasured = (profile: Profile): Profile => {
  const inSum = new Set(
    profile.sums.filter(({ basis }) => basis === "measured").flatMap(({ primitives }) => primitives)
  )
  const primitives = PRIMITIVES.map((name) => {
    const cost = profile.primitives[name]
    if (cost.basis === "measured" || inSum.has(name)) return [name, cost] as const
    // A PAUSE without length would let a spin loop spin for ever; none is on a path that is compared.
    if (name === "guest_pause") return [name, cost] as const
    const { quantiles: _, probability: __, ...rest } = cost
    return [name, { ...rest, ns: 0, low: 0, high: 0, note: "Not measured: left out." }] as const
  })
  return {
    ...profile,
    primitives: Object.fromEntries(primitives) as Profile["primitives"],
    sums: profile.sums.filter(({ basis }) => basis === "measured")
  }
}
