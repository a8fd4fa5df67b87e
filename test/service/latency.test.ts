import { CORE_CALL, MIGRATION_CALL } from "@vmpl-lab/guest"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { Ajv2020 } from "ajv/dist/2020.js"
import { describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"
import { hasSwtpm } from "../tpm/Tools.ts"

/** The number of calls of each protocol that the table has. */
const CALLS = { core: 8, attestation: 2, APIC: 5, migration: 11 } as const
const TPM = ["VTPM_QUERY", "VTPM_CMD"]

interface Row {
  readonly protocol: string
  readonly call: string
  readonly strategy: string
  readonly ns: number
  readonly switchNs: number
  readonly serviceNs: number
  readonly samples: number
  readonly givenNs: number
}

const rowsOf = (out: string): ReadonlyArray<Row> => JSON.parse(out).latency

/** A call's name, without which of its forms it is. */
const nameOf = ({ call }: Row): string => call.split(",")[0]!
const callsOf = (rows: ReadonlyArray<Row>, protocol: string): ReadonlySet<string> =>
  new Set(rows.filter((row) => row.protocol === protocol).map(nameOf))

describe("service latency", () => {
  it("has every call under every strategy, each with the same time in the SVSM", { timeout: 60_000 }, async () => {
    const { code, out, err } = await vmplLab(["service", "latency", "--calls", "3", "--json"])
    expect([code, hasSwtpm ? err : ""]).toEqual([0, ""])
    const { out: schema } = await vmplLab(["schema", "service"])
    const isService = new Ajv2020({ strict: true }).compile(JSON.parse(schema))
    expect([isService(JSON.parse(out)), isService.errors]).toEqual([true, null])
    const rows = rowsOf(out)
    for (const [protocol, count] of Object.entries(CALLS)) expect(callsOf(rows, protocol)).toHaveLength(count)
    expect(callsOf(rows, "core")).toEqual(new Set(Object.keys(CORE_CALL)))
    expect(callsOf(rows, "migration")).toEqual(new Set(Object.keys(MIGRATION_CALL)))
    expect(callsOf(rows, "vTPM")).toEqual(new Set(hasSwtpm ? TPM : []))
    const keys = new Set(rows.map(({ protocol, call }) => `${protocol} ${call}`))
    expect(rows).toHaveLength(STRATEGIES.length * keys.size)
    for (const key of keys) {
      const same = rows.filter(({ protocol, call }) => `${protocol} ${call}` === key)
      expect(same.map(({ strategy }) => strategy)).toEqual(STRATEGIES.map(strategyName))
      const own = same.map(({ serviceNs }) => serviceNs)
      // What asks the host for something has the host's part too.
      const asksHost = ["acceptance", "attestation", "migration"].includes(same[0]!.protocol)
      if (!asksHost) expect(Math.max(...own) - Math.min(...own)).toBeLessThanOrEqual(2)
      for (const row of same) expect(row.switchNs + row.serviceNs).toBe(row.ns)
      expect(Math.min(...same.map(({ samples }) => samples))).toBeGreaterThan(0)
      for (const { givenNs, serviceNs } of same) expect(givenNs).toBeLessThanOrEqual(serviceNs)
    }
    const [fastest] = rows
    expect(fastest!.strategy).toBe("multi-vmpl-vcpu")
    // PARK does not come back: it is half of the way.
    const wayOf = (row: Row): number => (nameOf(row) === "PARK" ? 2 * row.switchNs : row.switchNs)
    for (const row of rows) expect(wayOf(row)).toBeGreaterThanOrEqual(fastest!.switchNs - 2)
  })

  it("prints the same again for the same seed", async () => {
    const args = ["service", "latency", "--calls", "2", "--strategy", "vm-per-vmpl/vmm-threads", "--json"]
    expect((await vmplLab(args)).out).toBe((await vmplLab(args)).out)
  })

  it("leaves a TPM's calls out where there is none, and says what to install", async () => {
    const args = ["service", "latency", "--calls", "1", "--strategy", "planes/kernel", "--json"]
    const { code, out, err } = await vmplLab(args, "", { PATH: "/nowhere" })
    expect(code).toBe(0)
    const rows = rowsOf(out)
    expect([callsOf(rows, "core").size, callsOf(rows, "vTPM").size]).toEqual([CALLS.core, 0])
    expect(err).toContain("swtpm is not installed, expected the program of Debian's package swtpm on the PATH")
    expect(err.trim().split("\n")).toHaveLength(1)
  })
})
