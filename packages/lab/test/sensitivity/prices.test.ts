import { CostTable, PRIMITIVE, PRIMITIVES } from "@vmpl-lab/sim"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { parseProfile } from "../../src/ProfileFile.ts"
import { knobsOf } from "../../src/sensitivity/Knobs.ts"
import { priceFloor, split, withPrices } from "../../src/sensitivity/Prices.ts"
import { profile } from "../fixture.ts"
import { profileOf } from "./linear.ts"

const primitive = fc.constantFrom(...PRIMITIVES)

describe("other prices", () => {
  it("make a profile that is one: median, range, spread and sums agree", () => {
    const prices = fc.dictionary(primitive, fc.nat(2_000_000), { maxKeys: 4 })
    fc.assert(
      fc.property(prices, (asked) => {
        const floored = Object.fromEntries(Object.entries(asked).map(([name, ns]) => [name, Math.max(ns, 1)]))
        const moved = withPrices(profile, floored)
        expect(Result.getOrThrow(parseProfile("moved", JSON.stringify(moved)))).toEqual(moved)
        for (const [name, ns] of Object.entries(floored)) expect(moved.primitives[name as "ioctl"].ns).toBe(ns)
      }),
      { seed: 5, numRuns: 60 }
    )
  })

  it("move the spread with the median", () => {
    const name = "thread_handoff_cross_core"
    const at = (ns: number) => new CostTable(withPrices(profile, { [name]: ns }), 1)
    const nominal = at(4253)
    const double = at(8506)
    const free = at(0)
    for (let i = 0; i < 200; i++) {
      const ns = nominal.sample(PRIMITIVE[name])
      expect(Math.abs(double.sample(PRIMITIVE[name]) - 2 * ns)).toBeLessThanOrEqual(2)
      expect(free.sample(PRIMITIVE[name])).toBe(0)
    }
  })

  it("leave a profile alone that has them already", () => {
    expect(withPrices(profile, { ioctl: profile.primitives.ioctl.ns })).toEqual(profile)
  })
})

it("splits a number without loss", () => {
  const weights = fc.array(fc.nat(5_000), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(fc.nat(1_000_000), weights, (total, shares) => {
      const parts = split(total, shares)
      const all = shares.reduce((a, b) => a + b, 0)
      expect(parts.reduce((a, b) => a + b, 0)).toBe(total)
      if (all > 0)
        for (const [i, part] of parts.entries()) expect(Math.abs(part - (total * shares[i]!) / all)).toBeLessThan(1)
    }),
    { seed: 5 }
  )
})

describe("knobs", () => {
  it("cover each primitive once, and each sum", () => {
    const knobs = knobsOf(profile)
    expect(knobs.map(({ name }) => name).sort()).toEqual(
      [...PRIMITIVES, "vmexit_sev_snp + kvm_dispatch + vmrun_sev_snp"].sort()
    )
    for (const { name, low, high, ns } of knobs) {
      expect(low, name).toBeLessThanOrEqual(ns)
      expect(high, name).toBeGreaterThanOrEqual(ns)
    }
  })

  it("move parts of a sum against each other, within their ranges, so that the sum stays", () => {
    const knobs = knobsOf(profile).filter(({ kind }) => kind === "part of a sum")
    expect(knobs.map(({ name, low, high }) => [name, low, high])).toEqual([
      ["vmexit_sev_snp", 500, 1300],
      ["vmrun_sev_snp", 500, 1300],
      ["kvm_dispatch", 365, 1965]
    ])
    for (const { atLow, atHigh } of knobs) {
      for (const prices of [atLow, atHigh]) {
        const moved = withPrices(profile, prices)
        expect(moved.sums[0]!.ns).toBe(2965)
        for (const name of profile.sums[0]!.primitives) {
          const { low, high } = profile.primitives[name]
          expect(moved.primitives[name].ns).toBeGreaterThanOrEqual(low)
          expect(moved.primitives[name].ns).toBeLessThanOrEqual(high)
        }
      }
    }
  })

  it("go only as far as the other parts can follow", () => {
    const sums = [
      { primitives: ["vmexit_sev_snp", "vmrun_sev_snp"], ns: 1_000, basis: "published", source: "x" } as const
    ]
    const narrow = profileOf({ vmexit_sev_snp: [600, 0, 1_000], vmrun_sev_snp: [400, 350, 500] }, sums)
    const part = knobsOf(narrow).find(({ name }) => name === "vmexit_sev_snp")!
    expect(part).toMatchObject({ low: 500, high: 650 })
    expect(part.atLow).toEqual({ vmexit_sev_snp: 500, vmrun_sev_snp: 500 })
    // A sum whose range nobody has published does not move.
    expect(knobsOf(narrow)[0]).toMatchObject({ kind: "sum", low: 1_000, high: 1_000 })
  })

  it("let time pass in a spin loop", () => {
    expect(priceFloor("guest_pause")).toBe(1)
    expect(knobsOf(profileOf({})).find(({ name }) => name === "guest_pause")!.low).toBe(1)
  })
})
