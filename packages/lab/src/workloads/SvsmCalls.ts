import * as Schema from "effect/Schema"

/** Fastest rate at which a vCPU may call: one call per microsecond, which no strategy reaches. */
const RATE_MAX = 1_000_000

/** Keys of the workload `svsm-calls`, under `svsmCalls`. */
export const SvsmCallsKeys = Schema.Struct({
  /** Calls of each vCPU per second of virtual time; 0 or absent: back to back. */
  ratePerSecond: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: RATE_MAX }))))
})
