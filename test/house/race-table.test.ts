import { readFileSync } from "node:fs"
import { expect, it } from "vitest"
import { document, findings } from "../../scripts/race-table.mjs"

it("the table of races is as the schedules say: run node scripts/race-table.mjs", () => {
  expect(readFileSync(new URL("../../docs/svsm-races.md", import.meta.url), "utf8")).toBe(document())
})

it("the schedules have findings without each mechanism, in both behaviours", () => {
  const kinds = new Set(findings().map(({ without, behaviour = "specification" }) => `${behaviour} ${without}`))
  expect(kinds.size).toBe(8)
})
