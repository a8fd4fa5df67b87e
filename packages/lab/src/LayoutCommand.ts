import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { switchFlag } from "./Flags.ts"
import { InputInvalid, oneLine, shown } from "./InputInvalid.ts"
import { LAYOUT_NAMES, LAYOUTS, type LayoutField } from "./Layouts.ts"
import { wantsColour, writeOut } from "./Output.ts"

const hex = (value: number): string => `0x${value.toString(16)}`

/** "bits 60:51" for a bit field, "64 of them, ..." for a field of an array; empty for whole bytes. */
const detail = ({ bit, bits, count, stride }: LayoutField): string => {
  if (count !== undefined) return `${count} of them, ${stride} bytes apart`
  if (bit === undefined || bits === undefined) return ""
  return bits === 1 ? `bit ${bit}` : `bits ${bit + bits - 1}:${bit}`
}

/** Field, offset (hexadecimal as in the manuals, and decimal), size; one more column where a field is not whole bytes. */
const table = Effect.fnUntraced(function* (fields: ReadonlyArray<LayoutField>) {
  const { grid } = yield* Effect.promise(() => import("./Grid.ts"))
  const details = fields.map(detail)
  const wide = details.some((text) => text !== "")
  return grid(
    ["field", "offset", "decimal", "size", ...(wide ? ["place"] : [])],
    [1, 2, 3],
    fields.map((one, index) => [
      one.field,
      hex(one.offset),
      String(one.offset),
      String(one.size),
      ...(wide ? [details[index]!] : [])
    ])
  )
})

/** `vmpl-lab layout`: field, offset and size of an architectural page, from the definitions that the code uses. */
export const layout = Command.make(
  "layout",
  {
    page: Argument.String("page").pipe(
      Argument.withMetavar("PAGE"),
      Argument.withDescription(`One of ${LAYOUT_NAMES.join(", ")}`)
    ),
    json: switchFlag("json").pipe(Flag.withDescription("Print a JSON array of field, offset and size in bytes"))
  },
  Effect.fn("layout")(function* ({ page, json }) {
    if (!LAYOUT_NAMES.includes(page)) {
      const line = `${shown(page)}: unknown layout, expected one of ${LAYOUT_NAMES.join(", ")}`
      return yield* new InputInvalid({ line: oneLine(line) })
    }
    const { title, fields } = LAYOUTS[page]!
    if (json) return yield* writeOut(`${JSON.stringify(fields)}\n`)
    const { styleText } = yield* Effect.promise(() => import("node:util"))
    const heading = wantsColour() ? styleText("bold", title, { validateStream: false }) : title
    yield* writeOut(`${heading}\n${yield* table(fields)}\n`)
  })
).pipe(Command.withDescription("Print the fields of a VMSA, VMCB, GHCB, RMP entry, secrets or CPUID page"))
