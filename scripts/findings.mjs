// Runs the commands of docs/findings.md and writes its generated parts, the table of README.md and docs/findings.svg.
// With --check it only says whether they are up to date. Takes a few minutes.
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { root, writeOrCheck } from "./tagged-files.mjs"

const SOURCE = "--conditions=source"

const main = async () => {
  const [{ BLOCKS, README_BLOCK }, { COMMANDS }, { between }, { picture }, { results }] = await Promise.all([
    import("./findings/blocks.mjs"),
    import("./findings/commands.mjs"),
    import("./findings/markdown.mjs"),
    import("./findings/picture.mjs"),
    import("./findings/run.mjs")
  ])
  const found = await results(Object.keys(COMMANDS), (line) => process.stderr.write(`${line}\n`))
  if (!found.services.latency.some(({ protocol }) => protocol === "vTPM")) {
    throw new Error("the table of services needs a TPM: install Debian's package swtpm")
  }
  const textOf = (file) => readFileSync(new URL(file, root), "utf8")
  let document = textOf("docs/findings.md")
  for (const [name, { make }] of Object.entries(BLOCKS)) document = between(document, name, make(found))
  writeOrCheck("scripts/findings.mjs", "docs/findings.md", document)
  writeOrCheck("scripts/findings.mjs", "README.md", between(textOf("README.md"), "table", README_BLOCK.make(found)))
  writeOrCheck("scripts/findings.mjs", "docs/findings.svg", picture(found))
}

if (process.execArgv.includes(SOURCE)) await main()
else {
  // Figures are written with the sources of packages/lab, which Node takes on this condition.
  const args = [SOURCE, fileURLToPath(import.meta.url), ...process.argv.slice(2)]
  process.exitCode = spawnSync(process.execPath, args, { stdio: "inherit" }).status ?? 1
}
