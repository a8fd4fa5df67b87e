import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { DEFAULT_SCENARIO } from "../src/DefaultScenario.ts"
import { overrideScenario, parseScenario } from "../src/ScenarioFile.ts"
import { scenario } from "./fixture.ts"

const lineOf = (change: object): string => {
  const result = parseScenario("mine.json", JSON.stringify({ ...DEFAULT_SCENARIO, ...change }))
  return Result.isFailure(result) ? result.failure.line : "accepted"
}

describe("scenarios", () => {
  it("the built-in one passes the checks of a file", () => {
    expect(lineOf({})).toBe("accepted")
  })

  it("numbers from the command line replace those of the scenario", () => {
    const own = overrideScenario(scenario, { vcpus: 8, calls: 0 })
    expect([own.vcpus, own.calls, own.boots, own.name]).toEqual([8, 0, scenario.boots, scenario.name])
  })

  it.each([
    [{ vcpus: 0 }, "vcpus: expected a value between 1 and 512, got 0"],
    [{ vcpus: 513 }, "vcpus: expected a value between 1 and 512, got 513"],
    [{ calls: 0.5 }, "calls: expected an integer, got 0.5"],
    [{ boots: "1" }, 'boots: expected a number, got "1"'],
    [{ ring: "bell" }, 'ring: expected one of "page", "msr", got "bell"'],
    [{ host: { cores: 1 } }, "host.placement: missing, expected this key"],
    [
      { host: { cores: 4, placement: "packed" } },
      'host.placement: expected one of "spread", "same-core", "two-cores", "unpinned", got "packed"'
    ],
    [
      { host: { cores: 4, placement: "spread", timeSliceNs: 99_999 } },
      "host.timeSliceNs: expected a value between 100000 and 1000000000, got 99999"
    ],
    [
      { host: { cores: 4, placement: "spread", cStates: "off" } },
      'host.cStates: expected one of "shallow", "deep", got "off"'
    ],
    [
      { host: { cores: 4, placement: "spread", pins: [{ vcpu: 4, core: 0 }] } },
      "host.pins[0].vcpu: expected a vCPU below vcpus, 4, got 4"
    ],
    [
      { host: { cores: 4, placement: "spread", pins: [{ vcpu: 0, vmpl: 2, core: 4 }] } },
      "host.pins[0].core: expected a core below host.cores, 4, got 4"
    ],
    [{ speed: 5 }, "speed: unknown key with value 5, expected only the 17 known keys"],
    [{ svsm: { behaviour: "verismo" } }, 'svsm.behaviour: expected one of "specification", "coconut", got "verismo"'],
    [
      { workload: "four-levels", svsm: { behaviour: "coconut" } },
      'svsm.behaviour: expected specification: this workload has guest levels other than VMPL2, got "coconut"'
    ],
    [
      { workload: "ap-boot", apBoot: { moreLevels: "vmpl1" }, svsm: { behaviour: "coconut" } },
      'svsm.behaviour: expected specification: this workload has guest levels other than VMPL2, got "coconut"'
    ],
    [
      {
        workload: "memory-acceptance",
        memoryAcceptance: { mebibytes: 2, entrySize: "2M", entriesPerCall: 50 },
        svsm: { behaviour: "coconut" }
      },
      "memoryAcceptance.entriesPerCall: expected 0: the behaviour coconut serves a list in one call, got 50"
    ],
    [
      { rmpSwitches: { U19: "default" } },
      'rmpSwitches.U19: unknown key with value "default", expected only the 18 known keys'
    ],
    [
      { workload: "idle" },
      'workload: expected one of "svsm-calls", "ap-boot", "memory-acceptance", "interrupts", "four-levels", "mixed", got "idle"'
    ],
    [{ apBoot: {} }, "apBoot: expected no such key with the workload svsm-calls, which has svsmCalls, got {}"],
    [
      { workload: "memory-acceptance", memoryAcceptance: { mebibytes: 3, entrySize: "2M" } },
      "memoryAcceptance.mebibytes: expected a value that is a multiple of 2, got 3"
    ],
    [
      { workload: "memory-acceptance", memoryAcceptance: { mebibytes: 65_536, entrySize: "4K" } },
      "memoryAcceptance.mebibytes: expected at most 8192 MiB in pages of 4 KiB, as each is simulated, got 65536"
    ],
    [
      { workload: "four-levels", fourLevels: { paths: { "1>0": 0 } } },
      'fourLevels.paths: expected at least one weight above 0, got {"1>0":0}'
    ],
    [{ rmpSwitches: { U3: "other" } }, 'rmpSwitches.U3: expected one of "default", "alternative", got "other"'],
    [
      { mix: { QUERY_PROTOCOL: 0, PVALIDATE: 0, REMAP_CA: 0 } },
      'mix: expected at least one weight above 0, got {"QUERY_PROTOCOL":0,"PVALIDATE":0,"REMAP_CA":0}'
    ]
  ])("%j is refused in one line", (change, line) => {
    expect(lineOf(change)).toBe(`mine.json: ${line}`)
  })
})
