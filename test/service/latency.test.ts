import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"
import { hasSwtpm } from "../tpm/Tools.ts"

const CORE = ["QUERY_PROTOCOL", "PVALIDATE, one page rescinded", "PVALIDATE, one page validated"]
const TPM = ["VTPM_QUERY", "TPM2_GetRandom", "TPM2_PCR_Extend"]

interface Row {
  readonly call: string
  readonly strategy: string
  readonly ns: number
  readonly switchNs: number
  readonly serviceNs: number
}

const rowsOf = (out: string): ReadonlyArray<Row> => JSON.parse(out).latency

describe("service latency", () => {
  it.skipIf(!hasSwtpm)("has every call under every strategy, each with the same time in the SVSM", async () => {
    const { code, out, err } = await vmplLab(["service", "latency", "--calls", "3", "--json"])
    expect([code, err]).toEqual([0, ""])
    const rows = rowsOf(out)
    expect(rows).toHaveLength(STRATEGIES.length * (CORE.length + TPM.length))
    for (const call of [...CORE, ...TPM]) {
      const same = rows.filter((row) => row.call === call)
      expect(same.map(({ strategy }) => strategy)).toEqual(STRATEGIES.map(strategyName))
      const own = same.map(({ serviceNs }) => serviceNs)
      expect(Math.max(...own) - Math.min(...own)).toBeLessThanOrEqual(2)
      for (const row of same) expect(row.switchNs + row.serviceNs).toBe(row.ns)
    }
    const [fastest] = rows
    expect(fastest!.strategy).toBe("multi-vmpl-vcpu")
    for (const row of rows) expect(row.switchNs).toBeGreaterThanOrEqual(fastest!.switchNs)
  })

  it("leaves a TPM's calls out where there is none, and says what to install", async () => {
    const args = ["service", "latency", "--calls", "1", "--strategy", "planes/kernel", "--json"]
    const { code, out, err } = await vmplLab(args, "", { PATH: "/nowhere" })
    expect(code).toBe(0)
    expect(rowsOf(out).map(({ call }) => call)).toEqual(CORE)
    expect(err).toContain("swtpm is not installed, expected the program of Debian's package swtpm on the PATH")
    expect(err.trim().split("\n")).toHaveLength(1)
  })
})
