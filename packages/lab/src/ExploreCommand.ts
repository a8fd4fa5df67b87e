import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import type { Explorer } from "./explore/index.ts"
import { optional, switchFlag } from "./Flags.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { writeErrorLine, writeOut } from "./Output.ts"
import { progressBar } from "./Progress.ts"
import { rateText } from "./Units.ts"

const flags = {
  without: optional(Flag.String("without")).pipe(
    Flag.withMetavar("CHECK"),
    Flag.withDescription("Leave one check of the access table out and print a shortest attack as a trace")
  ),
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object"))
}

/** Explores in chunks, so that it can be interrupted. */
const withProgress = (explorer: Explorer) =>
  Effect.scoped(
    Effect.gen(function* () {
      const onProgress = yield* progressBar
      const steps = explorer.explore()
      for (;;) {
        const step = steps.next()
        if (step.done === true) return step.value
        onProgress(step.value.visited, step.value.known)
        yield* Effect.yieldNow
      }
    })
  )

/** `vmpl-lab explore`: every state of a small RMP, or the attack that a missing check allows. */
export const explore = Command.make(
  "explore",
  flags,
  Effect.fn("explore")(function* ({ without, json }) {
    const { attackTrace, CHECKS, Explorer, PROPERTIES } = yield* Effect.promise(() => import("./explore/index.ts"))
    const check = CHECKS.find((name) => name === without)
    if (without !== undefined && check === undefined) {
      const line = `--without: ${JSON.stringify(without)} unknown, expected one of ${CHECKS.join(", ")}`
      return yield* new InputInvalid({ line: oneLine(line) })
    }
    const begin = performance.now()
    const result = yield* withProgress(new Explorer(check === undefined ? {} : { without: check }))
    const ms = performance.now() - begin
    const { states, transitions, depth, attack } = result
    const trace = attack === null ? null : attackTrace(attack)
    if (json) {
      const violated = attack?.violation.property ?? null
      const object = { states, transitions, depth, without: check ?? null, violated, trace, wall: { ms } }
      return yield* writeOut(`${JSON.stringify(object)}\n`)
    }
    if (attack !== null && trace !== null) {
      yield* writeErrorLine(`without ${check}: not so: ${attack.violation.property}; found after ${states} states`)
      return yield* writeOut(`${trace.join("\n")}\n`)
    }
    const lines = [
      `${states} states, ${transitions} transitions, at most ${depth} steps from the first; ${rateText(states, ms)}.`,
      "The RMP's switches U1 to U18 are at their defaults. In every state:",
      ...Object.values(PROPERTIES).map((property) => `  ${property}`)
    ]
    yield* writeOut(`${lines.join("\n")}\n`)
  })
).pipe(Command.withDescription("Visit every state of a small RMP and check what must hold"))
