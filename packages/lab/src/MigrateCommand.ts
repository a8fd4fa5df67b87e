import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import { numberFlag, optional, profileFlag, seedFlag, switchFlag } from "./Flags.ts"
import { writeOut } from "./Output.ts"
import { codeCommit } from "./Version.ts"

const flags = {
  strategy: Flag.String("strategy").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("Only this strategy: KEY, or KEY/VARIANT; several times, or a list by commas"),
    Flag.atLeast(0)
  ),
  target: optional(
    Flag.String("target").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Strategy of the other machine, one KEY or KEY/VARIANT; the same where left out")
    )
  ),
  tracking: optional(
    Flag.Literals("tracking", ["vmpl-write-right", "nested-page-table"]).pipe(
      Flag.withDescription("Only this way to find the pages that the guest writes meanwhile")
    )
  ),
  pages: numberFlag("pages", 1, 16_384).pipe(
    Flag.withDescription("Pages that the guest writes to"),
    Flag.withDefault(1_024)
  ),
  vcpus: numberFlag("vcpus", 1, 15).pipe(
    Flag.withDescription("vCPUs that write; one more is the migration agent's"),
    Flag.withDefault(2)
  ),
  writeRate: numberFlag("write-rate", 1, 10_000_000).pipe(
    Flag.withDescription("Writes of each vCPU in a second"),
    Flag.withDefault(50_000)
  ),
  bandwidth: numberFlag("bandwidth", 1, 1_000_000).pipe(
    Flag.withDescription("Of the link, Mbit/s"),
    Flag.withDefault(10_000)
  ),
  latency: numberFlag("latency", 0, 1_000_000).pipe(
    Flag.withDescription("Of the link each way, microseconds"),
    Flag.withDefault(50)
  ),
  threshold: numberFlag("threshold", 0, 16_384).pipe(
    Flag.withDescription("Pages left at which the guest is stopped"),
    Flag.withDefault(32)
  ),
  maxRounds: numberFlag("max-rounds", 1, 1_000).pipe(
    Flag.withDescription("Rounds after which the guest is stopped in any case"),
    Flag.withDefault(10)
  ),
  trustHost: switchFlag("trust-host").pipe(
    Flag.withDescription("Believe the host's list of written pages: memory is not hashed again at the stop")
  ),
  profile: profileFlag,
  seed: seedFlag,
  json: switchFlag("json").pipe(Flag.withDescription("Print one JSON object"))
}

/** How long the guest writes before it is moved, and how much each vCPU writes after. */
const WARM_UP_NS = 20_000_000
const WRITES_AFTER = 1_000

/** `vmpl-lab migrate`: a guest that writes to its memory goes from one machine to another, under each strategy. */
export const migrate = Command.make(
  "migrate",
  flags,
  Effect.fn("migrate")(function* (options) {
    const [{ migrateAll }, { TRACKINGS }, { migrateText }, { askedStrategies }, { oneStrategy }, { loadProfile }] =
      yield* Effect.promise(() =>
        Promise.all([
          import("./migrate/MigrateAll.ts"),
          import("./migrate/MigrateOptions.ts"),
          import("./migrate/MigrateTable.ts"),
          import("./StrategyNames.ts"),
          import("./tpm/ServiceGuest.ts"),
          import("./ProfileFile.ts")
        ])
      )
    const strategies = yield* askedStrategies(options.strategy)
    const target = options.target === undefined ? undefined : yield* oneStrategy(options.target, "target")
    const profile = yield* loadProfile(options.profile)
    const { pages, vcpus, writeRate, bandwidth, latency, threshold, maxRounds, seed } = options
    const runs = yield* migrateAll(strategies, options.tracking === undefined ? TRACKINGS : [options.tracking], {
      profile,
      seed,
      pages,
      vcpus,
      writesPerSecond: writeRate,
      link: { bitsPerSecond: bandwidth * 1e6, latencyNs: latency * 1_000 },
      threshold,
      maxRounds,
      warmUpNs: WARM_UP_NS,
      writesAfter: WRITES_AFTER,
      ...(options.trustHost ? { rehash: false } : {}),
      ...(target === undefined ? {} : { targetStrategy: target })
    })
    const { trustHost } = options
    const link = { bandwidthMbit: bandwidth, latencyUs: latency }
    const head = { pages, vcpus, writeRate, ...link, threshold, maxRounds, trustHost }
    if (options.json) {
      const all = { seed, commit: codeCommit(), profile: profile.name, parameters: head, migrations: runs }
      return yield* writeOut(`${JSON.stringify(all, null, 2)}\n`)
    }
    yield* writeOut(`${migrateText({ ...head, profile: profile.name, seed }, runs)}\n`)
  })
).pipe(Command.withDescription("Move a running guest to another simulated machine: downtime, faults and VMPL switches"))
