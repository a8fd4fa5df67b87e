import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { fitting, loadFirmware } from "./FirmwareFile.ts"
import { numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { wantsColour, writeOut } from "./Output.ts"
import { progressBar } from "./Progress.ts"
import { codeCommit } from "./Version.ts"

const flags = {
  firmware: optional(Flag.String("firmware")).pipe(
    Flag.withMetavar("PATH"),
    Flag.withDescription("OVMF image to launch; without it, a small image made here")
  ),
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
  placement: optional(Flag.Literals("placement", ["spread", "same-core"])).pipe(
    Flag.withDescription("Where vCPU threads run, instead of the scenario's")
  ),
  ring: optional(Flag.Literals("ring", ["page", "msr"])).pipe(
    Flag.withDescription("GHCB page event or MSR request, instead of the scenario's")
  ),
  strategy: Flag.String("strategy").pipe(
    Flag.withMetavar("KEY"),
    Flag.withDescription("Run this strategy only; may be given several times"),
    Flag.atLeast(0)
  ),
  breakdown: switchFlag("breakdown").pipe(Flag.withDescription("Show where the time goes, primitive by primitive")),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object"))
}

/** The strategies asked for, once each and in the order of `known`; all of them when none is named. */
const chosen = (asked: ReadonlyArray<string>, known: ReadonlyArray<string>) => {
  const stranger = asked.find((key) => !known.includes(key))
  if (stranger !== undefined) {
    const line = oneLine(`--strategy: ${JSON.stringify(stranger)} unknown, expected one of ${known.join(", ")}`)
    return Effect.fail(new InputInvalid({ line }))
  }
  return Effect.succeed(asked.length === 0 ? known : known.filter((key) => asked.includes(key)))
}

/** `vmpl-lab compare`: every strategy under one scenario, as a table or as JSON. */
export const compare = Command.make(
  "compare",
  flags,
  Effect.fn("compare")(function* (options) {
    // The simulator is loaded only once it is needed: --help and a mistyped option answer without it.
    const [{ builtInFirmware, runComparison, STRATEGY_KEYS }, { svsmLaunch }, { workOf }, { loadProfile }, scenarios] =
      yield* Effect.promise(() =>
        Promise.all([
          import("./Compare.ts"),
          import("./SvsmLaunch.ts"),
          import("./workloads/Work.ts"),
          import("./ProfileFile.ts"),
          import("./ScenarioFile.ts")
        ])
      )
    const strategies = yield* chosen(options.strategy, STRATEGY_KEYS)
    const profile = yield* loadProfile(options.profile)
    const scenario = scenarios.overrideScenario(yield* scenarios.loadScenario(options.scenario), options)
    const path = options.firmware
    const image = path === undefined ? builtInFirmware() : yield* loadFirmware(path, "snp")
    const svsm = yield* fitting(() => svsmLaunch(image, scenario.vcpus, workOf(scenario, options.seed).needs))

    const { seed } = options
    const run = yield* Effect.scoped(
      Effect.flatMap(progressBar, (onProgress) =>
        runComparison({ image, svsm, scenario, profile, seed, strategies, onProgress })
      )
    )
    const { summarize } = yield* Effect.promise(() => import("./Summary.ts"))
    const json = summarize({ run, profile, scenario, seed, commit: codeCommit() })
    if (options.json) return yield* writeOut(`${JSON.stringify(json, null, 2)}\n`)
    const { renderComparison } = yield* Effect.promise(() => import("./Table.ts"))
    yield* writeOut(renderComparison(json, { colour: wantsColour(), breakdown: options.breakdown }))
  })
).pipe(Command.withDescription("Compare ways to run VMPLs on one simulated host"))
