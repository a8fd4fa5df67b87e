import { readdirSync, readFileSync } from "node:fs"
import { Ajv2020 } from "ajv/dist/2020.js"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { DEFAULT_SCENARIO } from "../src/DefaultScenario.ts"
import { jsonSchema } from "../src/JsonSchemas.ts"
import { parseScenario } from "../src/ScenarioFile.ts"
import { summarize } from "../src/Summary.ts"
import { WORKLOADS } from "../src/workloads/Workload.ts"
import { scenario as guest, profile as prices, run } from "./fixture.ts"

const folder = new URL("../../../workloads/", import.meta.url)
const files = readdirSync(folder).sort()
const text = (file: string): string => readFileSync(new URL(file, folder), "utf8")

const ajv = new Ajv2020({ strict: true, allErrors: true })
const scenario = ajv.compile(jsonSchema("scenario"))
const profile = ajv.compile(jsonSchema("profile"))

describe("the JSON schema of a scenario", () => {
  it.each(files)("accepts workloads/%s, and so does the command", (file) => {
    expect([scenario(JSON.parse(text(file))), scenario.errors]).toEqual([true, null])
    expect(Result.isSuccess(parseScenario(file, text(file)))).toBe(true)
  })

  it("accepts the built-in scenario", () => {
    expect(scenario(DEFAULT_SCENARIO)).toBe(true)
  })

  it.each([
    [{ speed: 5 }],
    [{ workload: "idle" }],
    [{ vcpus: 0 }],
    [{ vcpus: 513 }],
    [{ svsmCalls: { ratePerSecond: -1 } }],
    [{ svsmCalls: { rate: 1 } }],
    [{ apBoot: { moreLevels: "vmpl2" } }],
    [{ memoryAcceptance: { mebibytes: 3, entrySize: "2M" } }],
    [{ memoryAcceptance: { mebibytes: 65_538, entrySize: "2M" } }],
    [{ memoryAcceptance: { mebibytes: 2, entrySize: "1G" } }],
    [{ memoryAcceptance: { mebibytes: 2, entrySize: "4K", entriesPerList: 512 } }],
    [{ fourLevels: { paths: { "0>1": 1 } } }],
    [{ host: { ...DEFAULT_SCENARIO.host, colour: "red" } }]
  ])("refuses %j, as the command does", (change) => {
    const changed = { ...DEFAULT_SCENARIO, ...change }
    expect(scenario(changed)).toBe(false)
    expect(Result.isFailure(parseScenario("mine.json", JSON.stringify(changed)))).toBe(true)
  })
})

describe("shipped workloads", () => {
  it("have a file each, named after the workload", () => {
    for (const file of files) {
      const { name, workload } = JSON.parse(text(file))
      expect([`${name}.json`, WORKLOADS.includes(workload)]).toEqual([file, true])
    }
  })
})

it("the JSON schema of a profile accepts the built-in one and no strange key", () => {
  const built = JSON.parse(readFileSync(new URL("../../../profiles/epyc-9654p.json", import.meta.url), "utf8"))
  expect([profile(built), profile.errors]).toEqual([true, null])
  expect(profile({ ...built, colour: "red" })).toBe(false)
})

describe("the JSON schema of results", () => {
  const isResult = ajv.compile(jsonSchema("result"))
  const comparison = summarize({ run, profile: prices, scenario: guest, seed: 7, commit: "0".repeat(40) })

  it("accepts what compare prints, with keys of later versions", () => {
    expect([isResult(comparison), isResult.errors]).toEqual([true, null])
    expect(isResult({ ...comparison, later: 1 })).toBe(true)
  })

  it.each(["seed", "commit", "profile", "scenario", "launchDigest", "stateDigest", "results"])(
    "wants %s, as the contract does",
    (key) => {
      expect(isResult({ ...comparison, [key]: undefined })).toBe(false)
    }
  )

  it("wants every key of a result that the contract names", () => {
    const [first] = comparison.results
    for (const key of ["strategy", "variant", "operation", "samples", "ns", "perSwitch", "breakdown", "assumedShare"]) {
      expect([key, isResult({ ...comparison, results: [{ ...first, [key]: undefined }] })]).toEqual([key, false])
    }
  })
})
