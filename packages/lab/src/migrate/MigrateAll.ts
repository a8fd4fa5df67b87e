import { type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import * as Effect from "effect/Effect"
import { RunFailed } from "../RunFailed.ts"
import { MigrationFlow } from "./Migrate.ts"
import type { MigrateOptions, Tracking } from "./MigrateOptions.ts"
import type { MigrationRun } from "./MigrationRun.ts"
import { runUnmoved } from "./Unmoved.ts"

/** Runs a generator to its end, where what it throws as RunFailed becomes a failure; it can be interrupted. */
export const driven = <A>(steps: Generator<void, A>): Effect.Effect<A, RunFailed> =>
  Effect.gen(function* () {
    for (;;) {
      const step = yield* Effect.suspend(() => {
        try {
          return Effect.succeed(steps.next())
        } catch (cause) {
          if (cause instanceof RunFailed) return Effect.fail(cause)
          throw cause
        }
      })
      if (step.done === true) return step.value
      yield* Effect.yieldNow
    }
  })

/** One migration, which fails unless the guest is the same on the other side and comes to the same end as unmoved. */
const migrateOne = Effect.fnUntraced(function* (options: MigrateOptions) {
  const run = yield* driven(new MigrationFlow(options).run())
  const where = `${strategyName(options.strategy)}, ${options.tracking}`
  if (run.refusal !== null)
    return yield* new RunFailed({ why: `${where}: the target refuses the guest: ${run.refusal}` })
  if (run.sourceDigest !== run.targetDigest)
    return yield* new RunFailed({ why: `${where}: the guest arrives in another state than it left` })
  if ((yield* driven(runUnmoved(options, run.writes))) !== run.guestDigest)
    return yield* new RunFailed({ why: `${where}: the guest comes to another end than on one machine` })
  return run
})

/** Every strategy with every tracking. */
export const migrateAll = Effect.fnUntraced(function* (
  strategies: ReadonlyArray<Strategy>,
  trackings: ReadonlyArray<Tracking>,
  options: Omit<MigrateOptions, "strategy" | "tracking">
) {
  const runs: Array<MigrationRun> = []
  for (const strategy of strategies)
    for (const tracking of trackings) runs.push(yield* migrateOne({ ...options, strategy, tracking }))
  return runs
})
