import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"

const means = (name: string, asked: string): boolean => name === asked || name.startsWith(`${asked}/`)

/** Strategies by a key (all its variants) or by `key/variant`; none for a name that there is not. */
export const strategiesOf = (asked: string): ReadonlyArray<Strategy> =>
  STRATEGIES.filter((strategy) => means(strategyName(strategy), asked))

/** All names in words, for the line that refuses another. */
export const knownStrategies = (): string => STRATEGIES.map(strategyName).join(", ")
