import { readFileSync } from "node:fs"
import { SHIPPED_PROTOCOLS, SVSM_BEHAVIOURS, uefiMm } from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import { ScriptedHost } from "./scriptedHost.ts"

/** A row of docs/svsm.checks.json: what the table says, and what is checked here. */
interface Row {
  readonly id: string
  readonly specification: string
  readonly coconut: string
  readonly coconutStops?: boolean
}
const ROWS: ReadonlyArray<Row> = JSON.parse(
  readFileSync(new URL("../../docs/svsm.checks.json", import.meta.url), "utf8")
)

type Case = (host: ScriptedHost) => string

const stopsOf = (host: ScriptedHost): number => [...host.state.panics.values()].reduce((sum, times) => sum + times, 0)

/**
 * Collects the cases of a test file; `check` compares each with its row, in both behaviours. The SVSM has UEFI variables
 * built in, and every row about them must have its case.
 */
export const svsmAnswers = () => {
  const cases = new Map<string, Case>()
  const answer = (id: string, run: Case): void => {
    if (cases.has(id)) throw new Error(`${id} is answered twice`)
    cases.set(id, run)
  }
  const check = (): void => {
    describe.each(SVSM_BEHAVIOURS)("as %s", (behaviour) => {
      it.each([...cases])("%s is answered as the table says", (id, run) => {
        const row = ROWS.find((one) => one.id === id)
        expect(row, "a row of the table").toBeDefined()
        const host = new ScriptedHost(behaviour, [...SHIPPED_PROTOCOLS, uefiMm()]).boot()
        expect(run(host)).toBe(row![behaviour])
        expect(stopsOf(host) > 0).toBe(behaviour === "coconut" && row!.coconutStops === true)
      })
    })
    it("every row about UEFI variables has a case", () => {
      const rows = ROWS.map(({ id }) => id).filter((id) => id.startsWith("uefi-"))
      expect(rows.filter((id) => !cases.has(id))).toEqual([])
    })
  }
  return { answer, check }
}
