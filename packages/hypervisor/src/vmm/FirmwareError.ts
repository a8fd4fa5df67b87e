/** A firmware image that cannot be launched as asked. The message is one line: file, place, value, what was expected. */
export class FirmwareError extends Error {
  readonly _tag = "FirmwareError"

  /** `name` of the image, usually its path; control characters are shown as "?" so that the message stays one line. */
  constructor(name: string, problem: string) {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not reach a terminal
    super(`${name.replace(/[\u0000-\u001f\u007f]/g, "?")}: ${problem}`)
  }
}

/** A number as messages show it. */
export const hex = (value: number): string => `0x${value.toString(16)}`
