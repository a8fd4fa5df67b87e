import type { BodyPlan } from "@vmpl-lab/guest"
import * as Schema from "effect/Schema"
import type { Scenario } from "../Scenario.ts"
import { apBootLevels } from "./ApBoot.ts"
import { acceptancePlan } from "./MemoryAcceptance.ts"
import { paceNs } from "./SvsmCalls.ts"

/** Keys of the workload `mixed`, under `mixed`, beside those of the workloads that it mixes. */
export const MixedKeys = Schema.Struct({
  /** Of 1000 vCPUs, how many accept memory before they call, while the others call from the start. */
  acceptingPermille: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000 }))))
})

/** How many vCPUs accept memory: at least one, and all outside of `mixed`. */
export const acceptorsOf = ({ workload, vcpus, mixed }: Scenario): number =>
  workload === "mixed" ? Math.max(1, Math.round((vcpus * (mixed?.acceptingPermille ?? 500)) / 1_000)) : vcpus

/** What a vCPU of `mixed` does once it is up: its share of the memory, then its calls. */
export const mixedBody = (scenario: Scenario): BodyPlan => ({
  acceptance: acceptancePlan(scenario, acceptorsOf(scenario)),
  paceNs: paceNs(scenario)
})

/** Level that takes the interrupts of a guest. */
const INTERRUPTED_VMPL = 2

/** What is wrong with a mixed scenario's levels, if anything: who takes interrupts is the level at which it boots. */
export const mixedTrouble = (scenario: Scenario) => {
  const { workload, interrupts } = scenario
  const boots = apBootLevels(scenario).guestVmpl
  return workload === "mixed" && interrupts !== undefined && boots !== INTERRUPTED_VMPL
    ? { path: ["apBoot", "moreLevels"], issue: '"none" or "vmpl3" beside interrupts, which the boot level VMPL2 takes' }
    : undefined
}
