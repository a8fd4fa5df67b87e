import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { TRACKINGS } from "@vmpl-lab/lab"
import { describe, expect, it } from "vitest"
import { migrated, smallMigration, unmoved } from "../support/migration.ts"

const PAIRS = STRATEGIES.flatMap((strategy) =>
  TRACKINGS.map((tracking) => ({ name: `${strategyName(strategy)}, ${tracking}`, strategy, tracking }))
)

describe("a guest that moves while it writes", () => {
  it.each(PAIRS)("$name: arrives as it left and comes to the same end as on one machine", ({ strategy, tracking }) => {
    const options = smallMigration({ tracking, callEvery: 4 }, strategy)
    const run = migrated(options)
    expect(run.refusal).toBeNull()
    expect(run.goesOn).toBe("target")
    expect(run.targetDigest).toBe(run.sourceDigest)
    expect(run.guestDigest).toBe(unmoved(options, run))
    expect(run.rounds.length).toBeGreaterThan(1)
    expect(run.rounds[0]!.pages).toBeGreaterThan(options.pages)
    // Each vCPU made its writes on the target, beside those before.
    for (const writes of run.writes.slice(1)) expect(writes).toBeGreaterThan(options.writesAfter)
    if (tracking === "vmpl-write-right") expect(run.dirtyFaults).toBeGreaterThan(0)
    else expect(run.dirtyFaults).toBe(0)
    expect(run.downtimeNs!).toBeGreaterThan(options.link.latencyNs)
    expect(run.totalNs!).toBeGreaterThan(run.downtimeNs!)
  })

  it("may go on under another strategy", () => {
    const options = smallMigration({ targetStrategy: STRATEGIES.at(-1)! })
    const run = migrated(options)
    expect(run.targetDigest).toBe(run.sourceDigest)
    expect(run.guestDigest).toBe(unmoved(options, run))
  })

  it("is the same twice with one seed, and another with another", () => {
    const options = smallMigration()
    const run = migrated(options)
    expect(migrated(options)).toEqual(run)
    expect(migrated({ ...options, seed: 2 }).sourceDigest).not.toBe(run.sourceDigest)
  })

  it("is slowed down by faults, each of which is a round trip to VMPL0", () => {
    const byRight = migrated(smallMigration({ pages: 256 }))
    const byHost = migrated(smallMigration({ pages: 256, tracking: "nested-page-table" }))
    expect(byRight.writesPerSecond.during).toBeLessThan(0.95 * byRight.writesPerSecond.before)
    expect(byHost.writesPerSecond.during).toBeGreaterThan(byRight.writesPerSecond.during)
    expect(byRight.switches.source).toBeGreaterThanOrEqual(2 * byRight.dirtyFaults)
    // What the host is not believed costs a hash of all memory while the guest stands still.
    const trusted = migrated(smallMigration({ pages: 256, tracking: "nested-page-table", rehash: false }))
    expect(byHost.downtimeNs!).toBeGreaterThan(trusted.downtimeNs!)
  })

  it("is stopped after so many rounds even where too many pages are left", () => {
    const run = migrated(smallMigration({ threshold: 0, maxRounds: 3, writesPerSecond: 1_000_000 }))
    expect(run.rounds).toHaveLength(3)
    expect(run.lastPages).toBeGreaterThan(0)
    expect(run.targetDigest).toBe(run.sourceDigest)
  })
})
