import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { document, sections } from "../../scripts/section-table.mjs"

describe("the facts on RMP and VMPL", () => {
  it("have code and a test for every section, or a reason why not", () => {
    const missing = sections()
      .filter(({ code, tests, without }) =>
        without === undefined ? code.length === 0 || tests.length === 0 : code.length > 0
      )
      .map(({ section }) => section)
    expect(missing).toEqual([])
    expect(sections().length).toBe(29)
  })

  it("are listed as the sources say: run node scripts/section-table.mjs", () => {
    expect(readFileSync(new URL("../../docs/rmp-vmpl.md", import.meta.url), "utf8")).toBe(document())
  })
})
