import { dirname, resolve } from "node:path"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { DEFAULT_SCENARIO } from "../DefaultScenario.ts"
import { isPath, readInputText } from "../InputFile.ts"
import { InputInvalid, oneLine, shown } from "../InputInvalid.ts"
import { decodeJsonText } from "../JsonText.ts"
import { loadProfile } from "../ProfileFile.ts"
import { loadScenario } from "../ScenarioFile.ts"
import { axesOf } from "./Axes.ts"
import { makePlan } from "./Plan.ts"

const DEFAULT_PROFILE = "epyc-9654p"

const GridSchema = Schema.Record(Schema.String, Schema.Unknown).annotate({
  expected: "a grid: an object with a list of values for each parameter"
})

/**
 * Reads a grid and the scenario and profile files that it names, relative to its own folder.
 *
 * @returns InputInvalid naming file, key, value and what was expected
 */
export const loadPlan = Effect.fn("loadPlan")(function* (file: string, commit: string, version: string) {
  const grid = yield* Effect.fromResult(decodeJsonText(GridSchema, file, yield* readInputText(file)))
  const axes = yield* Effect.fromResult(axesOf(file, grid))

  /** Base files by what the grid calls them. */
  const bases = <A, R>(
    to: "base scenario" | "base profile",
    otherwise: string,
    load: (name: string) => Effect.Effect<A, InputInvalid, R>
  ) =>
    Effect.gen(function* () {
      const axis = axes.find(({ target }) => target.to === to)
      const found = new Map<unknown, A>()
      if (axis === undefined) return found.set(undefined, yield* load(otherwise))
      for (const name of axis.values) {
        if (typeof name !== "string" || name === "") {
          const line = `${file}: ${axis.key}: expected a name or the path of a JSON file, got ${shown(name)}`
          return yield* new InputInvalid({ line: oneLine(line) })
        }
        // A name that is unknown is reported as an option's value: here it stands in a file.
        const loaded = load(isPath(name) ? resolve(dirname(file), name) : name).pipe(
          Effect.mapError(({ line }) => new InputInvalid({ line: line.replace(/^--/, `${file}: `) }))
        )
        found.set(name, yield* loaded)
      }
      return found
    })

  const scenarios = yield* bases("base scenario", DEFAULT_SCENARIO.name, loadScenario)
  const profiles = yield* bases("base profile", DEFAULT_PROFILE, loadProfile)
  const input = { file, axes, strategy: grid.strategy, scenarios, profiles, commit, version }
  return yield* Effect.fromResult(makePlan(input))
})
