import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { InputInvalid, oneLine, shown } from "./InputInvalid.ts"
import { writeOut } from "./Output.ts"
import { SCHEMA_NAMES } from "./SchemaNames.ts"

/** `vmpl-lab schema`: the JSON schema of a kind of file, from the definition by which it is read. */
export const schema = Command.make(
  "schema",
  {
    kind: Argument.String("kind").pipe(
      Argument.withMetavar("KIND"),
      Argument.withDescription(`One of ${SCHEMA_NAMES.join(", ")}`),
      Argument.withDefault("scenario")
    )
  },
  Effect.fn("schema")(function* ({ kind }) {
    const name = SCHEMA_NAMES.find((one) => one === kind)
    if (name === undefined) {
      const line = `${shown(kind)}: unknown kind of file, expected one of ${SCHEMA_NAMES.join(", ")}`
      return yield* new InputInvalid({ line: oneLine(line) })
    }
    const { jsonSchema } = yield* Effect.promise(() => import("./JsonSchemas.ts"))
    yield* writeOut(`${JSON.stringify(jsonSchema(name), null, 2)}\n`)
  })
).pipe(Command.withDescription("Print the JSON schema of a kind of file or result; of a scenario without more"))
