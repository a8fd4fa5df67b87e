import * as Schema from "effect/Schema"

/**
 * Something that the user handed over cannot be used. `line` is one line that names the file or option, the place in
 * it, what was found and what was expected. The command line prints it and exits with 2.
 */
export class InputInvalid extends Schema.TaggedError<InputInvalid>()("InputInvalid", { line: Schema.String }) {
  override get message(): string {
    return this.line
  }
}

/** Any text as one line: line breaks and other control characters become single spaces. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed
export const oneLine = (text: string): string => text.replace(/[\s\u0000-\u001f\u007f-\u009f]+/gu, " ").trim()

/** JSON of any value; what a hostile file nests deeper than a stack is only named. */
const json = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? "nothing"
  } catch {
    return Array.isArray(value) ? `a list of ${value.length}, nested too deep` : "an object, nested too deep"
  }
}

/** A value as an error message shows it: JSON, at most 60 characters. */
export const shown = (value: unknown): string => {
  const text = typeof value === "number" && !Number.isFinite(value) ? String(value) : json(value)
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`
}
