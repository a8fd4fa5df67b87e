import { Ajv2020 } from "ajv/dist/2020.js"
import { describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"

const SMALL = ["--pages", "16", "--vcpus", "1", "--strategy", "planes/kernel"]

interface Json {
  readonly parameters: { readonly pages: number }
  readonly migrations: ReadonlyArray<{
    readonly strategy: string
    readonly tracking: string
    readonly rounds: ReadonlyArray<{ readonly pages: number }>
    readonly sourceDigest: string
    readonly targetDigest: string
    readonly downtimeNs: number
    readonly goesOn: string
  }>
}

describe("vmpl-lab migrate", () => {
  it("prints one JSON object, the same each time", async () => {
    const [one, two] = await Promise.all([
      vmplLab(["migrate", ...SMALL, "--json"]),
      vmplLab(["migrate", ...SMALL, "--json"])
    ])
    expect(one).toMatchObject({ code: 0, err: "" })
    expect(two.out).toBe(one.out)
    const schema = JSON.parse((await vmplLab(["schema", "migration"])).out) as object
    const isResult = new Ajv2020({ strict: true, allErrors: true }).compile(schema)
    expect([isResult(JSON.parse(one.out)), isResult.errors]).toEqual([true, null])
    const { parameters, migrations } = JSON.parse(one.out) as Json
    expect(parameters.pages).toBe(16)
    expect(migrations.map(({ tracking }) => tracking)).toEqual(["vmpl-write-right", "nested-page-table"])
    for (const { strategy, sourceDigest, targetDigest, downtimeNs, goesOn } of migrations) {
      expect(strategy).toBe("planes/kernel")
      expect(sourceDigest).toMatch(/^[0-9a-f]{64}$/)
      expect(targetDigest).toBe(sourceDigest)
      expect(downtimeNs).toBeGreaterThan(0)
      expect(goesOn).toBe("target")
    }
  })

  it("prints a table that names what is assumed, at most 100 columns wide", async () => {
    const { code, out, err } = await vmplLab(["migrate", ...SMALL, "--target", "multi-vmpl-vcpu", "--trust-host"])
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(out).toContain("Simulated, not measured")
    expect(out).toContain("Assumed: a link of 10000 Mbit/s")
    expect(out).toContain("it is believed")
    for (const line of out.split("\n")) expect(line.length).toBeLessThanOrEqual(100)
  })

  it.each([
    [["--pages", "0"], "--pages: expected a whole number from 1 to 16384"],
    [["--vcpus", "16"], "--vcpus: expected a whole number from 1 to 15"],
    [["--write-rate", "1e3"], "--write-rate: expected a whole number"],
    [["--tracking", "pml"], "--tracking: expected"],
    [["--strategy", "none"], '--strategy: "none" unknown'],
    [["--target", "planes"], '--target: "planes" stands for several strategies'],
    [["--profile", "nowhere.json"], "nowhere.json"]
  ])("refuses %j with one line", async (args, line) => {
    const { code, out, err } = await vmplLab(["migrate", ...args])
    expect({ code, out }).toEqual({ code: 2, out: "" })
    expect(err).toContain(line)
    expect(err.trimEnd().split("\n")).toHaveLength(1)
  })
})
