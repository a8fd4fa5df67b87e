import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import { builtInFirmware } from "../Compare.ts"
import type { StrategyRun } from "../ComparisonRun.ts"
import { runStrategy } from "../RunStrategy.ts"
import { Scenario } from "../Scenario.ts"
import { scenarioLaunch } from "../ScenarioLaunch.ts"
import { type ComparisonJson, type ResultEntry, type StrategyEntry, summarize } from "../Summary.ts"

/** What a worker needs to run one point: data only, so that it can cross to another thread. */
export interface Job {
  readonly index: number
  readonly scenario: object
  readonly profile: Profile
  readonly strategies: ReadonlyArray<string>
  readonly seed: number
}

/** A result as a sweep keeps it: without what would make most of the file's size. */
export type PointResult = Omit<ResultEntry, "distribution" | "breakdown" | "groups">

/** What a sweep keeps of a strategy as a whole: its host, its boot, the memory that its guest accepted. */
export type PointStrategy = Omit<StrategyEntry, "summary" | "stateDigest" | "guestDigest">

/** What comes of one point; nothing in it depends on the host's time. */
export interface PointOutcome
  extends Pick<ComparisonJson, "launchDigest" | "stateDigest" | "guestDigest" | "interrupts"> {
  readonly results: ReadonlyArray<PointResult>
  readonly strategies: ReadonlyArray<PointStrategy>
}

/** A worker's answer. */
export type JobAnswer =
  | { readonly index: number; readonly outcome: PointOutcome }
  | { readonly index: number; readonly failure: string }

/** Runs all strategies of one point. */
export const runPoint = ({ index, profile, strategies, seed, ...job }: Job): JobAnswer => {
  const scenario = new Scenario(job.scenario as Scenario)
  const image = builtInFirmware()
  const svsm = scenarioLaunch(image, scenario, seed)
  const runs: Array<StrategyRun> = []
  let launchDigest = ""
  for (const strategy of STRATEGIES) {
    if (!strategies.includes(strategyName(strategy))) continue
    const run = runStrategy({ strategy, scenario, profile, seed, svsm })
    let step = run.next()
    while (step.done !== true) step = run.next()
    if (typeof step.value === "string") return { index, failure: step.value }
    launchDigest = step.value.launchDigest
    runs.push(step.value.run)
  }
  const firmware = { name: image.name, bytes: image.bytes.length, sha256: "" }
  const json = summarize({ run: { launchDigest, firmware, runs }, profile, scenario, seed, commit: "" })
  const results = json.results.map(({ distribution: _d, breakdown: _b, groups: _g, ...result }) => result)
  const strategyEntries = json.strategies.map(({ summary: _s, stateDigest: _d, guestDigest: _g, ...entry }) => entry)
  const { stateDigest, guestDigest, interrupts } = json
  const taken = interrupts === undefined ? {} : { interrupts }
  const outcome = { launchDigest, stateDigest, guestDigest, results, strategies: strategyEntries, ...taken }
  return { index, outcome }
}
