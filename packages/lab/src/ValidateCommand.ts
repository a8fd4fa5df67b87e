import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { writeOut } from "./Output.ts"
import { codeCommit } from "./Version.ts"

const flags = {
  profile: profileFlag,
  seed: seedFlag,
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object"))
}

/** `vmpl-lab validate`: what the profile predicts of published results. */
export const validateCommand = Command.make(
  "validate",
  flags,
  Effect.fn("validate")(function* (options) {
    const [{ loadProfile }, { validate }, { finish }] = yield* Effect.promise(() =>
      Promise.all([import("./ProfileFile.ts"), import("./validate/Validate.ts"), import("./sensitivity/Finish.ts")])
    )
    const profile = yield* loadProfile(options.profile)
    const { seed } = options
    const validation = yield* finish(validate(profile, seed), () => {})
    if (options.json) {
      const { name, machine } = profile
      const json = { seed, commit: codeCommit(), profile: name, machine, ...validation }
      return yield* writeOut(`${JSON.stringify(json, null, 2)}\n`)
    }
    const { validationText } = yield* Effect.promise(() => import("./validate/ValidationText.ts"))
    yield* writeOut(`${validationText(validation)}\n`)
  })
).pipe(Command.withDescription("Predict published results from a profile, and show the errors"))
