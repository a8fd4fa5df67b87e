import { type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import * as Effect from "effect/Effect"
import { builtInFirmware } from "../Compare.ts"
import { DEFAULT_SCENARIO } from "../DefaultScenario.ts"
import { InputInvalid, oneLine } from "../InputInvalid.ts"
import { Scenario } from "../Scenario.ts"
import { askedStrategies } from "../StrategyNames.ts"
import { svsmLaunch } from "../SvsmLaunch.ts"

/** The one strategy that a flag names; InputInvalid for a name of none, or of several. */
export const oneStrategy = Effect.fnUntraced(function* (text: string, flag = "strategy") {
  const found = yield* askedStrategies([text], flag)
  if (found.length === 1) return found[0]!
  const names = found.map(strategyName).join(", ")
  const line = oneLine(`--${flag}: ${JSON.stringify(text)} stands for several strategies, expected one of ${names}`)
  return yield* new InputInvalid({ line })
})

/** A guest of one vCPU with the built-in firmware, which waits for what it is to do. */
export const serviceGuest = (strategy: Strategy) => {
  const scenario = new Scenario({ ...DEFAULT_SCENARIO, name: "service", vcpus: 1, calls: 0, boots: 1 })
  const svsm = svsmLaunch(builtInFirmware(), scenario.vcpus)
  return { name: strategyName(strategy), launched: { strategy, scenario, svsm } }
}
