import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import type { Interrupts } from "@vmpl-lab/lab"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { runInterrupts } from "../support/interruptRun.ts"

type Source = Interrupts["sources"][number]

const source = (alternate: boolean): fc.Arbitrary<Source> =>
  fc
    .record({
      source: fc.constantFrom<Source["source"]>("device", "timer", "ipi"),
      vmpl: fc.constantFrom<Source["vmpl"]>(0, 2),
      periodNs: fc.integer({ min: 200_000, max: 400_000 }),
      everyCalls: fc.integer({ min: 1, max: 5 })
    })
    .filter(({ source: kind, vmpl }) => !(alternate && kind === "ipi" && vmpl === 2))
    .map(({ source: kind, vmpl, periodNs, everyCalls }) =>
      kind === "ipi" && vmpl === 0 ? { source: kind, vmpl, everyCalls } : { source: kind, vmpl, periodNs }
    )

const keys: fc.Arbitrary<Interrupts> = fc
  .constantFrom<readonly [Interrupts["injection"], Interrupts["svsmInjection"]]>(
    ["normal", "normal"],
    ["normal", "restricted"],
    ["restricted", "normal"],
    ["restricted", "restricted"],
    ["alternate", "restricted"]
  )
  .chain(([injection, svsmInjection]) =>
    fc.record({
      injection: fc.constant(injection),
      svsmInjection: fc.constant(svsmInjection),
      sources: fc.uniqueArray(source(injection === "alternate"), {
        selector: ({ source: kind, vmpl }) => `${kind}@${vmpl}`,
        maxLength: 6
      }),
      svsmShare: fc.integer({ min: 0, max: 1_000 }),
      pagesPerCall: fc.integer({ min: 0, max: 20 }),
      durationNs: fc.constant(1_500_000)
    })
  )

describe.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))("%s", (_, strategy) => {
  const sharesLapic = strategy.key === "multi-vmpl-vcpu"
  const knowsLevels = strategy.operations.kernel.outsideVmpl === undefined

  it("whatever comes whenever: the guest comes to its end, nothing is lost, and no level takes another's", () => {
    fc.assert(
      fc.property(
        keys,
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 2, max: 96 }),
        fc.integer({ min: 0, max: 1_000 }),
        (interrupts, vcpus, cores, seed) => {
          const { records } = runInterrupts(strategy, interrupts, { vcpus, cores, seed })
          for (const record of Object.values(records)) {
            const { raised, delivered, misdelivered, merged, refused, pending, lost } = record
            expect(delivered + misdelivered + merged + refused + pending).toBe(raised)
            expect(lost).toBe(0)
            if (!sharesLapic && (knowsLevels || record.source !== "device")) expect(misdelivered).toBe(0)
          }
        }
      ),
      { numRuns: 12, seed: 5 }
    )
  })
})
