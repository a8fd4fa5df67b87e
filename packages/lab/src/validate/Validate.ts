import type { Profile } from "@vmpl-lab/sim"
import { builtInFirmware } from "../Compare.ts"
import { DEFAULT_SCENARIO } from "../DefaultScenario.ts"
import { deriveProfile } from "../derive/DeriveProfile.ts"
import { Scenario } from "../Scenario.ts"
import { svsmLaunch } from "../SvsmLaunch.ts"
import { simulated } from "../sensitivity/Evaluate.ts"
import { type Computed, PUBLISHED, type PublishedResult } from "./Published.ts"
import { runProbes, SWEEP_PAGES } from "./RunProbes.ts"

/** What an agreement is worth: none where the price was taken from that very result. */
export type Use = "in-sample" | "out-of-sample" | "not comparable"

export interface ValidationRow {
  readonly id: string
  readonly what: string
  readonly use: Use
  readonly unit: "ns" | "ratio"
  readonly predicted: number
  readonly published: number
  readonly low: number | null
  readonly high: number | null
  /** Predicted over published, less one. */
  readonly errorPercent: number
  readonly sources: ReadonlyArray<string>
  /** Clock that the profile was derived to for this row; null where it was used as it is. */
  readonly clockMhz: number | null
  readonly note: string | null
}

/** Time of a sweep over pages; `ns` of all of them. */
export interface SweepPoint {
  readonly instruction: "RMPADJUST" | "PVALIDATE"
  readonly pages: number
  readonly ns: number
}

export interface Validation {
  readonly rows: ReadonlyArray<ValidationRow>
  readonly sweeps: ReadonlyArray<SweepPoint>
  /** Largest deviation of a sweep from pages times the price of one page in the smallest sweep, per cent. */
  readonly sweepDeviationPercent: number
  /** Largest error, signs aside, per cent; null without such rows. */
  readonly worst: { readonly inSample: number | null; readonly outOfSample: number | null }
}

const ROUND_TRIP = { strategy: "multi-vmpl-vcpu", vcpus: 1, calls: 20 } as const

/** Ids that the profile gives as sources of its prices. */
const sourcesOf = ({ primitives, sums }: Profile): ReadonlySet<string> =>
  new Set([...Object.values(primitives), ...sums].flatMap(({ source }) => source.split(/,\s*/)))

const roundTripNs = (profile: Profile, seed: number): number => {
  const { strategy, vcpus, calls } = ROUND_TRIP
  const scenario = new Scenario({ ...DEFAULT_SCENARIO, vcpus, calls, boots: 1 })
  const svsm = svsmLaunch(builtInFirmware(), vcpus)
  const run = simulated({ scenario, seed, svsm, operation: "run-vmpl-round-trip" })(strategy, profile, 0)
  for (;;) {
    const { done, value } = run.next()
    if (done === true) return value.ns
  }
}

/** The profile on a machine with another clock, by the one rule that there is for that. */
const atClock = (profile: Profile, clockMhz: number | null): Profile => {
  if (clockMhz === null || profile.clockMhz === undefined || profile.clockMhz === clockMhz) return profile
  const clockRatio = clockMhz / profile.clockMhz
  return deriveProfile(profile, { name: profile.name, machine: profile.machine, clockRatio, mitigations: 1 })
}

const useOf = ({ fitsIf, notComparable }: PublishedResult, sources: ReadonlySet<string>): Use => {
  if (notComparable !== null) return "not comparable"
  return fitsIf !== null && sources.has(fitsIf) ? "in-sample" : "out-of-sample"
}

/**
 * Predicts published results by simulating the guest that they were measured with. A row is in-sample when the profile
 * names that very result as the source of a price. Yields between the machines simulated.
 */
export function* validate(profile: Profile, seed: number): Generator<void, Validation, void> {
  const computed = new Map<Profile, Computed>()
  const machines = new Map<number | null, Profile>()
  for (const { clockMhz } of PUBLISHED) if (!machines.has(clockMhz)) machines.set(clockMhz, atClock(profile, clockMhz))
  for (const machine of new Set([profile, ...machines.values()])) {
    computed.set(machine, { times: runProbes(machine, seed), roundTripNs: roundTripNs(machine, seed) })
    yield
  }
  const sources = sourcesOf(profile)
  const rows = PUBLISHED.map((result): ValidationRow => {
    const { id, what, unit, value, clockMhz, notComparable } = result
    const machine = machines.get(clockMhz)!
    const predicted = result.predict(computed.get(machine)!)
    return {
      id,
      what,
      use: useOf(result, sources),
      unit,
      predicted,
      published: value,
      low: result.low ?? null,
      high: result.high ?? null,
      errorPercent: (predicted / value - 1) * 100,
      sources: result.sources,
      clockMhz: machine === profile ? null : clockMhz,
      note: notComparable
    }
  })
  const sweeps = (["RMPADJUST", "PVALIDATE"] as const).flatMap((instruction) =>
    SWEEP_PAGES.map((pages) => ({
      instruction,
      pages,
      ns: computed.get(profile)!.times.get(`${instruction} ${pages}`)! * pages
    }))
  )
  return { rows, sweeps, sweepDeviationPercent: deviation(sweeps), worst: worstOf(rows) }
}

const deviation = (sweeps: ReadonlyArray<SweepPoint>): number =>
  Math.max(
    ...sweeps.map(({ instruction, pages, ns }) => {
      const first = sweeps.find((one) => one.instruction === instruction)!
      const straight = (first.ns / first.pages) * pages
      return straight === 0 ? 0 : Math.abs(ns / straight - 1) * 100
    })
  )

const worstOf = (rows: ReadonlyArray<ValidationRow>): Validation["worst"] => {
  const worst = (use: Use): number | null => {
    const errors = rows.filter((row) => row.use === use).map(({ errorPercent }) => Math.abs(errorPercent))
    return errors.length === 0 ? null : Math.max(...errors)
  }
  return { inSample: worst("in-sample"), outOfSample: worst("out-of-sample") }
}
