import { STRATEGIES, type Strategy } from "@vmpl-lab/hv-strategies"
import { builtInFirmware } from "../src/Compare.ts"
import { runStrategy, type StrategyInput } from "../src/RunStrategy.ts"
import { Scenario } from "../src/Scenario.ts"
import { latency } from "../src/Summary.ts"
import { svsmLaunch } from "../src/SvsmLaunch.ts"
import { profile, scenario } from "./fixture.ts"

const VCPUS = 3

/** Every strategy, with threads on cores of their own and crowded onto two: [name, strategy, scenario]. */
export const CASES: ReadonlyArray<readonly [string, Strategy, Scenario]> = STRATEGIES.flatMap((strategy) =>
  (["spread", "same-core"] as const).map((placement) => {
    const host = { ...scenario.host, placement, cores: placement === "spread" ? 96 : 2 }
    const small = new Scenario({ ...scenario, vcpus: VCPUS, calls: 30, boots: 1, host })
    return [`${strategy.key} ${strategy.variant ?? ""} ${placement}`, strategy, small] as const
  })
)

const svsm = svsmLaunch(builtInFirmware(), VCPUS)

export const inputOf = (strategy: Strategy, of: Scenario): StrategyInput => ({
  ...{ strategy, scenario: of, profile, seed: 5, svsm }
})

/** Runs a generator to its end. */
export const finish = <A>(work: Generator<unknown, A, void>): A => {
  let step = work.next()
  while (step.done !== true) step = work.next()
  return step.value
}

/** The unobserved run's round trips: their median and the digest of the final state. */
export const plainRun = (input: StrategyInput): { readonly p50: number; readonly stateDigest: string } => {
  const outcome = finish(runStrategy(input))
  if (typeof outcome === "string") throw new Error(outcome)
  const { operations, stateDigest } = outcome.run
  return { p50: latency(operations.find(({ operation }) => operation === "run-vmpl-round-trip")!.ns).p50!, stateDigest }
}
