/** docs/findings.md and the README's table: their commands can be run, and what is cheap to repeat is current. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { expect, it } from "vitest"
import { BLOCKS, README_BLOCK } from "../../scripts/findings/blocks.mjs"
import { COMMANDS, printsJson, wordsOf } from "../../scripts/findings/commands.mjs"
import { between, finding } from "../../scripts/findings/markdown.mjs"
import { migrationRows } from "../../scripts/findings/migration.mjs"
import { results } from "../../scripts/findings/run.mjs"
import { serviceRows } from "../../scripts/findings/services.mjs"
import { vmplLab } from "../support/shell.ts"
import { hasSwtpm } from "../tpm/Tools.ts"
import { scratch } from "./results.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const textOf = (file: string): string => readFileSync(join(root, file), "utf8")
const document = textOf("docs/findings.md")
const readme = textOf("README.md")
const commandsIn = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/^npx vmpl-lab (.*)$/gm)].map(([, command]) => command!)

/** The same command on as little as possible; what reads a file that an earlier command writes only shows its help. */
const small = (command: string, out: string): ReadonlyArray<string> => {
  const words = wordsOf(command).map((word) => (/^(?:examples|workloads)\//.test(word) ? join(root, word) : word))
  const kept = (names: ReadonlyArray<string>) =>
    words.filter((word, i) => !names.includes(word) && !names.includes(words[i - 1] ?? ""))
  if (command.startsWith("compare")) {
    const rest = kept(["--boots", "--replications", "--profile"])
    return [...rest, "--vcpus", "2", "--boots", "1", "--calls", "1", "--replications", "0", "--json"]
  }
  if (command.startsWith("sweep")) return [...kept(["-o"]), "--dry-run"]
  if (command.startsWith("merge")) return ["merge", "--help"]
  if (command.startsWith("profile")) return [...kept(["-o"]), "-o", out]
  if (command.startsWith("service")) return [...words, "--calls", "1", "--strategy", "planes/kernel", "--json"]
  if (command.startsWith("migrate")) {
    return [...words, "--pages", "16", "--vcpus", "1", "--strategy", "planes/kernel", "--json"]
  }
  return command === "validate" ? ["validate"] : [...words, "--draws", "1", "--calls", "1"]
}

it("names in the document exactly the commands that the script runs, each part its own", () => {
  expect(new Set(commandsIn(document))).toEqual(new Set(Object.values(COMMANDS)))
  for (const [name, { needs }] of Object.entries(BLOCKS)) {
    expect(() => between(document, name, "")).not.toThrow()
    for (const need of needs) expect(Object.keys(COMMANDS)).toContain(need)
  }
  for (const need of README_BLOCK.needs) expect(readme).toContain(`npx vmpl-lab ${COMMANDS[need]}\n`)
})

// Memory acceptance cannot be made small from the command line.
const quick = Object.values(COMMANDS).filter((command) => !command.includes("memory-acceptance"))
it.each(quick)("vmpl-lab %s", { timeout: 60_000 }, async (command) => {
  const { path, remove } = scratch()
  const { code, err } = await vmplLab(small(command, path("out.json")))
  remove()
  expect([code, printsJson(command) ? err.split("\n").filter((line) => line.startsWith("vmpl-lab: -")) : []]).toEqual([
    0,
    []
  ])
})

it("has current parts where runs are short", { timeout: 120_000 }, async () => {
  const names = ["fourLevels", "normal", "restricted", "alternate"]
  const found = await results([...names, "best"])
  expect(between(document, "interrupts", BLOCKS.interrupts.make(found))).toBe(document)
  expect(between(document, "levels", BLOCKS.levels.make(found))).toBe(document)
  expect(between(readme, "table", README_BLOCK.make(found))).toBe(readme)
})

/** Cells of a table's rows, whatever its columns' widths. */
const cellsIn = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/^\|(.*)\|$/gm)].map(([, row]) =>
    row!
      .split("|")
      .map((cell) => cell.trim())
      .join("|")
  )

const withoutTpm = hasSwtpm ? "" : ", but for the vTPM's rows: swtpm is not installed"
it(`has a current table of services${withoutTpm}`, { timeout: 120_000 }, async () => {
  const found = await results(["services"])
  if (hasSwtpm) expect(between(document, "services", BLOCKS.services.make(found))).toBe(document)
  const { rows } = serviceRows(found.services as never)
  const inDocument = cellsIn(document)
  expect(rows.length).toBeGreaterThan(20)
  for (const row of rows) expect(inDocument).toContain(row.join("|"))
})

it("has a current table of migrations", { timeout: 180_000 }, async () => {
  const found = await results(["migration"])
  expect(between(document, "migration", BLOCKS.migration.make(found))).toBe(document)
  expect(migrationRows(found.migration as never)).toHaveLength(2 * STRATEGIES.length)
})

it("stops at a sentence that does not hold, and at a mark that is missing", () => {
  expect(finding(true, "so")).toBe("- so")
  expect(() => finding(false, "so")).toThrow("no longer show that: so")
  expect(() => between("text", "table", "")).toThrow("findings:table:begin")
})
