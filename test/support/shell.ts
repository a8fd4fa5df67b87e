import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

const launcher = fileURLToPath(new URL("../../packages/lab/bin/vmpl-lab.js", import.meta.url))

/** What the shell sees of one command line. */
export interface Outcome {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Runs `vmpl-lab` with `input` as its standard input; `env` is added to the environment. */
export const vmplLab = (
  args: ReadonlyArray<string>,
  input = "",
  env: { readonly [name: string]: string } = {}
): Promise<Outcome> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [launcher, ...args], { env: { ...process.env, ...env } })
    const out: Array<Buffer> = []
    const err: Array<Buffer> = []
    child.stdout.on("data", (chunk) => out.push(chunk))
    child.stderr.on("data", (chunk) => err.push(chunk))
    child.on("error", reject)
    child.on("close", (code) =>
      resolve({ code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() })
    )
    // A command that does not read to the end closes the pipe.
    child.stdin.on("error", () => {})
    child.stdin.end(input)
  })
