import * as Effect from "effect/Effect"

/**
 * Writes a whole text to standard output and waits until the system took all of it, so that an exit right afterwards
 * cuts nothing off a pipe. A reader that went away (`| head`) is no error.
 */
export const writeOut = (text: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    process.stdout.write(text, () => resume(Effect.void))
  })

/** One line on standard error. */
export const writeErrorLine = (line: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    process.stderr.write(`vmpl-lab: ${line}\n`, () => resume(Effect.void))
  })

/**
 * A reader that went away is no error, but without a listener its event would end the process with a stack trace. Any
 * other failure to write (a full disk) is one.
 */
export const watchOutput = (): void => {
  process.stderr.on("error", () => {})
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") return
    process.stderr.write(`vmpl-lab: standard output: ${error.message}\n`)
    process.exitCode = 1
  })
}

/** Colour is for people: a terminal, and no wish against it (https://no-color.org). */
export const wantsColour = (): boolean => process.stdout.isTTY === true && (process.env.NO_COLOR ?? "") === ""
