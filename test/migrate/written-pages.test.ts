import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { MigrationFlow, TRACKINGS } from "@vmpl-lab/lab"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { TlbSet } from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { outcomeOf, smallMigration } from "../support/migration.ts"

/** Memory as a plain log of all writes has it. */
class WriteLog {
  readonly words = new Map<number, number>()
  readonly wrote = (_apicId: number, gpa: number, value: number): void => {
    this.words.set(gpa, value)
  }
}

/** Words that are not on the target what the log says, as addresses. */
const lost = (flow: MigrationFlow, { words }: WriteLog): ReadonlyArray<string> => {
  const { hardware, vmm } = flow.sides[1].machine
  return [...words].flatMap(([gpa, value]) => {
    const pfn = vmm.memory.privateFrameIfPresent(Math.floor(gpa / PAGE_SIZE))
    const found = pfn < 0 ? -1 : hardware.memory.read(pfn, vmm.owner.asid).getUint32(gpa % PAGE_SIZE, true)
    return found === value ? [] : [`0x${gpa.toString(16)}`]
  })
}

describe("whatever the guest writes while it moves", () => {
  it("is there in the end, word for word, and the guest is what it was", () => {
    const pattern = fc.record({
      strategy: fc.constantFrom(...STRATEGIES),
      targetStrategy: fc.constantFrom(...STRATEGIES),
      tracking: fc.constantFrom(...TRACKINGS),
      seed: fc.nat(1_000_000),
      pages: fc.integer({ min: 1, max: 96 }),
      vcpus: fc.integer({ min: 1, max: 4 }),
      writesPerSecond: fc.integer({ min: 1_000, max: 3_000_000 }),
      callEvery: fc.constantFrom(0, 1, 3, 10),
      threshold: fc.nat(40),
      maxRounds: fc.integer({ min: 1, max: 5 }),
      writesAfter: fc.nat(40)
    })
    fc.assert(
      fc.property(pattern, (changes) => {
        const log = new WriteLog()
        const flow = new MigrationFlow(smallMigration({ ...changes, wrote: log.wrote }))
        const run = outcomeOf(flow.run())
        expect(run.refusal).toBeNull()
        expect(run.targetDigest).toBe(run.sourceDigest)
        expect(lost(flow, log)).toEqual([])
      }),
      { seed: 7, numRuns: 25 }
    )
  })

  it.each(TRACKINGS)("is there with TLBs that keep what they were not told to drop: %s", (tracking) => {
    const log = new WriteLog()
    const flow = new MigrationFlow(smallMigration({ tracking, wrote: log.wrote, vcpus: 3, writesPerSecond: 1_000_000 }))
    for (const { machine } of flow.sides) Object.assign(machine.hardware, { tlbs: new TlbSet(4096) })
    const run = outcomeOf(flow.run())
    expect(run.targetDigest).toBe(run.sourceDigest)
    expect(lost(flow, log)).toEqual([])
  })
})
