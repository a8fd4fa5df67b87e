// Runs the commands of the findings, in order, in a scratch directory that sees the repository's inputs.
import { execFile } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { COMMANDS, printsJson, wordsOf } from "./commands.mjs"

const root = fileURLToPath(new URL("../..", import.meta.url))
const launcher = join(root, "packages/lab/bin/vmpl-lab.js")

/** A sweep's points. */
const lines = (path) =>
  readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))

const runOne = async (folder, command) => {
  const words = wordsOf(command)
  const args = printsJson(command) ? [...words, "--json"] : words
  const { stdout } = await promisify(execFile)(process.execPath, [launcher, ...args], {
    cwd: folder,
    maxBuffer: 1 << 28
  })
  if (printsJson(command)) return JSON.parse(stdout)
  const file = join(folder, words[words.indexOf("-o") + 1])
  return file.endsWith(".jsonl") ? lines(file) : JSON.parse(readFileSync(file, "utf8"))
}

/** The results of the commands named, by name. `say` hears of each command that is done. */
export const results = async (names, say = () => {}) => {
  const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-findings-"))
  try {
    for (const name of ["examples", "workloads"]) symlinkSync(join(root, name), join(folder, name))
    const found = {}
    for (const name of names) {
      const begin = performance.now()
      found[name] = await runOne(folder, COMMANDS[name])
      say(`${((performance.now() - begin) / 1000).toFixed(1)} s  vmpl-lab ${COMMANDS[name]}`)
    }
    return found
  } finally {
    rmSync(folder, { recursive: true })
  }
}
