import type { Strategy } from "@vmpl-lab/hv-strategies"
import { parseFirmware, syntheticFirmware } from "@vmpl-lab/hypervisor"
import { DEFAULT_SCENARIO, runStrategy, Scenario, type StrategyRun, svsmLaunch } from "@vmpl-lab/lab"
import type { Profile } from "@vmpl-lab/sim"
import { profile } from "./guestRun.ts"

export interface ScenarioOptions {
  readonly vcpus?: number
  readonly calls?: number
  readonly boots?: number
  readonly ring?: "page" | "msr"
  readonly seed?: number
  readonly cores?: number
  readonly placement?: "spread" | "same-core"
  readonly mix?: Partial<Scenario["mix"]>
  readonly profile?: Profile
}

/** Runs a scenario of the default guest under one strategy, small unless told otherwise. */
export const runScenario = (strategy: Strategy, options: ScenarioOptions = {}): StrategyRun => {
  const { vcpus = 2, calls = 40, boots = 1, ring = "page", seed = 1, cores = 96, placement = "spread" } = options
  const mix = { ...DEFAULT_SCENARIO.mix, ...options.mix }
  const scenario = new Scenario({ name: "test", vcpus, calls, boots, mix, ring, host: { cores, placement } })
  const svsm = svsmLaunch(parseFirmware(syntheticFirmware(), "built-in firmware"), vcpus)
  const run = runStrategy({ strategy, scenario, profile: options.profile ?? profile, seed, svsm })
  for (;;) {
    const { done, value } = run.next()
    if (done !== true) continue
    if (typeof value === "string") throw new Error(value)
    return value.run
  }
}
