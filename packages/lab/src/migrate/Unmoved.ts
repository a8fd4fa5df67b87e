import { pagesDigest } from "./GuestDigest.ts"
import type { MigrateOptions } from "./MigrateOptions.ts"
import { dataRange, MigrationSide } from "./MigrationSide.ts"

/**
 * The same guest on one machine for all of its work: as many writes of each vCPU.
 * @returns the digest over the pages that it wrote, hex
 */
export function* runUnmoved(options: MigrateOptions, writes: ReadonlyArray<number>): Generator<void, string> {
  const { strategy, profile, seed, pages, vcpus, writesPerSecond } = options
  const data = dataRange(pages)
  const side = new MigrationSide({
    name: "source",
    strategy,
    profile,
    seed,
    chip: 1,
    vcpus: vcpus + 1,
    data,
    paceNs: Math.round(1e9 / writesPerSecond),
    callEvery: options.callEvery ?? 0,
    writes: (apicId) => writes[apicId]!,
    writesAfter: 0
  })
  yield* side.boot()
  yield* side.finish()
  return pagesDigest(side.machine, data.gpa, data.pages)
}
