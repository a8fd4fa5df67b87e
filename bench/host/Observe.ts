import { spawnSync } from "node:child_process"
import { delimiter } from "node:path"
import { performance } from "node:perf_hooks"
import { ROOT } from "../support/Root.ts"

/** What one fresh process reported: its figures by name, and a digest of its work that must not vary. */
export interface Observation {
  readonly values: { readonly [name: string]: number }
  readonly digest: string
}

const fail = (what: string, stderr: string): never => {
  process.stderr.write(`bench: ${what} failed\n${stderr}`)
  process.exit(1)
}

/** Runs one of the files of `cases` in a Node process of its own. */
export const observeCase = (file: string, args: ReadonlyArray<string>): Observation => {
  const program = `${ROOT}bench/host/cases/${file}`
  const child = spawnSync(process.execPath, ["--conditions=source", program, ...args], { cwd: ROOT, encoding: "utf8" })
  if (child.status !== 0) return fail([file, ...args].join(" "), child.stderr)
  return JSON.parse(child.stdout)
}

/** The environment of a plain shell: without what npm adds for the scripts that it runs. */
const shellEnvironment = (): NodeJS.ProcessEnv => {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_|^NODE_COMPILE_CACHE$/.test(name))
  )
  const path = (env.PATH ?? "").split(delimiter).filter((folder) => !/node_modules|node-gyp-bin/.test(folder))
  return { ...env, PATH: path.join(delimiter) }
}

/** Wall time of the default comparison, from the start of the command to its end, in seconds. */
export const observeShell = (command: string, args: ReadonlyArray<string>): Observation => {
  const begin = performance.now()
  const child = spawnSync(command, args, { cwd: ROOT, encoding: "utf8", env: shellEnvironment() })
  const seconds = (performance.now() - begin) / 1e3
  if (child.status !== 0) return fail([command, ...args].join(" "), child.stderr ?? String(child.error))
  const digest = /State digest:\s+([0-9a-f]{64})/.exec(child.stdout)?.[1]
  if (digest === undefined) return fail([command, ...args].join(" "), "no state digest in its output\n")
  return { values: { seconds }, digest }
}
