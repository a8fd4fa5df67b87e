import * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { DEFAULT_SCENARIO } from "./DefaultScenario.ts"
import { isPath, readInputText } from "./InputFile.ts"
import { InputInvalid, oneLine } from "./InputInvalid.ts"
import { decodeJsonText } from "./JsonText.ts"
import { Scenario } from "./Scenario.ts"
import { pathsTrouble } from "./workloads/FourLevels.ts"
import { acceptanceTrouble } from "./workloads/MemoryAcceptance.ts"
import { behaviourTrouble, workloadOf } from "./workloads/Work.ts"
import { KEYS_OF_WORKLOAD, workloadKeys } from "./workloads/Workload.ts"

/** What is wrong with a scenario's pins: each names a vCPU and a core that exist, and no thread twice. */
const pinTrouble = ({ vcpus, host }: Scenario) => {
  const seen = new Set<string>()
  for (const [index, { vcpu, vmpl, core }] of (host.pins ?? []).entries()) {
    const path = ["host", "pins", index]
    if (vcpu >= vcpus) return { path: [...path, "vcpu"], issue: `a vCPU below vcpus, ${vcpus}` }
    if (core >= host.cores) return { path: [...path, "core"], issue: `a core below host.cores, ${host.cores}` }
    const thread = `${vcpu}:${vmpl ?? "all"}`
    if (seen.has(thread)) return { path, issue: "a thread that no pin names before this" }
    seen.add(thread)
  }
  return undefined
}

/** A scenario with the keys of its own workload only, whose pins can be kept to and whose mix asks for a call. */
const ScenarioSchema = Scenario.check(
  Schema.makeFilter(pinTrouble),
  Schema.makeFilter((scenario) => workloadTrouble(scenario)),
  Schema.makeFilter((scenario) =>
    Object.values(scenario.mix).some((weight) => weight > 0)
      ? undefined
      : { path: ["mix"], issue: "at least one weight above 0" }
  ),
  Schema.makeFilter(({ workload, interrupts }) =>
    workload === "interrupts" && interrupts === undefined
      ? { path: ["interrupts"], issue: "this key, which the workload needs" }
      : undefined
  )
)

/** Keys of another workload would be ignored: better refused. */
const workloadTrouble = (scenario: Scenario) => {
  const workload = workloadOf(scenario)
  const known = KEYS_OF_WORKLOAD[workload]
  for (const key of Object.keys(workloadKeys) as Array<keyof typeof workloadKeys>) {
    if (scenario[key] === undefined || known.includes(key)) continue
    return { path: [key], issue: `no such key with the workload ${workload}, which has ${known.join(", ")}` }
  }
  return acceptanceTrouble(scenario) ?? pathsTrouble(scenario) ?? behaviourTrouble(scenario)
}

/** A scenario's text to a scenario; `file` is how the error line calls it. */
export const parseScenario = (file: string, json: string): Result.Result<Scenario, InputInvalid> =>
  decodeJsonText(ScenarioSchema, file, json)

/**
 * A scenario by name (`default`) or by path (anything with a slash, or ending in `.json`).
 *
 * @returns InputInvalid for an unknown name, an unreadable file, or contents that are not a scenario.
 */
export const loadScenario = Effect.fn("loadScenario")(function* (nameOrPath: string) {
  if (isPath(nameOrPath)) {
    return yield* Effect.fromResult(parseScenario(nameOrPath, yield* readInputText(nameOrPath)))
  }
  if (nameOrPath === DEFAULT_SCENARIO.name) return new Scenario(DEFAULT_SCENARIO)
  return yield* new InputInvalid({
    line: oneLine(
      `--scenario: ${JSON.stringify(nameOrPath)} unknown, expected ${DEFAULT_SCENARIO.name} or the path of a JSON file`
    )
  })
})

/** The scenario with some of its numbers replaced from the command line; undefined keeps the scenario's own. */
export const overrideScenario = (
  scenario: Scenario,
  by: {
    readonly vcpus?: number | undefined
    readonly calls?: number | undefined
    readonly boots?: number | undefined
    readonly ring?: Scenario["ring"] | undefined
    readonly placement?: Scenario["host"]["placement"] | undefined
  }
): Scenario =>
  new Scenario({
    ...scenario,
    vcpus: by.vcpus ?? scenario.vcpus,
    calls: by.calls ?? scenario.calls,
    boots: by.boots ?? scenario.boots,
    ring: by.ring ?? scenario.ring,
    host: { ...scenario.host, placement: by.placement ?? scenario.host.placement }
  })
