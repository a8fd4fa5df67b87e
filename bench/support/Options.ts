import { parseArgs } from "node:util"

/** The options of every benchmark. */
export interface BenchOptions {
  /** A short run that only shows that the benchmark still works; its figures mean little. */
  readonly quick: boolean
  /** File that receives the result as JSON. */
  readonly json: string | undefined
}

/** Options of the command line. A mistake ends the process with 2 and one line. */
export const benchOptions = (): BenchOptions => {
  try {
    const { values } = parseArgs({ options: { quick: { type: "boolean" }, json: { type: "string" } } })
    return { quick: values.quick === true, json: values.json }
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(2)
  }
}

/** A line on standard output. */
export const print = (line = ""): void => {
  process.stdout.write(`${line}\n`)
}
