import { stripVTControlCharacters } from "node:util"
import { COCONUT_PANIC } from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import type { StrategyRun } from "../src/ComparisonRun.ts"
import { summarize } from "../src/Summary.ts"
import { renderComparison } from "../src/Table.ts"
import { duration, percent } from "../src/Units.ts"
import { profile, run, scenario } from "./fixture.ts"

const json = summarize({ run, profile, scenario, seed: 7, commit: "0123456789".repeat(4) })

describe("table", () => {
  const text = renderComparison(json, { colour: false, breakdown: true, intervals: true })

  it("looks like this", () => {
    expect(text).toMatchSnapshot()
  })

  it("names the RMP's switches, those that were changed with their meaning", () => {
    expect(text).toContain("U1 to U18 at their defaults.")
    const other = { ...scenario, rmpSwitches: { U3: "alternative", U9: "default" } } as const
    const changed = summarize({ run, profile, scenario: other, seed: 7, commit: "0".repeat(40) })
    expect(changed.rmpSwitches).toMatchObject({ U1: "default", U3: "alternative", U9: "default" })
    const words = renderComparison(changed, { colour: false, breakdown: false, intervals: false }).replace(/\s+/g, " ")
    expect(words).toContain("U1 to U18 at their defaults but for U3 (PVALIDATE at VMPL > 0: #UD).")
  })

  it("tells where COCONUT-SVSM would have stopped the guest, if the SVSM acts as it", () => {
    const words = (coconutPanics: StrategyRun["coconutPanics"]): string => {
      const runs = run.runs.map((one, i) => ({ ...one, coconutPanics: i === 0 ? coconutPanics : coconutPanics && [] }))
      const other = summarize({ run: { ...run, runs }, profile, scenario, seed: 7, commit: "0".repeat(40) })
      return renderComparison(other, { colour: false, breakdown: false, intervals: false }).replace(/\s+/g, " ")
    }
    expect(words(null)).not.toContain("COCONUT-SVSM")
    expect(words([])).toContain("COCONUT-SVSM would not have stopped the guest anywhere.")
    const why = COCONUT_PANIC.VMSA_IN_USE
    expect(words([{ why, times: 3 }])).toContain(
      `would have stopped the guest, 3 times under ${run.runs[0]!.strategy}: ${why}.`
    )
  })

  it("fits 100 columns", () => {
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(100)
  })

  it("has the intervals of the quantiles only when asked, and little else depends on it", () => {
    const short = renderComparison(json, { colour: false, breakdown: true, intervals: false })
    expect(text).toContain("95 % confidence intervals of the quantiles")
    expect(short).not.toContain("confidence intervals")
    const [begin, end] = ["95 % confidence intervals", "What the host spends"].map((title) => text.indexOf(title))
    expect(short).toBe(text.slice(0, begin) + text.slice(end))
  })

  it("says the same in colour", () => {
    const coloured = renderComparison(json, { colour: true, breakdown: true, intervals: true })
    expect(coloured).not.toBe(text)
    expect(stripVTControlCharacters(coloured)).toBe(text)
  })
})

describe("units", () => {
  it.each([
    [null, "-"],
    [0, "0 ns"],
    [962, "962 ns"],
    [999.4, "999 ns"],
    [999.6, "1.00 us"],
    [12_345, "12.3 us"],
    [999_400, "999 us"],
    [999_600, "1.00 ms"],
    [5e9, "5.00 s"]
  ])("%d ns is %s", (ns, text) => {
    expect(duration(ns)).toBe(text)
  })

  it("never shows a share of something as nothing", () => {
    expect([0, 0.001, 0.005, 0.5, 1].map(percent)).toEqual(["0 %", "<1 %", "1 %", "50 %", "100 %"])
  })
})
