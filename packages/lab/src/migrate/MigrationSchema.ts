import * as Schema from "effect/Schema"
import { TRACKINGS } from "./MigrateOptions.ts"

const count = Schema.Int
const ns = Schema.Finite
const digest = Schema.String

const Migration = Schema.Struct({
  strategy: Schema.String,
  tracking: Schema.Literals(TRACKINGS),
  rounds: Schema.Array(Schema.Struct({ pages: count, dirtied: count, ns })),
  lastPages: count,
  bytes: count,
  dirtyFaults: count,
  switches: Schema.Struct({ source: count, target: count }),
  totalNs: ns,
  downtimeNs: ns,
  writesPerSecond: Schema.Struct({ before: Schema.Finite, during: Schema.Finite }),
  sourceDigest: digest,
  targetDigest: digest,
  guestDigest: digest,
  writes: Schema.Array(count)
})

/** What a reader of `migrate --json` may rely on; further keys may be added. */
export const MigrationSchema = Schema.Struct({
  seed: count,
  commit: Schema.String,
  profile: Schema.String,
  parameters: Schema.Struct({
    pages: count,
    vcpus: count,
    writeRate: count,
    bandwidthMbit: count,
    latencyUs: count,
    threshold: count,
    maxRounds: count,
    trustHost: Schema.Boolean
  }),
  migrations: Schema.Array(Migration)
})
