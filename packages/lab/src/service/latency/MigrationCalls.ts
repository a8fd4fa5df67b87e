import { SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { MIGRATION_COST, PAGE_COST, recordSize } from "@vmpl-lab/svsm"
import * as Effect from "effect/Effect"
import { MigrationFlow } from "../../migrate/Migrate.ts"
import { driven } from "../../migrate/MigrateAll.ts"
import { type MigrateOptions, type MigrationCallTime, TRACKINGS, type Tracking } from "../../migrate/MigrateOptions.ts"
import { BUFFER_PAGES } from "../../migrate/MigrationSide.ts"
import { RunFailed } from "../../RunFailed.ts"
import type { MeasuredGroup, MeasureOptions } from "./CallGroup.ts"

/** Pages of a batch that fills the buffer: the longer batches of one migration are compared. */
const BATCH = Math.floor((BUFFER_PAGES * PAGE_SIZE) / recordSize(PAGE_SIZE))
/** Migrations of each kind, each of another seed. */
const MIGRATIONS_MAX = 3

/** A guest of 4 batches, beside what every guest has, with one vCPU that writes. */
const SMALL = {
  pages: 4 * BATCH,
  vcpus: 1,
  writesPerSecond: 50_000,
  link: { bitsPerSecond: 10e9, latencyNs: 50_000 },
  threshold: 8,
  maxRounds: 3,
  warmUpNs: 200_000,
  writesAfter: 10
} as const

/** A call with what was going on when it was made. */
interface Heard extends MigrationCallTime {
  readonly tracking: Tracking
}

/** A row of the table, and the calls that are in it. */
interface Row {
  readonly name: string
  readonly givenNs: number
  readonly has: (call: Heard) => boolean
}

const { KEY_AGREEMENT, CHECK_REPORT } = MIGRATION_COST
const BATCH_NS = BATCH * PAGE_COST.BOTH

const row = (name: string, givenNs: number, has: Partial<Heard>): Row => ({
  name,
  givenNs,
  has: (call) => Object.entries(has).every(([key, value]) => call[key as keyof Heard] === value)
})

const [RIGHT, TABLE] = TRACKINGS

const ROWS: ReadonlyArray<Row> = [
  row("HELLO", KEY_AGREEMENT, { kind: "hello" }),
  row("PEER", KEY_AGREEMENT + CHECK_REPORT, { kind: "peer" }),
  row("START", 0, { kind: "start" }),
  row(`EXPORT, ${BATCH} pages, the write right taken`, BATCH_NS, { kind: "export", rdx: BATCH, tracking: RIGHT }),
  row(`EXPORT, ${BATCH} pages, the host tracks`, BATCH_NS, { kind: "export", rdx: BATCH, tracking: TABLE }),
  row("MARK", 0, { kind: "mark" }),
  row("PARK, the write right taken", 0, { kind: "park", tracking: RIGHT }),
  row("PARK, the host tracks", 0, { kind: "park", tracking: TABLE }),
  row("STOP, one vCPU", 0, { kind: "stop" }),
  row("EXPORT_STATE", 0, { kind: "export-state", tracking: RIGHT }),
  row("EXPORT_STATE, all memory hashed", SMALL.pages * PAGE_COST.HASH, { kind: "export-state", tracking: TABLE }),
  row(`IMPORT, ${BATCH} pages`, BATCH_NS, { kind: "import", rdx: BATCH }),
  row("IMPORT_STATE", 0, { kind: "import-state" }),
  row("RESUME, on the target", 0, { kind: "resume", side: "target" }),
  row("RESUME, on the source", 0, { kind: "resume", side: "source" })
]

/** What a carrier does, and where the guest is then. */
const WAYS: ReadonlyArray<Pick<MigrateOptions, "tracking" | "carries"> & { readonly ends: "source" | "target" }> = [
  ...TRACKINGS.map((tracking) => ({ tracking, ends: "target" }) as const),
  // Nothing arrives that the target could take: the guest goes back.
  { tracking: RIGHT, ends: "source", carries: (message) => [{ ...message, bytes: new Uint8Array(PAGE_SIZE) }] }
]

const migrate = Effect.fnUntraced(function* (how: MeasureOptions, seed: number, way: (typeof WAYS)[number]) {
  const heard: Array<Heard> = []
  const { ends, ...rest } = way
  const called = (call: MigrationCallTime): void => {
    heard.push({ ...call, tracking: way.tracking })
  }
  const flow = new MigrationFlow({ ...SMALL, strategy: how.strategy, profile: how.profile, seed, called, ...rest })
  const run = yield* driven(flow.run())
  if (run.goesOn !== ends)
    return yield* new RunFailed({ why: `migration: the guest goes on ${run.goesOn}, not ${ends}` })
  // What the carrier spoilt is refused, and STOP is asked again where it takes long: neither is a call of the table.
  return heard.filter(({ result }) => result === SVSM_RESULT.SUCCESS)
})

/**
 * The calls of the migration protocol, of both machines, from whole migrations: a vCPU that is moved cannot call one by
 * one. Samples are those of some migrations, whatever number of calls is asked for.
 */
export const migrationCalls: MeasuredGroup = {
  protocol: "migration",
  measure: Effect.fnUntraced(function* (how) {
    const heard: Array<Heard> = []
    for (let run = 0; run < Math.min(how.calls, MIGRATIONS_MAX); run++)
      for (const way of WAYS) heard.push(...(yield* migrate(how, how.seed + run, way)))
    return ROWS.map(({ name, givenNs, has }) => ({ name, givenNs, outcomes: heard.filter(has).slice(0, how.calls) }))
  })
}
