import type { Strategy } from "@vmpl-lab/hv-strategies"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { type MigrateOptions, MigrationFlow, type MigrationRun, runUnmoved } from "@vmpl-lab/lab"
import { profile } from "./guestRun.ts"

/** A small guest on its way over a fast link. */
export const smallMigration = (
  changes: Partial<MigrateOptions> = {},
  strategy: Strategy = STRATEGIES[0]!
): MigrateOptions => ({
  strategy,
  tracking: "vmpl-write-right",
  profile,
  seed: 1,
  pages: 48,
  vcpus: 2,
  writesPerSecond: 100_000,
  link: { bitsPerSecond: 10e9, latencyNs: 50_000 },
  threshold: 8,
  maxRounds: 4,
  warmUpNs: 200_000,
  writesAfter: 50,
  ...changes
})

/** A generator's outcome. */
export const outcomeOf = <A>(steps: Generator<void, A>): A => {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
  }
}

export const migrated = (options: MigrateOptions): MigrationRun => outcomeOf(new MigrationFlow(options).run())

/** The digest that the same guest comes to on one machine. */
export const unmoved = (options: MigrateOptions, { writes }: MigrationRun): string =>
  outcomeOf(runUnmoved(options, writes))
