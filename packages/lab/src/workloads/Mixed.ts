import * as Schema from "effect/Schema"
import type { Scenario } from "../Scenario.ts"

/** Keys of the workload `mixed`, under `mixed`, beside those of the workloads that it mixes. */
export const MixedKeys = Schema.Struct({
  /** Of 1000 vCPUs, how many accept memory before they call, while the others call from the start. */
  acceptingPermille: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000 }))))
})

/** How many vCPUs accept memory: at least one, and all outside of `mixed`. */
export const acceptorsOf = ({ workload, vcpus, mixed }: Scenario): number =>
  workload === "mixed" ? Math.max(1, Math.round((vcpus * (mixed?.acceptingPermille ?? 500)) / 1_000)) : vcpus
