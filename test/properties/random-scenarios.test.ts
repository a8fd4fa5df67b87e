import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import { HAND_OFF_MEANS, PLACEMENTS } from "@vmpl-lab/hypervisor"
import { builtInFirmware, Machine, Scenario, svsmLaunch } from "@vmpl-lab/lab"
import { type Cost, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import fc from "fast-check"
import { describe, expect, it } from "vitest"

const cost = fc.integer({ min: 0, max: 20_000 }).chain((ns) =>
  fc.constantFrom<Cost>(
    { ns, low: 0, high: ns, basis: "assumed", source: "none" },
    {
      ...{ ns, low: 0, high: ns * 2, basis: "assumed", source: "none" },
      quantiles: [
        [0, 0],
        [500, ns],
        [1000, ns * 2]
      ]
    }
  )
)

const profile: fc.Arbitrary<Profile> = fc.tuple(...PRIMITIVES.map(() => cost)).map((costs): Profile => {
  const primitives = Object.fromEntries(PRIMITIVES.map((name, i) => [name, costs[i]!])) as Record<PrimitiveName, Cost>
  // Time must pass in a spin loop.
  const guest_pause: Cost = { ns: 40, low: 40, high: 40, basis: "assumed", source: "none" }
  return { name: "random", machine: "none", primitives: { ...primitives, guest_pause }, sums: [] }
})

const scenario = fc
  .record({
    vcpus: fc.integer({ min: 1, max: 6 }),
    calls: fc.integer({ min: 0, max: 12 }),
    mix: fc.record({
      QUERY_PROTOCOL: fc.integer({ min: 1, max: 3 }),
      PVALIDATE: fc.integer({ min: 0, max: 3 }),
      REMAP_CA: fc.integer({ min: 0, max: 3 })
    }),
    ring: fc.constantFrom("page" as const, "msr" as const),
    host: fc.record({
      cores: fc.integer({ min: 1, max: 5 }),
      placement: fc.constantFrom(...PLACEMENTS),
      timeSliceNs: fc.constantFrom(200_000, 3_000_000),
      haltPollNs: fc.constantFrom(0, 200_000),
      cStates: fc.constantFrom("shallow" as const, "deep" as const),
      handOff: fc.constantFrom(...HAND_OFF_MEANS)
    })
  })
  .map((fields) => new Scenario({ name: "random", boots: 1, ...fields }))

describe("random scenarios on random hosts", () => {
  it.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))(
    "%s: every call is served, nothing hangs, and what a round trip took is what was charged for it",
    (_key, strategy) => {
      let waited = 0
      fc.assert(
        fc.property(scenario, profile, fc.nat(), (chosen, prices, seed) => {
          const svsm = svsmLaunch(builtInFirmware(), chosen.vcpus)
          const machine = new Machine({ strategy, scenario: chosen, profile: prices, seed, calls: true, svsm })
          // The meter asserts at every arrival that the charges on the path are the time that went by.
          while (machine.stepMany(100_000)) {}
          expect(machine.failure()).toBeNull()
          expect(machine.log.callsMade).toBe(chosen.vcpus * chosen.calls)
          expect([...machine.log.failures]).toEqual([])
          expect(machine.meter.roundTrip.ns).toHaveLength(chosen.vcpus * chosen.calls)
          expect(machine.meter.oneWay.ns).toHaveLength(2 * chosen.vcpus * chosen.calls)
          // Per boot: an SVSM AP and a guest AP for every vCPU but the first, and the guest's boot processor.
          expect(machine.meter.apCreate.ns).toHaveLength(2 * (chosen.vcpus - 1) + 1)
          if (machine.meter.roundTrip.nsByPrimitive.at(-1)! > 0) waited++
        }),
        { numRuns: 60, seed: 20261121 }
      )
      // Hosts with fewer cores than guest vCPUs must have occurred, or the property has shown little.
      expect(waited).toBeGreaterThan(0)
    }
  )
})
