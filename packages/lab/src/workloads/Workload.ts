import * as Schema from "effect/Schema"
import { ApBootKeys } from "./ApBoot.ts"
import { FourLevelsKeys } from "./FourLevels.ts"
import { InterruptsKeys } from "./Interrupts.ts"
import { MemoryAcceptanceKeys } from "./MemoryAcceptance.ts"
import { MixedKeys } from "./Mixed.ts"
import { SvsmCallsKeys } from "./SvsmCalls.ts"

/** What a guest can be made to do. `mixed` takes the keys of all workloads it mixes. */
export const WORKLOADS = ["svsm-calls", "ap-boot", "memory-acceptance", "interrupts", "four-levels", "mixed"] as const
export type WorkloadName = (typeof WORKLOADS)[number]

/** The scenario keys that belong to one workload each, beside those that all have. */
export const workloadKeys = {
  svsmCalls: Schema.optionalKey(SvsmCallsKeys),
  apBoot: Schema.optionalKey(ApBootKeys),
  memoryAcceptance: Schema.optionalKey(MemoryAcceptanceKeys),
  interrupts: Schema.optionalKey(InterruptsKeys),
  fourLevels: Schema.optionalKey(FourLevelsKeys),
  mixed: Schema.optionalKey(MixedKeys)
}

type WorkloadKey = keyof typeof workloadKeys

/** Those keys that a scenario gives. */
export const keysOfWorkload = <S extends { readonly [K in WorkloadKey]?: unknown }>(
  scenario: S
): Pick<S, WorkloadKey> =>
  Object.fromEntries(
    (Object.keys(workloadKeys) as Array<WorkloadKey>).flatMap((key) =>
      scenario[key] === undefined ? [] : [[key, scenario[key]]]
    )
  ) as Pick<S, WorkloadKey>

/** Which of these keys a workload reads. */
export const KEYS_OF_WORKLOAD: { readonly [W in WorkloadName]: ReadonlyArray<string> } = {
  "svsm-calls": ["svsmCalls"],
  "ap-boot": ["apBoot"],
  "memory-acceptance": ["memoryAcceptance"],
  interrupts: ["interrupts"],
  "four-levels": ["fourLevels"],
  mixed: ["svsmCalls", "apBoot", "memoryAcceptance", "interrupts", "mixed"]
}
