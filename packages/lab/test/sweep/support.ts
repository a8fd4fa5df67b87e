import { type ChildProcess, execFile, spawn } from "node:child_process"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const args = (rest: ReadonlyArray<string>) => ["--conditions=source", main, ...rest]

/** Small enough that a point takes milliseconds, large enough to be stopped in between. */
export const GRID = {
  "scenario.vcpus": [1, 2],
  "scenario.calls": 4,
  "scenario.boots": 1,
  "host.placement": ["spread", "same-core"],
  "profile.userspace_exit.ns": [100, 310, 600],
  strategy: ["multi-vmpl-vcpu", "vcpu-per-vmpl/vmm-threads"],
  seed: [1, 2]
}

export interface Outcome {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export const newFolder = (): string => mkdtempSync(join(tmpdir(), "vmpl-lab-sweep-"))

export const write = (folder: string, name: string, value: unknown): string => {
  writeFileSync(join(folder, name), typeof value === "string" ? value : JSON.stringify(value))
  return name
}

export const text = (folder: string, name: string): string => readFileSync(join(folder, name), "utf8")

/** What the shell sees of one command line. */
export const shell = (line: string, cwd: string): Promise<Outcome> =>
  new Promise((resolve) => {
    const child = execFile(process.execPath, args(line.split(" ")), { cwd }, (_error, out, err) =>
      resolve({ code: child.exitCode, out, err })
    )
  })

export const start = (line: string, cwd: string): ChildProcess =>
  spawn(process.execPath, args(line.split(" ")), { cwd, stdio: "ignore" })
