import { PRIMITIVES } from "@vmpl-lab/sim"
import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { deriveProfile, scalingOf } from "../src/derive/DeriveProfile.ts"
import { parseProfile } from "../src/ProfileFile.ts"
import { profile } from "./fixture.ts"

const by = (clockRatio: number, mitigations = 1, from = profile) =>
  deriveProfile(from, { name: "other", machine: "another", clockRatio, mitigations })

describe("a profile of another machine", () => {
  it("scales code by the clock, entries and exits by the mitigations too, and the AMD-SP not at all", () => {
    const { primitives, clockMhz, sums } = by(2, 0.5)
    expect(clockMhz).toBe(4_800)
    expect(primitives.rmpadjust_4k).toMatchObject({ ns: 430, low: 50, high: 438, basis: "assumed" })
    expect(primitives.vmexit_sev_snp).toMatchObject({ ns: 225, low: 125, high: 325 })
    expect(primitives.launch_update_4k).toEqual(profile.primitives.launch_update_4k)
    expect(primitives.thread_handoff_cross_core.quantiles).toEqual([
      [0, 1250],
      [100, 1600],
      [500, 2127],
      [900, 3000],
      [990, 3750],
      [1000, 4000]
    ])
    // 225 + 583 + 225; the range in proportion.
    expect(sums[0]).toMatchObject({ ns: 1_033, low: 1_025, high: 1_060, basis: "assumed" })
  })

  it("keeps each source and says how it was derived", () => {
    const { vc_exception } = by(1.25, 0.8).primitives
    expect(vc_exception.source).toBe(profile.primitives.vc_exception.source)
    expect(vc_exception.note).toMatch(
      /^Derived from epyc-9654p \(published, 962 ns\) by clock ratio 1\.25, mitigation factor 0\.8\. /
    )
    expect(by(1.25).primitives.ioctl.note).toMatch(/mitigation factor 1\./)
    expect(by(1.25).primitives.create_vm.note).not.toMatch(/mitigation/)
  })

  it("is the same profile by factors of 1", () => {
    expect(by(1)).toEqual({ ...profile, name: "other", machine: "another" })
    const { primitives } = by(1, 2)
    for (const name of PRIMITIVES) {
      const same = scalingOf(name) !== "clock and mitigations"
      expect(primitives[name].basis, name).toBe(same ? profile.primitives[name].basis : "assumed")
    }
  })

  it("is a profile, and leads back to where it came from", () => {
    const ratio = fc.integer({ min: 20, max: 400 }).map((percent) => percent / 100)
    fc.assert(
      fc.property(ratio, ratio, (clockRatio, mitigations) => {
        const there = by(clockRatio, mitigations)
        expect(Result.getOrThrow(parseProfile("derived", JSON.stringify(there)))).toEqual(there)
        const back = by(1 / clockRatio, 1 / mitigations, there)
        for (const name of PRIMITIVES) {
          // Half a nanosecond lost there is as many as the price is scaled by on the way back.
          const lost = Math.max(clockRatio, clockRatio / mitigations, 1)
          const [now, before] = [back.primitives[name].ns, profile.primitives[name].ns]
          expect(Math.abs(now - before), name).toBeLessThanOrEqual(lost / 2 + 1)
        }
      }),
      { seed: 9, numRuns: 60 }
    )
  })

  it("keeps a sum whose parts are all left alone", () => {
    const sums = [
      {
        primitives: ["launch_update_fixed", "launch_update_4k"],
        ns: 1_643_000,
        basis: "published",
        source: "x"
      } as const
    ]
    expect(
      deriveProfile({ ...profile, sums }, { name: "o", machine: "o", clockRatio: 2, mitigations: 1 }).sums
    ).toEqual(sums)
  })
})
