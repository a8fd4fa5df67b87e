// Writes docs/strategies.md: what differs between strategies by design, from their descriptions and from runs. With
// --check it only says whether the file is up to date.
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { writeOrCheck } from "./tagged-files.mjs"

const SOURCE = "--conditions=source"

if (process.execArgv.includes(SOURCE)) {
  const { strategyDocument } = await import("../test/support/strategyTable.ts")
  writeOrCheck("scripts/strategy-table.mjs", "docs/strategies.md", strategyDocument())
} else {
  // Runs need the packages' sources, which Node takes on this condition.
  const args = [SOURCE, fileURLToPath(import.meta.url), ...process.argv.slice(2)]
  process.exitCode = spawnSync(process.execPath, args, { stdio: "inherit" }).status ?? 1
}
