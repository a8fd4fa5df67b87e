import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import * as Effect from "effect/Effect"
import { InputInvalid, oneLine } from "./InputInvalid.ts"

/** Names of all strategies, in the order of tables. */
export const STRATEGY_NAMES: ReadonlyArray<string> = STRATEGIES.map(strategyName)

/** Strategies by a key (all its variants) or by `key/variant`; none for a name that there is not. */
export const strategiesOf = (asked: string): ReadonlyArray<Strategy> =>
  STRATEGIES.filter((strategy) => asked === strategy.key || asked === strategyName(strategy))

/** What a strategy can be called, in words, for the line that refuses another name. */
export const knownStrategies = (): string => {
  const keys = new Set(STRATEGIES.map(({ key }) => key))
  const withVariant = STRATEGIES.filter(({ variant }) => variant !== null).map(strategyName)
  return `${[...keys].join(", ")}, or with a variant: ${withVariant.join(", ")}`
}

/**
 * The strategies that were asked for, once each and in the order of tables; all of them when none is named. Each text is
 * a list by commas of `key`, which takes all variants, or `key/variant`.
 * @returns the strategies, or the first name that is none
 */
export const chooseStrategies = (texts: ReadonlyArray<string>): ReadonlyArray<Strategy> | string => {
  if (texts.length === 0) return STRATEGIES
  const asked = texts.flatMap((text) => text.split(","))
  const stranger = asked.find((name) => strategiesOf(name).length === 0)
  if (stranger !== undefined) return stranger
  const chosen = new Set(asked.flatMap(strategiesOf))
  return STRATEGIES.filter((strategy) => chosen.has(strategy))
}

/** The strategies that a flag names; InputInvalid for a name that is none. */
export const askedStrategies = (
  texts: ReadonlyArray<string>,
  flag = "strategy"
): Effect.Effect<ReadonlyArray<Strategy>, InputInvalid> => {
  const chosen = chooseStrategies(texts)
  if (typeof chosen !== "string") return Effect.succeed(chosen)
  const line = oneLine(`--${flag}: ${JSON.stringify(chosen)} unknown, expected one of ${knownStrategies()}`)
  return Effect.fail(new InputInvalid({ line }))
}
