import { readFileSync } from "node:fs"
import { CORE_CALL } from "@vmpl-lab/guest"
import { describe, expect, it } from "vitest"
import { checks, document } from "../../scripts/svsm-table.mjs"

/** Deviations of COCONUT-SVSM that are known. */
const DEVIATIONS = 15

describe("the table of SVSM checks", () => {
  it("names a test for each", () => {
    expect(
      checks()
        .filter(({ tests }) => tests.length === 0)
        .map(({ id }) => id)
    ).toEqual([])
  })

  it("has each check once", () => {
    const ids = checks().map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
  })

  it("has every core call", () => {
    const calls = new Set(checks().map(({ call }) => call))
    expect(Object.keys(CORE_CALL).filter((call) => !calls.has(call))).toEqual([])
  })

  it("has every deviation, each with two answers or a guest that COCONUT-SVSM stops", () => {
    for (let deviation = 1; deviation <= DEVIATIONS; deviation++) {
      const rows = checks().filter((one) => one.deviation === deviation)
      expect(rows.length).toBeGreaterThan(0)
      expect(rows.every(({ specification, coconut, coconutStops }) => specification !== coconut || coconutStops)).toBe(
        true
      )
    }
  })

  it("is as the sources say: run node scripts/svsm-table.mjs", () => {
    expect(readFileSync(new URL("../../docs/svsm.md", import.meta.url), "utf8")).toBe(document())
  })
})
