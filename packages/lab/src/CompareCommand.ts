import type { Strategy } from "@vmpl-lab/hv-strategies"
import { PLACEMENTS } from "@vmpl-lab/hypervisor"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { fitting, loadFirmware, loadIgvm } from "./FirmwareFile.ts"
import { igvmFlag, numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { wantsColour, writeOut } from "./Output.ts"
import { writeOutputText } from "./OutputFile.ts"
import { progressBar } from "./Progress.ts"
import { codeCommit } from "./Version.ts"

const flags = {
  firmware: optional(Flag.String("firmware")).pipe(
    Flag.withMetavar("PATH"),
    Flag.withDescription("OVMF image to launch; without it, a small image made here")
  ),
  igvm: igvmFlag,
  scenario: Flag.String("scenario").pipe(
    Flag.withMetavar("NAME|FILE"),
    Flag.withDescription("Workload"),
    Flag.withDefault("default")
  ),
  profile: profileFlag,
  seed: seedFlag,
  vcpus: optional(numberFlag("vcpus", 1, 512)).pipe(Flag.withDescription("Guest vCPUs, instead of the scenario's")),
  calls: optional(numberFlag("calls", 0, 1_000_000)).pipe(
    Flag.withDescription("SVSM calls of each vCPU, instead of the scenario's")
  ),
  boots: optional(numberFlag("boots", 1, 1_000)).pipe(Flag.withDescription("Boots, instead of the scenario's")),
  placement: optional(Flag.Literals("placement", PLACEMENTS)).pipe(
    Flag.withDescription("Where vCPU threads run, instead of the scenario's")
  ),
  ring: optional(Flag.Literals("ring", ["page", "msr"])).pipe(
    Flag.withDescription("GHCB page event or MSR request, instead of the scenario's")
  ),
  strategy: Flag.String("strategy").pipe(
    Flag.withMetavar("KEY[/VARIANT]"),
    Flag.withDescription("Run this strategy only, all its variants or one; several times, or a list by commas"),
    Flag.atLeast(0)
  ),
  replications: numberFlag("replications", 0, 1_000).pipe(
    Flag.withDescription("Paired runs of each strategy, on seeds that all share; 0 for none"),
    Flag.withDefault(10)
  ),
  baseline: optional(Flag.String("baseline")).pipe(
    Flag.withMetavar("KEY"),
    Flag.withDescription("Compare with this strategy too, beside the fastest")
  ),
  breakdown: switchFlag("breakdown").pipe(Flag.withDescription("Show where the time goes, primitive by primitive")),
  intervals: switchFlag("intervals").pipe(Flag.withDescription("Show the confidence intervals of the quantiles")),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object")),
  csv: optional(Flag.String("csv")).pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Write the results as a CSV file too")
  ),
  traceOut: optional(Flag.String("trace-out")).pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Write the first calls as a Chrome trace, which Perfetto opens")
  ),
  traceCalls: numberFlag("trace-calls", 1, 100_000).pipe(
    Flag.withDescription("Calls of each strategy in that trace"),
    Flag.withDefault(100)
  )
}

/** Whether a paired comparison can be made as asked. */
const checkPaired = Effect.fnUntraced(function* (
  {
    seed,
    replications,
    baseline
  }: { readonly seed: number; readonly replications: number; readonly baseline: string | undefined },
  strategies: ReadonlyArray<Strategy>
) {
  const { PAIRS_MIN } = yield* Effect.promise(() => import("./statistics/Paired.ts"))
  if (replications > 0 && replications < PAIRS_MIN) {
    const line = `--replications: expected 0 or a whole number from ${PAIRS_MIN} to 1000, got ${replications}`
    return yield* new InputInvalid({ line })
  }
  if (!Number.isSafeInteger(seed + replications)) {
    const line = `--seed: expected at most ${Number.MAX_SAFE_INTEGER - replications} with ${replications} replications, got ${seed}`
    return yield* new InputInvalid({ line })
  }
  const [{ strategiesOf }, { strategyName }] = yield* Effect.promise(() =>
    Promise.all([import("./StrategyNames.ts"), import("@vmpl-lab/hv-strategies")])
  )
  if (baseline === undefined) return { strategies, baseline: undefined }
  const found = strategiesOf(baseline).filter((one) => strategies.includes(one))
  if (found.length === 1) return { strategies, baseline: strategyName(found[0]!) }
  const what = found.length === 0 ? "not among the strategies run" : "stands for several strategies"
  const names = (found.length === 0 ? strategies : found).map(strategyName).join(", ")
  return yield* new InputInvalid({
    line: oneLine(`--baseline: ${JSON.stringify(baseline)} ${what}, expected one of ${names}`)
  })
})

/** `vmpl-lab compare`: every strategy under one scenario, as a table or as JSON. */
export const compare = Command.make(
  "compare",
  flags,
  Effect.fn("compare")(function* (options) {
    // The simulator is loaded only once it is needed: --help and a mistyped option answer without it.
    const [{ builtInFirmware, runComparison }, { askedStrategies }, launches, { loadProfile }, scenarios] =
      yield* Effect.promise(() =>
        Promise.all([
          import("./Compare.ts"),
          import("./StrategyNames.ts"),
          import("./ScenarioLaunch.ts"),
          import("./ProfileFile.ts"),
          import("./ScenarioFile.ts")
        ])
      )
    const strategies = yield* askedStrategies(options.strategy)
    const pairs = yield* checkPaired(options, strategies)
    const profile = yield* loadProfile(options.profile)
    const scenario = scenarios.overrideScenario(yield* scenarios.loadScenario(options.scenario), options)
    const { firmware, igvm } = options
    if (firmware !== undefined && igvm !== undefined) {
      return yield* new InputInvalid({ line: "--igvm: given with --firmware, expected one of the two" })
    }
    const file = igvm === undefined ? null : yield* loadIgvm(igvm)
    const firmwareImage = firmware === undefined ? builtInFirmware() : yield* loadFirmware(firmware, "snp")
    const svsm = yield* fitting(() =>
      file === null
        ? launches.scenarioLaunch(firmwareImage, scenario, options.seed)
        : launches.scenarioIgvmLaunch(file, scenario, options.seed)
    )
    const image = file ?? firmwareImage

    const { seed, replications } = options
    const run = yield* Effect.scoped(
      Effect.flatMap(progressBar, (onProgress) =>
        runComparison({ image, svsm, scenario, profile, seed, strategies, onProgress })
      )
    )
    const { runPaired } = yield* Effect.promise(() => import("./statistics/PairedRuns.ts"))
    const pairedRuns = Effect.scoped(
      Effect.flatMap(progressBar, (onProgress) =>
        runPaired({ scenario, profile, seed, svsm, replications, ...pairs, onProgress })
      )
    )
    const paired = replications === 0 ? null : yield* pairedRuns
    const { summarize } = yield* Effect.promise(() => import("./Summary.ts"))
    const json = summarize({ run, profile, scenario, seed, commit: codeCommit(), paired })
    if (options.csv !== undefined) {
      const { csvOf, resultTable } = yield* Effect.promise(() => import("./Csv.ts"))
      yield* writeOutputText(options.csv, csvOf(resultTable(json)))
    }
    const observed = { scenario, profile, seed, svsm }
    if (options.traceOut !== undefined) {
      const { writeTrace } = yield* Effect.promise(() => import("./observe/TraceFile.ts"))
      yield* writeTrace(options.traceOut, json, observed, options.traceCalls)
    }
    if (options.json) {
      const { timelines } = yield* Effect.promise(() => import("./observe/Timelines.ts"))
      const { wall, ...rest } = json
      const timeline = yield* timelines(json, observed)
      return yield* writeOut(`${JSON.stringify({ ...rest, timeline, wall }, null, 2)}\n`)
    }
    const { renderComparison } = yield* Effect.promise(() => import("./Table.ts"))
    const { breakdown, intervals } = options
    yield* writeOut(renderComparison(json, { colour: wantsColour(), breakdown, intervals }))
  })
).pipe(Command.withDescription("Compare ways to run VMPLs on one simulated host"))
