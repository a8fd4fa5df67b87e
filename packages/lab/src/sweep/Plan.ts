import { createHash } from "node:crypto"
import { strategyName } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import * as Result from "effect/Result"
import { InputInvalid, oneLine, shown } from "../InputInvalid.ts"
import { parseProfile } from "../ProfileFile.ts"
import type { Scenario } from "../Scenario.ts"
import { parseScenario } from "../ScenarioFile.ts"
import { knownStrategies, STRATEGY_NAMES, strategiesOf } from "../StrategyNames.ts"
import { type Prices, withPrices } from "../sensitivity/Prices.ts"
import { type Axis, withValueAt } from "./Axes.ts"

/** More points than this are a mistake: at a second each, a day on one core. */
const POINTS_MAX = 100_000

const NS_MAX = 1_000_000_000

/** One point of a grid, ready to be run. */
export interface Point {
  /** From 0, in the order of the grid: the last key of the file changes fastest. */
  readonly index: number
  /** SHA-256 of everything that the results depend on, the code's commit included. Hex. */
  readonly id: string
  /** The values at this point by the grid's keys. */
  readonly parameters: { readonly [key: string]: unknown }
  readonly scenario: Scenario
  readonly profile: Profile
  readonly seed: number
}

/** A grid, checked. */
export interface Plan {
  /** SHA-256 of the grid with its base files, its strategies and the version of the code. Hex. */
  readonly digest: string
  readonly commit: string
  readonly version: string
  readonly axes: ReadonlyArray<Axis>
  /** Names of the strategies that each point runs. */
  readonly strategies: ReadonlyArray<string>
  readonly points: number
  readonly at: (index: number) => Point
}

/** What a plan is made from. */
export interface PlanInput {
  readonly file: string
  readonly axes: ReadonlyArray<Axis>
  /** The value of the key `strategy`; undefined for all. */
  readonly strategy: unknown
  /** Base scenarios and profiles by the values of their axes, or under `undefined` where there is no such axis. */
  readonly scenarios: ReadonlyMap<unknown, Scenario>
  readonly profiles: ReadonlyMap<unknown, Profile>
  readonly commit: string
  readonly version: string
}

/** JSON with sorted keys: equal values have equal texts. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner
  )

const digestOf = (value: unknown): string => createHash("sha256").update(canonical(value)).digest("hex")

type Values = ReadonlyMap<Axis, unknown>
type Checked<A> = Result.Result<A, InputInvalid>

const scenarioAt = (input: PlanInput, label: string, values: Values): Checked<Scenario> => {
  let base: unknown
  let json: unknown
  for (const [{ target }, value] of values) if (target.to === "base scenario") base = value
  json = input.scenarios.get(base)
  for (const [{ target }, value] of values) {
    if (target.to === "scenario") json = withValueAt(json, target.path, value)
  }
  return parseScenario(label, JSON.stringify(json))
}

const profileAt = (input: PlanInput, label: string, values: Values): Checked<Profile> => {
  let base: unknown
  const prices: { -readonly [K in keyof Prices]: Prices[K] } = {}
  for (const [{ target, key }, value] of values) {
    if (target.to === "base profile") base = value
    if (target.to !== "price") continue
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > NS_MAX) {
      const line = `${input.file}: ${key}: expected a whole number of nanoseconds from 0 to ${NS_MAX}, got ${shown(value)}`
      return Result.fail(new InputInvalid({ line: oneLine(line) }))
    }
    prices[target.primitive] = value
  }
  let json: unknown = withPrices(input.profiles.get(base)!, prices)
  for (const [{ target }, value] of values) {
    if (target.to === "profile") json = withValueAt(json, target.path, value)
  }
  return parseProfile(label, JSON.stringify(json))
}

const strategiesAsked = ({ file, strategy }: PlanInput): Checked<ReadonlyArray<string>> => {
  if (strategy === undefined) return Result.succeed(STRATEGY_NAMES)
  const asked: ReadonlyArray<unknown> = Array.isArray(strategy) ? strategy : [strategy]
  const stranger = asked.find((name) => typeof name !== "string" || strategiesOf(name).length === 0)
  if (stranger !== undefined || asked.length === 0) {
    const line = `${file}: strategy: expected one or more of ${knownStrategies()}, got ${shown(asked.length === 0 ? [] : stranger)}`
    return Result.fail(new InputInvalid({ line: oneLine(line) }))
  }
  const chosen = new Set(asked.flatMap((name) => strategiesOf(String(name)).map(strategyName)))
  return Result.succeed(STRATEGY_NAMES.filter((name) => chosen.has(name)))
}

const seedTrouble = ({ file, axes }: PlanInput): InputInvalid | null => {
  const seeds = axes.find(({ target }) => target.to === "seed")?.values ?? []
  const bad = seeds.find((seed) => !Number.isSafeInteger(seed) || Number(seed) < 0)
  if (bad === undefined) return null
  const line = `${file}: seed: expected whole numbers from 0 to ${Number.MAX_SAFE_INTEGER}, got ${shown(bad)}`
  return new InputInvalid({ line: oneLine(line) })
}

/** Positions on the axes: the index in a mixed radix, last axis fastest. */
const valuesAt = (axes: ReadonlyArray<Axis>, index: number): Values => {
  const values = new Map<Axis, unknown>()
  let rest = index
  for (const axis of axes.toReversed()) {
    values.set(axis, axis.values[rest % axis.values.length])
    rest = Math.floor(rest / axis.values.length)
  }
  return new Map(axes.map((axis) => [axis, values.get(axis)]))
}

/** Parses each combination once: points that differ in the seed, say, share scenario and profile. */
const once = <A>(
  axes: ReadonlyArray<Axis>,
  concerns: (axis: Axis) => boolean,
  make: (values: Values) => Checked<A>
) => {
  const own = axes.filter(concerns)
  const known = new Map<string, Checked<{ readonly value: A; readonly digest: string }>>()
  return (values: Values) => {
    const key = JSON.stringify(own.map((axis) => values.get(axis)))
    const before = known.get(key)
    if (before !== undefined) return before
    const made = Result.map(make(values), (value) => ({ value, digest: digestOf(value) }))
    known.set(key, made)
    return made
  }
}

const SCENARIO = ["base scenario", "scenario"]
const PROFILE = ["base profile", "profile", "price"]

/** The first value that is refused even alone, in the first of the base files. */
const firstMistake = (input: PlanInput): InputInvalid | null => {
  const { file, axes } = input
  const bases = axes.filter(({ target }) => target.to.startsWith("base")).map((axis) => [axis, axis.values[0]] as const)
  for (const axis of axes) {
    for (const value of axis.values) {
      const alone: Values = new Map([...bases, [axis, value]])
      for (const check of [scenarioAt, profileAt]) {
        const checked: Checked<unknown> = check(input, `${file}: ${axis.key}`, alone)
        if (Result.isFailure(checked)) return checked.failure
      }
    }
  }
  return null
}

/**
 * Checks every value alone, so that a mistake is named by its key, and then every combination.
 *
 * @returns InputInvalid naming file, key or point, value and what was expected
 */
export const makePlan = (input: PlanInput): Checked<Plan> => {
  const { file, axes, commit, version } = input
  const strategies = strategiesAsked(input)
  if (Result.isFailure(strategies)) return Result.fail(strategies.failure)
  const seeds = seedTrouble(input)
  if (seeds !== null) return Result.fail(seeds)
  const points = axes.reduce((product, { values }) => product * values.length, 1)
  if (points > POINTS_MAX) {
    return Result.fail(new InputInvalid({ line: `${file}: ${points} points, expected at most ${POINTS_MAX}` }))
  }
  const mistake = firstMistake(input)
  if (mistake !== null) return Result.fail(mistake)
  const scenarioOf = once(
    axes,
    ({ target }) => SCENARIO.includes(target.to),
    (values) => scenarioAt(input, pointLabel(file, values), values)
  )
  const profileOf = once(
    axes,
    ({ target }) => PROFILE.includes(target.to),
    (values) => profileAt(input, pointLabel(file, values), values)
  )
  for (let index = 0; index < points; index++) {
    const values = valuesAt(axes, index)
    const scenario = scenarioOf(values)
    if (Result.isFailure(scenario)) return Result.fail(scenario.failure)
    const profile = profileOf(values)
    if (Result.isFailure(profile)) return Result.fail(profile.failure)
  }
  const names = strategies.success
  const at = (index: number): Point => {
    const values = valuesAt(axes, index)
    const scenario = Result.getOrThrow(scenarioOf(values))
    const profile = Result.getOrThrow(profileOf(values))
    const parameters = Object.fromEntries([...values].map(([{ key }, value]) => [key, value]))
    const seed = Number([...values].find(([{ target }]) => target.to === "seed")?.[1] ?? 1)
    const id = digestOf([scenario.digest, profile.digest, names, seed, commit, version])
    return { index, id, parameters, scenario: scenario.value, profile: profile.value, seed }
  }
  const bases = [[...input.scenarios], [...input.profiles]]
  const lines = axes.map(({ key, values }) => [key, values])
  return Result.succeed({
    digest: digestOf([lines, bases, names, version, commit]),
    commit,
    version,
    axes,
    strategies: names,
    points,
    at
  })
}

const pointLabel = (file: string, values: Values): string =>
  `${file}: at ${[...values].map(([{ key }, value]) => `${key} ${shown(value)}`).join(", ")}`
