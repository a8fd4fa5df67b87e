import { readFileSync } from "node:fs"
import { ACCEPTANCE, APIC_CALL, ATTESTATION_CALL, CORE_CALL, MIGRATION_CALL, VTPM_CALL } from "@vmpl-lab/guest"
import { describe, expect, it } from "vitest"
import { checks, document } from "../../scripts/svsm-table.mjs"

/** Deviations of COCONUT-SVSM that are known. */
const DEVIATIONS = 15

/** Sections of the specification, COCONUT-SVSM, Linux, the GHCB protocol, this project, or nobody. */
const SOURCE =
  /^(S (table )?\d+(\.\d+)?( table \d+)?|S \d+\.\d+, \d+\.\d+|S \d+, \d+\.\d+|CO|LX|GHCB|EDK2|own|inferred)$/

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8")
const call = (name: string): string => `VTPM_${name === "COMMAND" ? "CMD" : name}`

describe("the table of SVSM checks", () => {
  it("names a test for each", () => {
    expect(
      checks()
        .filter(({ tests }) => tests.length === 0)
        .map(({ id }) => id)
    ).toEqual([])
  })

  it("has each check once", () => {
    const rows = checks()
    const ids = rows.map(({ id }) => id)
    expect(ids.filter((id, i) => ids.indexOf(id) !== i)).toEqual([])
    const texts = rows.map((row) => `${row.call}: ${row.check}`)
    expect(texts.filter((text, i) => texts.indexOf(text) !== i)).toEqual([])
  })

  it("has each asked in both behaviours", () => {
    const files = new Set(checks().flatMap(({ tests }) => tests))
    expect(files.size).toBeGreaterThan(5)
    for (const file of files) {
      expect(read(file), file).toMatch(/^const \{ answer, check \} = svsmAnswers\(.*\)$/m)
      expect(read(file), file).toMatch(/^check\(\)$/m)
    }
    expect(read("test/support/svsmAnswers.ts")).toContain("describe.each(SVSM_BEHAVIOURS)")
  })

  it("tells the source of each", () => {
    for (const { id, source } of checks()) {
      const parts = source.split(/; |, (?=[CLGi])/)
      expect(
        parts.filter((part) => !SOURCE.test(part)),
        `${id}: ${source}`
      ).toEqual([])
    }
  })

  it("tells the source of every difference", () => {
    const bare = checks().filter((row) => row.specification !== row.coconut && !/CO|inferred/.test(row.source))
    expect(bare.map(({ id }) => id)).toEqual([])
  })

  it("has every call of every protocol", () => {
    const calls = new Set(checks().map((row) => row.call))
    const expected = [
      ...Object.keys(CORE_CALL),
      ...Object.keys(ATTESTATION_CALL),
      ...Object.keys(VTPM_CALL).map(call),
      ...Object.keys(APIC_CALL).map((name) => `APIC ${name}`),
      ...Object.keys(ACCEPTANCE.CALL),
      ...Object.keys(MIGRATION_CALL).map((name) => `MIGRATION ${name}`)
    ]
    expect(expected.filter((name) => !calls.has(name))).toEqual([])
  })

  it("has every deviation, each with two answers or a guest that COCONUT-SVSM stops", () => {
    for (let deviation = 1; deviation <= DEVIATIONS; deviation++) {
      const rows = checks().filter((one) => one.deviation === deviation)
      expect(rows.length).toBeGreaterThan(0)
      expect(
        rows.filter(({ specification, coconut, coconutStops }) => specification === coconut && coconutStops !== true)
      ).toEqual([])
    }
    expect(checks().filter(({ deviation = 1 }) => deviation < 1 || deviation > DEVIATIONS)).toEqual([])
  })

  it("is as the sources say: run node scripts/svsm-table.mjs", () => {
    expect(read("docs/svsm.md")).toBe(document())
  })
})
