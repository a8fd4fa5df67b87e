import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { HAND_OFF_MEANS, PLACEMENTS } from "@vmpl-lab/hypervisor"
import { builtInFirmware, Machine, Scenario, scenarioLaunch, WORKLOADS, type WorkloadName } from "@vmpl-lab/lab"
import { type Cost, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { overlaps, watchEntries } from "../support/watchEntries.ts"
import { anyScenario, takesInterrupts } from "./anyScenario.ts"

/** SVSM_ERR_PVALIDATE_FAIL_SIZEMISMATCH: 2 MiB entries over 4 KiB pages are refused, and done again. */
const SIZE_MISMATCH = 0x8000_1006

/** A small guest that takes more than 800,000 events has come to a loop. */
const CHUNKS_MAX = 60

const cost = (max: number) =>
  fc.integer({ min: 0, max }).chain((ns) =>
    fc.constantFrom<Cost>(
      { ns, low: 0, high: ns, basis: "assumed", source: "none" },
      {
        ...{ ns, low: 0, high: ns * 2, basis: "assumed", source: "none" },
        quantiles: [
          [0, 0],
          [500, ns],
          [1000, ns * 2]
        ],
        probability: { permille: 300, low: 0, high: 1000 }
      }
    )
  )

const profile = (max: number): fc.Arbitrary<Profile> =>
  fc.tuple(...PRIMITIVES.map(() => cost(max))).map((costs): Profile => {
    const primitives = Object.fromEntries(PRIMITIVES.map((name, i) => [name, costs[i]!])) as Record<PrimitiveName, Cost>
    // Time must pass in a spin loop.
    const guest_pause: Cost = { ns: 40, low: 40, high: 40, basis: "assumed", source: "none" }
    return { name: "random", machine: "none", primitives: { ...primitives, guest_pause }, sums: [] }
  })

const host = fc.record({
  cores: fc.integer({ min: 1, max: 5 }),
  placement: fc.constantFrom(...PLACEMENTS),
  timeSliceNs: fc.constantFrom(200_000, 3_000_000),
  haltPollNs: fc.constantFrom(0, 200_000),
  cStates: fc.constantFrom("shallow" as const, "deep" as const),
  handOff: fc.constantFrom(...HAND_OFF_MEANS)
})

/** A scenario of a workload on a host, with prices under which a guest that takes interrupts gets something done too. */
const run = (workload: WorkloadName) =>
  fc
    .record({ scenario: anyScenario(workload), host })
    .map(({ scenario, host }) => new Scenario({ ...scenario, host }))
    .chain((scenario) =>
      fc.record({
        scenario: fc.constant(scenario),
        prices: profile(takesInterrupts(scenario) ? 2_000 : 20_000),
        seed: fc.nat()
      })
    )

/** Calls that the guest tells of; those that fill the time of a guest with interrupts are not told. */
const callsTold = ({ workload, vcpus, calls }: Scenario, { shares }: Machine["log"]): number => {
  const accepting = shares.reduce((sum, share) => sum + share.calls, 0)
  return workload === "interrupts" ? 0 : vcpus * calls + accepting
}

const checkInterrupts = (machine: Machine): void => {
  for (const record of machine.interrupts?.close(machine.vmm) ?? []) {
    const { raised, refused, merged, delivered, misdelivered, pending, lost } = record
    const known = refused + merged + delivered + misdelivered + pending
    expect([raised, lost]).toEqual([known + lost, 0])
  }
}

describe("random scenarios on random hosts", () => {
  it.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))(
    "%s: no call is lost, nothing hangs, no guest vCPU runs two levels and no VMSA twice at once",
    (_name, strategy) => {
      const seen = { waited: 0, levels: new Set<number>(), workloads: new Set<string>() }
      fc.assert(
        fc.property(fc.constantFrom(...WORKLOADS).chain(run), ({ scenario, prices, seed }) => {
          const { vcpus, workload } = scenario
          const svsm = scenarioLaunch(builtInFirmware(), scenario, seed)
          const machine = new Machine({ strategy, scenario, profile: prices, seed, calls: true, svsm })
          const { inGuest, taken } = watchEntries(machine)
          // The meter asserts at every arrival that the charges on the path are the time that went by.
          for (let chunks = 0; machine.stepMany(100_000); chunks++) expect(chunks).toBeLessThan(CHUNKS_MAX)
          expect(machine.failure()).toBeNull()
          const { log, meter } = machine
          expect([log.finished, log.callsMade]).toEqual([vcpus, callsTold(scenario, log)])
          expect([...log.failures.keys()].filter((result) => result !== SIZE_MISMATCH)).toEqual([])
          expect(taken).toEqual([])
          expect(overlaps(inGuest)).toEqual([])
          checkInterrupts(machine)
          if (workload === "svsm-calls") {
            expect(meter.roundTrip.ns).toHaveLength(vcpus * scenario.calls)
            expect(meter.oneWay.ns).toHaveLength(2 * vcpus * scenario.calls)
            // An SVSM AP and a guest AP for every vCPU but the first, and the guest's boot processor.
            expect(meter.apCreate.ns).toHaveLength(2 * (vcpus - 1) + 1)
          }
          if (meter.roundTrip.nsByPrimitive.at(-1)! > 0) seen.waited++
          seen.workloads.add(workload!)
          for (const { vmpl } of inGuest) seen.levels.add(vmpl)
        }),
        // Runs take tenths of a second: shrinking would take minutes, and the scenario that failed says enough.
        { numRuns: 40, seed: 20261121, endOnFailure: true }
      )
      // Hosts with fewer cores than guest vCPUs, all workloads and all levels must have occurred.
      expect(seen.waited).toBeGreaterThan(0)
      expect([seen.workloads.size, seen.levels.size]).toEqual([WORKLOADS.length, 4])
    }
  )
})
