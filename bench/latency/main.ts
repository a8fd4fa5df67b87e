/**
 * The latencies that the model computes for the default scenario, over strategies and placements of threads, and how
 * far they move when every assumed cost is taken at the low or at the high end of its range. Virtual time: computed
 * from a profile, not measured, and equal on every machine. Run it with `npm run bench:latency`, options `--quick` and
 * `--json FILE`.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import {
  builtInFirmware,
  type ComparisonJson,
  DEFAULT_SCENARIO,
  parseProfile,
  type ResultEntry,
  runComparison,
  Scenario,
  summarize,
  svsmLaunch
} from "@vmpl-lab/lab"
import type { Basis, Cost, PrimitiveName, Profile } from "@vmpl-lab/sim"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { context } from "../support/Context.ts"
import { benchOptions, print } from "../support/Options.ts"
import { ROOT } from "../support/Root.ts"
import { columns } from "../support/Units.ts"

const SEED = 1
const PROFILE = "profiles/epyc-9654p.json"
const PLACEMENTS = ["spread", "same-core"] as const

const { quick, json } = benchOptions()
const profile = Result.getOrThrow(parseProfile(PROFILE, readFileSync(`${ROOT}${PROFILE}`, "utf8")))
const { commit } = context()

/** Primitives whose sum a source gives: how they share it is assumed, the sum is not, so they stay as they are. */
const summed = new Set<string>(profile.sums.flatMap(({ primitives }) => primitives))

/** The profile with every assumed cost outside the sums at one end of its range. */
const assumedAt = (end: "low" | "high"): Profile => {
  const moved = (name: string, cost: Cost): Cost => {
    if (cost.basis !== "assumed" || summed.has(name)) return cost
    // A spin loop must let time pass.
    return { ...cost, ns: Math.max(cost[end], 1), quantiles: undefined }
  }
  const primitives = Object.fromEntries(
    Object.entries(profile.primitives).map(([name, cost]) => [name, moved(name, cost)])
  ) as Record<PrimitiveName, Cost>
  return { ...profile, primitives }
}

const compare = (placement: (typeof PLACEMENTS)[number], prices: Profile): ComparisonJson => {
  const size = quick ? { calls: 100, boots: 2 } : {}
  const host = { ...DEFAULT_SCENARIO.host, placement }
  const scenario = new Scenario({ ...DEFAULT_SCENARIO, ...size, host })
  const image = builtInFirmware()
  const run = Effect.runSync(
    runComparison({
      image,
      svsm: svsmLaunch(image, scenario.vcpus),
      scenario,
      profile: prices,
      seed: SEED,
      strategies: STRATEGIES,
      onProgress: () => {}
    })
  )
  return summarize({ run, profile: prices, scenario, seed: SEED, commit })
}

/** Share of the mean by basis, from 0 to 1. */
const basisOf = ({ breakdown }: ResultEntry): Record<Basis, number> => {
  const shares = { measured: 0, published: 0, assumed: 0 }
  const all = breakdown.reduce((sum, { ns }) => sum + ns, 0)
  for (const { ns, basis } of breakdown) shares[basis] += all === 0 ? 0 : ns / all
  return shares
}

const results = PLACEMENTS.flatMap((placement) => {
  const nominal = compare(placement, profile)
  const low = compare(placement, assumedAt("low"))
  const high = compare(placement, assumedAt("high"))
  return nominal.results.map((result, i) => ({
    placement,
    strategy: result.strategy,
    variant: result.variant,
    operation: result.operation,
    samples: result.samples,
    ns: result.ns,
    ratioToFastest: result.ratioToFastest,
    basis: basisOf(result),
    p50WithAssumedCosts: { low: low.results[i]?.ns.p50 ?? null, high: high.results[i]?.ns.p50 ?? null },
    perSwitch: result.perSwitch,
    stateDigest: nominal.stateDigest
  }))
})

const us = (ns: number | null): string => (ns === null ? "-" : (ns / 1e3).toFixed(2))
const percent = (share: number): string => `${Math.round(share * 100)} %`

print("Simulated latencies in us of virtual time: computed from the profile, not measured.")
print(`Profile ${profile.name}: ${profile.machine}; seed ${SEED}${quick ? "; quick run, fewer samples" : ""}.`)
for (const placement of PLACEMENTS) {
  print()
  print(`Placement ${placement}`)
  const rows = results
    .filter((result) => result.placement === placement)
    .map(({ operation, strategy, samples, ns, p50WithAssumedCosts: range, basis }) => [
      `${operation}, ${strategy}`,
      String(samples),
      us(ns.p50),
      us(ns.p90),
      us(ns.p99),
      `${us(range.low)} to ${us(range.high)}`,
      percent(basis.measured),
      percent(basis.published),
      percent(basis.assumed)
    ])
  print(
    columns([
      ["", "samples", "p50", "p90", "p99", "p50, assumed low to high", "measured", "published", "assumed"],
      ...rows.sort((a, b) => ((a[0] ?? "") < (b[0] ?? "") ? -1 : 1))
    ])
  )
}

if (json !== undefined) {
  const result = { kind: "latency, simulated", quick, commit, profile: profile.name, seed: SEED, results }
  writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`)
}
