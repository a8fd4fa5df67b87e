import { type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import * as Effect from "effect/Effect"
import { builtInFirmware } from "../Compare.ts"
import { DEFAULT_SCENARIO } from "../DefaultScenario.ts"
import { InputInvalid, oneLine } from "../InputInvalid.ts"
import { Scenario } from "../Scenario.ts"
import { askedStrategies } from "../StrategyNames.ts"
import { svsmLaunch } from "../SvsmLaunch.ts"
import { type ClientLevels, clientNeeds, PLAIN_LEVELS } from "./ClientWork.ts"

/** The one strategy that `--strategy` names; InputInvalid for a name of none, or of several. */
export const oneStrategy = Effect.fnUntraced(function* (text: string) {
  const found = yield* askedStrategies([text])
  if (found.length === 1) return found[0]!
  const names = found.map(strategyName).join(", ")
  const line = oneLine(`--strategy: ${JSON.stringify(text)} stands for several strategies, expected one of ${names}`)
  return yield* new InputInvalid({ line })
})

/** The scenario of a guest of one vCPU that waits for what it is to do. */
export const serviceScenario = new Scenario({ ...DEFAULT_SCENARIO, name: "service", vcpus: 1, calls: 0, boots: 1 })

/** A guest of one vCPU with the built-in firmware, which waits for what it is to do. */
export const serviceGuest = (strategy: Strategy, levels: ClientLevels = PLAIN_LEVELS) => {
  const scenario = serviceScenario
  const svsm = svsmLaunch(builtInFirmware(), scenario.vcpus, clientNeeds(levels))
  return { name: strategyName(strategy), launched: { strategy, scenario, svsm, levels } }
}
