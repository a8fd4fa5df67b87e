import * as Schema from "effect/Schema"

const count = Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0)))

const LatencyRow = Schema.Struct({
  strategy: Schema.String,
  /** The protocol, or the name of the service that was run. */
  protocol: Schema.String,
  call: Schema.String,
  samples: count,
  results: Schema.Array(Schema.String),
  /** Of the median call, virtual ns: all of it, its switches, and the rest. */
  ns: count,
  switchNs: count,
  serviceNs: Schema.Int,
  /** Of the rest, what is given as one number. */
  givenNs: count
})

/** What a reader of `service run --json` and `service latency --json` may rely on; further keys may be added. */
export const ServiceSchema = Schema.Struct({
  seed: Schema.Int,
  commit: Schema.String,
  profile: Schema.String,
  /** These three and `fuzz` for `run` only. */
  service: Schema.optionalKey(Schema.String),
  vmpl: Schema.optionalKey(count),
  serviceVmpl: Schema.optionalKey(count),
  latency: Schema.Array(LatencyRow),
  fuzz: Schema.optionalKey(
    Schema.Array(Schema.Struct({ strategy: Schema.String, calls: count, results: Schema.Record(Schema.String, count) }))
  )
})
