/**
 * Speed of the simulator on this machine: measured, unlike the latencies that it computes. Fresh Node processes are the
 * observations; rounds go through the cases forwards and backwards in turn. Run it with `npm run bench:host`, options
 * `--quick` and `--json FILE`.
 */
import { writeFileSync } from "node:fs"
import { context } from "../support/Context.ts"
import { benchOptions, print } from "../support/Options.ts"
import { type Ratio, ratio, type Statistics, statistics } from "../support/Statistics.ts"
import { columns, shown } from "../support/Units.ts"
import {
  ACCESS_CHECKS,
  CASES,
  type Case,
  EXITS,
  HAND_OFFS,
  KEY_CHANGE,
  REFERENCE_CHECKS,
  SIMULATIONS
} from "./Cases.ts"
import type { Observation } from "./Observe.ts"
import { compilerVersion } from "./Reference.ts"
import { simpyVersion } from "./Simpy.ts"

const ROUNDS = { full: 10, quick: 1 }
/** Above this share of the median, the spread is worth a warning. */
const MAD_SHARE_MAX = 0.05

const { quick, json } = benchOptions()
const rounds = quick ? ROUNDS.quick : ROUNDS.full
const machine = context()
const missing = CASES.flatMap(({ name, missing }) => {
  const why = missing?.() ?? null
  return why === null ? [] : [{ name, why }]
})
const isMissing = (name: string): boolean => missing.some((one) => one.name === name)
const cases = CASES.filter(({ name, fullOnly }) => !(quick && fullOnly === true) && !isMissing(name))

const collected = new Map<string, Array<Observation>>(cases.map(({ name }) => [name, []]))
const observe = (one: Case) => one.observe(quick)
if (!quick) for (const one of cases) if (one.name.startsWith("default compare")) observe(one)
for (let round = 0; round < rounds; round++) {
  for (const one of round % 2 === 0 ? cases : cases.toReversed()) collected.get(one.name)?.push(observe(one))
}

/** Statistics of one figure of one case. */
const statisticsOf = (name: string, value: string): Statistics =>
  statistics((collected.get(name) ?? []).map(({ values }) => values[value] ?? Number.NaN))

const warnings: Array<string> = missing.map(({ name, why }) => `${name}: left out, ${why}`)
for (const [name, observations] of collected) {
  if (new Set(observations.map(({ digest }) => digest)).size > 1)
    warnings.push(`${name}: runs disagree on their result`)
}
const disagree = (names: ReadonlyArray<string>) =>
  new Set(names.map((name) => collected.get(name)?.[0]?.digest)).size > 1
if (disagree(Object.values(ACCESS_CHECKS))) warnings.push("the three access checks disagree on their answers")
if (disagree(Object.values(REFERENCE_CHECKS))) warnings.push("C and the simulator disagree on the access checks")
if (disagree(Object.values(EXITS))) warnings.push("exits have other answers with the trace on")
if (!isMissing(HAND_OFFS.simpy) && disagree(Object.values(HAND_OFFS)))
  warnings.push("SimPy and the simulator disagree on the hand-offs")
if (disagree(SIMULATIONS)) warnings.push("the strategies disagree on what the guest saw")
if ((machine.loadAverage[0] ?? 0) > machine.cpus / 2) {
  warnings.push(`the machine was busy: load average ${machine.loadAverage[0]} on ${machine.cpus} CPUs`)
}
if (quick) warnings.push("a quick run: one observation of each, good for nothing but seeing that it works")

const results = cases.map((one) => ({
  name: one.name,
  warmUp: one.warmUp,
  digest: collected.get(one.name)?.[0]?.digest ?? "",
  figures: one.figures.map((figure) => ({ ...figure, ...statisticsOf(one.name, figure.value) }))
}))
for (const { name, figures } of results) {
  for (const { value, mad, median } of figures) {
    if (mad > median * MAD_SHARE_MAX) warnings.push(`${name}, ${value}: wide spread, MAD ${shown(mad)}`)
  }
}

const ratios: ReadonlyArray<{ readonly name: string } & Ratio> = [
  {
    name: `${ACCESS_CHECKS.map} to ${ACCESS_CHECKS.typed}`,
    ...ratio(statisticsOf(ACCESS_CHECKS.map, "ns"), statisticsOf(ACCESS_CHECKS.typed, "ns"))
  },
  {
    name: `${ACCESS_CHECKS.objects} to ${ACCESS_CHECKS.typed}`,
    ...ratio(statisticsOf(ACCESS_CHECKS.objects, "ns"), statisticsOf(ACCESS_CHECKS.typed, "ns"))
  },
  {
    name: `${REFERENCE_CHECKS.typed} to ${REFERENCE_CHECKS.c} (goal: at most 1.2)`,
    ...ratio(statisticsOf(REFERENCE_CHECKS.typed, "ns"), statisticsOf(REFERENCE_CHECKS.c, "ns"))
  },
  {
    name: `${EXITS.off} to ${EXITS.on}`,
    ...ratio(statisticsOf(EXITS.off, "exitsPerSecond"), statisticsOf(EXITS.on, "exitsPerSecond"))
  },
  ...(isMissing(HAND_OFFS.simpy)
    ? []
    : [
        {
          name: `${HAND_OFFS.host} to ${HAND_OFFS.simpy} (goal: at least 5)`,
          ...ratio(
            statisticsOf(HAND_OFFS.host, "handOffsPerSecond"),
            statisticsOf(HAND_OFFS.simpy, "handOffsPerSecond")
          )
        }
      ]),
  {
    name: "write under another key to a copy of 4 KiB",
    ...ratio(statisticsOf(KEY_CHANGE, "change"), statisticsOf(KEY_CHANGE, "copy"))
  }
]

const between = (interval: readonly [number, number] | null): string =>
  interval === null ? "-" : `${shown(interval[0])} to ${shown(interval[1])}`

print(
  `Speed of the simulator, measured: ${rounds} fresh ${rounds === 1 ? "process" : "processes"} for each case, order alternating.`
)
print(
  `${machine.cpu}, ${machine.cpus} CPUs; Node ${machine.node}; load ${machine.loadAverage.join(" ")}; ` +
    `commit ${machine.commit.slice(0, 12)}${machine.dirty ? " with changes" : ""}`
)
print()
const rows = results.flatMap(({ name, figures }) =>
  figures.map(({ unit, median, mad, interval, goal }) => [
    `${name}: ${unit}`,
    shown(median),
    shown(mad),
    between(interval),
    goal === undefined ? "" : `below ${goal}`
  ])
)
print(columns([["", "median", "MAD", "95 % interval", "goal"], ...rows]))
print()
print(
  columns([
    ["ratio of medians", "", "95 % interval"],
    ...ratios.map((r) => [r.name, shown(r.ratio), between(r.interval)])
  ])
)
for (const warning of warnings) print(`Warning: ${warning}.`)

if (json !== undefined) {
  const result = {
    kind: "host speed, measured",
    quick,
    rounds,
    context: { ...machine, cc: compilerVersion(), simpy: simpyVersion() ?? "none" },
    warnings,
    results,
    ratios
  }
  writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`)
}
