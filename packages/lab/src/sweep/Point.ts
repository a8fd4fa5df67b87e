import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import { builtInFirmware } from "../Compare.ts"
import type { StrategyRun } from "../ComparisonRun.ts"
import { runStrategy } from "../RunStrategy.ts"
import { Scenario } from "../Scenario.ts"
import { type ComparisonJson, type ResultEntry, summarize } from "../Summary.ts"
import { svsmLaunch } from "../SvsmLaunch.ts"
import { behaviourNeeds } from "../workloads/Work.ts"

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

/** What comes of one point; nothing in it depends on the host's time. */
export interface PointOutcome extends Pick<ComparisonJson, "launchDigest" | "stateDigest" | "guestDigest"> {
  readonly results: ReadonlyArray<PointResult>
}

/** A worker's answer. */
export type JobAnswer =
  | { readonly index: number; readonly outcome: PointOutcome }
  | { readonly index: number; readonly failure: string }

/** Runs all strategies of one point. */
export const runPoint = ({ index, profile, strategies, seed, ...job }: Job): JobAnswer => {
  const scenario = new Scenario(job.scenario as Scenario)
  const image = builtInFirmware()
  const svsm = svsmLaunch(image, scenario.vcpus, behaviourNeeds(scenario))
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
  const { stateDigest, guestDigest } = json
  return { index, outcome: { launchDigest, stateDigest, guestDigest, results } }
}
