import { readFileSync } from "node:fs"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { describe, expect, it } from "vitest"
import { strategyDocument } from "../support/strategyTable.ts"

describe("strategies", () => {
  it("have names of their own", () => {
    expect(new Set(STRATEGIES.map(strategyName)).size).toBe(STRATEGIES.length)
  })

  it("are described as they run: run node scripts/strategy-table.mjs", () => {
    expect(readFileSync(new URL("../../docs/strategies.md", import.meta.url), "utf8")).toBe(strategyDocument())
  })
})
