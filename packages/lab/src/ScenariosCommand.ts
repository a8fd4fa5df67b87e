import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { RunFailed } from "./Compare.ts"
import { switchFlag } from "./Flags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"
import type { PlayedStep, TraceScenario } from "./Scenarios.ts"

const list = Effect.fnUntraced(function* (scenarios: ReadonlyArray<TraceScenario>) {
  const { grid } = yield* Effect.promise(() => import("./Grid.ts"))
  const rows = scenarios.map(({ id, title, outcome, memory }) => [id, title, outcome, memory === true ? "yes" : ""])
  const note =
    "stopped: the attack fails. succeeds: the architecture does not stop it. works: no attack, but to be known."
  return `${grid(["scenario", "what", "outcome", "memory"], [], rows)}\n${note}\n`
})

const stepText = ({ who, what, actual, reply, explain, asExpected }: PlayedStep, number: number): string => {
  const rule = explain === null ? "" : `  [${explain.rule}; ${explain.source}]`
  const wrong = asExpected ? "" : `\n     expected ${JSON.stringify(reply)}`
  return `${String(number).padStart(3)}  ${who}: ${what}\n     ${JSON.stringify(actual)}${rule}${wrong}`
}

const story = ({ id, title, outcome, end, source }: TraceScenario, steps: ReadonlyArray<PlayedStep>): string =>
  [`${id}  ${title}: ${outcome}`, ...steps.map((step, i) => stepText(step, i + 2)), end, `Source: ${source}`, ""].join(
    "\n"
  )

/** `vmpl-lab scenarios`: attacks as traces. Without an id they are listed, with one it is played and explained. */
export const scenarios = Command.make(
  "scenarios",
  {
    id: Argument.String("id").pipe(
      Argument.withMetavar("ID"),
      Argument.withDescription("Scenario to play, such as I1; without it, all are listed"),
      Argument.optional
    ),
    json: switchFlag("json").pipe(Flag.withDescription("Print JSON"))
  },
  Effect.fn("scenarios")(function* ({ id, json }) {
    const { loadScenarios, loadTrace, playScenario } = yield* Effect.promise(() => import("./Scenarios.ts"))
    const all = yield* loadScenarios
    if (Option.isNone(id)) {
      if (!json) return yield* writeOut(yield* list(all))
      const index = all.map(({ steps, ...rest }) => ({ ...rest, file: `${rest.id}.jsonl`, steps: steps.length }))
      return yield* writeOut(`${JSON.stringify(index)}\n`)
    }
    const scenario = all.find((one) => one.id.toLowerCase() === id.value.toLowerCase())
    if (scenario === undefined) {
      const line = `${JSON.stringify(id.value)}: unknown scenario, expected one of ${all.map((one) => one.id).join(", ")}`
      return yield* new InputInvalid({ line: oneLine(line) })
    }
    const steps = playScenario(scenario, yield* loadTrace(scenario))
    yield* writeOut(json ? `${JSON.stringify({ ...scenario, steps })}\n` : story(scenario, steps))
    if (steps.some(({ asExpected }) => !asExpected))
      return yield* new RunFailed({ why: `scenario ${scenario.id} did not end as it should` })
  })
).pipe(Command.withDescription("List attacks on RMP and VMPLs, or play one"))
