import * as Schema from "effect/Schema"
import type { Scenario } from "../Scenario.ts"

/** Fastest rate at which a vCPU may call: one call per microsecond, which no strategy reaches. */
const RATE_MAX = 1_000_000

/** Keys of the workload `svsm-calls`, under `svsmCalls`. */
export const SvsmCallsKeys = Schema.Struct({
  /** Calls of each vCPU per second of virtual time; 0 or absent: back to back. */
  ratePerSecond: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: RATE_MAX }))))
})

/** Virtual ns from the start of a vCPU's call to that of its next; 0: back to back. */
export const paceNs = ({ svsmCalls }: Scenario): number => {
  const rate = svsmCalls?.ratePerSecond ?? 0
  return rate === 0 ? 0 : Math.round(1_000_000_000 / rate)
}
