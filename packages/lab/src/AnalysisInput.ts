import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import type { OperationName } from "./ComparisonRun.ts"
import { numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"

const OPERATIONS: ReadonlyArray<OperationName> = ["run-vmpl-round-trip", "run-vmpl-one-way", "ap-create"]

/** Flags of commands that run a scenario many times: a median needs few calls. */
export const analysisFlags = {
  scenario: Flag.String("scenario").pipe(
    Flag.withMetavar("NAME|FILE"),
    Flag.withDescription("Workload"),
    Flag.withDefault("default")
  ),
  profile: profileFlag,
  seed: seedFlag,
  draws: numberFlag("draws", 1, 99).pipe(
    Flag.withDescription("Runs with seeds from --seed on, to tell an effect from chance"),
    Flag.withDefault(7)
  ),
  vcpus: optional(numberFlag("vcpus", 1, 512)).pipe(Flag.withDescription("Guest vCPUs, instead of the scenario's")),
  calls: numberFlag("calls", 0, 1_000_000).pipe(
    Flag.withDescription("SVSM calls of each vCPU in each run"),
    Flag.withDefault(50)
  ),
  boots: numberFlag("boots", 1, 1_000).pipe(Flag.withDescription("Boots in each run"), Flag.withDefault(1)),
  placement: optional(Flag.Literals("placement", ["spread", "same-core"])).pipe(
    Flag.withDescription("Where vCPU threads run, instead of the scenario's")
  ),
  operation: Flag.Literals("operation", OPERATIONS).pipe(
    Flag.withDescription("Whose median is looked at"),
    Flag.withDefault<OperationName>("run-vmpl-round-trip")
  ),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object"))
}

/** A flag that names strategies, several times or with commas between. */
export const strategyFlag = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar("KEY[/VARIANT]"), Flag.withDescription(description), Flag.atLeast(0))

export interface AnalysisOptions {
  readonly scenario: string
  readonly profile: string
  readonly seed: number
  readonly vcpus: number | undefined
  readonly calls: number
  readonly boots: number
  readonly placement: "spread" | "same-core" | undefined
  readonly operation: OperationName
}

/** Scenario and profile as the options say, and how to simulate them. */
export const analysisInput = Effect.fn("analysisInput")(function* (options: AnalysisOptions) {
  const [
    { builtInFirmware },
    { svsmLaunch },
    { loadProfile },
    scenarios,
    { fitting },
    { remembered, simulated },
    work
  ] = yield* Effect.promise(() =>
    Promise.all([
      import("./Compare.ts"),
      import("./SvsmLaunch.ts"),
      import("./ProfileFile.ts"),
      import("./ScenarioFile.ts"),
      import("./FirmwareFile.ts"),
      import("./sensitivity/Evaluate.ts"),
      import("./workloads/Work.ts")
    ])
  )
  const profile = yield* loadProfile(options.profile)
  const { seed, operation } = options
  const scenario = scenarios.overrideScenario(yield* scenarios.loadScenario(options.scenario), options)
  if (operation !== "ap-create" && scenario.calls === 0) {
    return yield* new InputInvalid({ line: `--calls: expected at least 1 for --operation ${operation}, got 0` })
  }
  const svsm = yield* fitting(() => svsmLaunch(builtInFirmware(), scenario.vcpus, work.behaviourNeeds(scenario)))
  const evaluate = remembered(simulated({ scenario, seed, svsm, operation }))
  const { name, vcpus, calls, boots, mix, ring, host } = scenario
  const repeat = { scenario: name, parameters: { vcpus, calls, boots, mix, ring, host } }
  return { profile, evaluate, repeat }
})

/** The strategies that a flag names, or the line that says which one there is not. */
export const strategiesOf = Effect.fn("strategiesOf")(function* (flag: string, asked: ReadonlyArray<string>) {
  const { STRATEGY_NAMES, strategiesNamed } = yield* Effect.promise(() => import("./sensitivity/Evaluate.ts"))
  const names = strategiesNamed(asked.flatMap((list) => list.split(",")))
  if (!("unknown" in names)) return names
  const expected = `expected a key of, or one of ${STRATEGY_NAMES.join(", ")}`
  return yield* new InputInvalid({ line: oneLine(`--${flag}: ${JSON.stringify(names.unknown)} unknown, ${expected}`) })
})

/** Which seeds were used. */
export const seedText = (seed: number, draws: number): string =>
  draws === 1 ? `seed ${seed}` : `seeds ${seed} to ${seed + draws - 1}`

/** Columns for text: the terminal's, but neither too few nor too many to read. */
export const textWidth = (): number => Math.min(Math.max(process.stdout.columns ?? 98, 60), 160)
