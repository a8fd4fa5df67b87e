import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ROOT } from "../support/Root.ts"
import type { Observation } from "./Observe.ts"

let program: string | null = null

/** Compiles `bench/host/reference` once with `cc -O2`, into a folder that goes when the process ends. */
const compiled = (): string => {
  if (program !== null) return program
  const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-bench-"))
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }))
  program = join(folder, "reference")
  const sources = ["main.c", "rmp.c"].map((file) => `${ROOT}bench/host/reference/${file}`)
  const cc = spawnSync("cc", ["-O2", "-std=c11", "-Wall", "-o", program, ...sources], { encoding: "utf8" })
  if (cc.status !== 0) {
    process.stderr.write(`bench: cc failed\n${cc.stderr ?? String(cc.error)}\n`)
    process.exit(1)
  }
  return program
}

/** Version of the compiler, for the context of results. */
export const compilerVersion = (): string =>
  spawnSync("cc", ["--version"], { encoding: "utf8" }).stdout?.split("\n")[0] ?? "no cc"

/** Runs the checks in C: as many passes as the same case in Node. */
export const observeReference = (args: ReadonlyArray<string>): Observation => {
  const child = spawnSync(compiled(), args, { encoding: "utf8" })
  if (child.status !== 0) {
    process.stderr.write(`bench: the reference in C failed\n${child.stderr}\n`)
    process.exit(1)
  }
  return JSON.parse(child.stdout)
}
