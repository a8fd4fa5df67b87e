import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import * as Effect from "effect/Effect"
import { InputInvalid, oneLine } from "./InputInvalid.ts"

/** Keys in the order of tables, each once. */
const keys: ReadonlyArray<string> = [...new Set(STRATEGIES.map(({ key }) => key))]

/**
 * The strategies that a command line names, once each and in the order of tables; all of them when it names none. Each
 * text is a list by commas of `key`, which takes all variants, or `key/variant`.
 * @returns the strategies, or the first name that is none
 */
export const chooseStrategies = (texts: ReadonlyArray<string>): ReadonlyArray<Strategy> | string => {
  if (texts.length === 0) return STRATEGIES
  const asked = texts.flatMap((text) => text.split(","))
  const isNamed = (name: string, strategy: Strategy): boolean =>
    name === strategy.key || name === strategyName(strategy)
  const stranger = asked.find((name) => !STRATEGIES.some((strategy) => isNamed(name, strategy)))
  return stranger ?? STRATEGIES.filter((strategy) => asked.some((name) => isNamed(name, strategy)))
}

/** For messages: what a strategy can be called. */
const strategyNames = (): string =>
  `${keys.join(", ")}, or with a variant: ${STRATEGIES.filter(({ variant }) => variant !== null)
    .map(strategyName)
    .join(", ")}`

/** The strategies that `--strategy` names; InputInvalid for a name that is none. */
export const askedStrategies = (texts: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Strategy>, InputInvalid> => {
  const chosen = chooseStrategies(texts)
  if (typeof chosen !== "string") return Effect.succeed(chosen)
  const line = oneLine(`--strategy: ${JSON.stringify(chosen)} unknown, expected one of ${strategyNames()}`)
  return Effect.fail(new InputInvalid({ line }))
}
