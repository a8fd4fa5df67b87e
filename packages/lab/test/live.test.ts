import { readFileSync } from "node:fs"
import { CHOREOGRAPHIES, measure, measuredProfile, primitivesOf, Session } from "@vmpl-lab/kvm-live"
import { type Cost, PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { errorsByStrategy } from "../src/live/LiveCompare.ts"
import { compareText, measureText, validateText } from "../src/live/LiveText.ts"
import { onlyMeasured, predictApCreations, predictRoundTrip } from "../src/live/Prediction.ts"
import { parseProfile } from "../src/ProfileFile.ts"
import { profile as base } from "./fixture.ts"

/** The session that packages/kvm-live records for its tests, and how much of everything it holds. */
const RECORDED = new URL("../../kvm-live/test/recorded/session.json", import.meta.url)
const AMOUNT = { rounds: 2, share: 0.005, onProgress: () => {} }

const cost = (ns: number): Cost => ({ ns, low: ns, high: ns, basis: "measured", source: "test" })

/** A profile in which only these cost something. */
const only = (prices: { readonly [name: string]: number }): Profile => ({
  ...base,
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => [name, cost(prices[name] ?? (name === "guest_pause" ? 30 : 0))])
  ) as Profile["primitives"],
  sums: []
})

const choreography = (id: string) => CHOREOGRAPHIES.find((one) => one.id === id)!

describe("predictions of live cases are the model's steps at the measured prices", () => {
  const exit = { vmexit_sev_snp: 100, kvm_dispatch: 200, vmrun_sev_snp: 300 }
  const user = { userspace_exit: 1_000, userspace_entry: 2_000 }

  it.each([
    ["multi-vmpl-vcpu lower bound", 2 * 600],
    ["multi-vmpl-vcpu upper bound", 2 * 3_600],
    ["vcpu-per-vmpl vmm-one-thread", 2 * 3_600],
    ["vm-per-vmpl vmm-one-thread", 2 * 3_600],
    ["vcpu-per-vmpl vmm-threads one core", 2 * (3_600 + 10_000)],
    ["vcpu-per-vmpl vmm-threads two cores", 2 * (3_600 + 50_000)],
    ["vm-per-vmpl vmm-threads two cores", 2 * (3_600 + 50_000)]
  ])("%s", (id, ns) => {
    const prices = only({ ...exit, ...user, thread_handoff_same_core: 10_000, thread_handoff_cross_core: 50_000 })
    expect(predictRoundTrip(choreography(id), prices)).toBe(ns)
  })

  it("of AP creations: one of each guest vCPU, the first with the VM object", () => {
    const prices = only({ create_vm: 1_000_000, create_vcpu: 10_000, create_vcpu_first: 70_000, thread_spawn: 500 })
    const strategies = { variant: "vmm-threads", calls: 0, callsOfFirst: 0 } as const
    const one = predictApCreations({ strategy: "vcpu-per-vmpl", ...strategies }, prices, 4)
    expect(one).toEqual([10_500, 10_500, 10_500, 10_500])
    const own = predictApCreations({ strategy: "vm-per-vmpl", ...strategies }, prices, 4)
    expect(own).toEqual([1_070_500, 10_500, 10_500, 10_500])
  })
})

describe("a profile out of a recorded session", async () => {
  const session = Session.replay("/dev/kvm", JSON.parse(readFileSync(RECORDED, "utf8")))
  const result = await measure(session, AMOUNT)
  const primitives = primitivesOf(result.measured)
  const profile = measuredProfile({ name: "recorded", machine: "a recorded session", base, measured: primitives })

  it("is a profile that compare takes, with measured and inherited prices told apart", () => {
    const parsed = Result.getOrThrow(parseProfile("recorded.json", JSON.stringify(profile)))
    expect(parsed.primitives.ioctl).toMatchObject({ basis: "measured" })
    expect(parsed.primitives.ioctl.source).toMatch(/^live measure: null-ioctl; \d+ samples/)
    expect(parsed.primitives.rmpadjust_4k).toMatchObject({ ns: base.primitives.rmpadjust_4k.ns, basis: "published" })
    const sums = parsed.sums.filter(({ basis }) => basis === "measured")
    expect(sums.length).toBeGreaterThanOrEqual(2)
    for (const { primitives: parts, ns } of sums) {
      expect(parts.reduce((sum, name) => sum + parsed.primitives[name].ns, 0)).toBe(ns)
    }
  })

  it("without what was not measured, nothing assumed is left", () => {
    const measured = onlyMeasured(profile)
    const inSum = new Set(measured.sums.flatMap(({ primitives: parts }) => parts))
    for (const name of PRIMITIVES) {
      const { ns, basis } = measured.primitives[name]
      if (basis !== "measured" && !inSum.has(name))
        expect([name, ns]).toEqual([name, name === "guest_pause" ? base.primitives[name].ns : 0])
    }
  })

  it("is told in words: every case, its noise, the backend in each table", () => {
    const probe = {
      ...{
        path: "/dev/kvm",
        apiVersion: 12,
        backend: "kvm_pvm",
        cpu: "some CPU",
        cpus: 2,
        kernel: "6.1",
        nested: true
      },
      ...{ haltPollNs: null, capabilities: {} as never, notMeasurable: [] }
    }
    const context = { commit: "abc", probe, rounds: 2, quick: true }
    const text = measureText(result, primitives, context)
    expect(text).toContain("software KVM backend, ratios only")
    expect(text).toContain("A quick run: good for nothing")
    for (const { id } of result.measured) expect(text).toContain(id)
    const row = { strategy: "vm-per-vmpl", variant: "vmm-threads", placement: "one core", samples: 9 }
    const figures = {
      live: 1_000,
      p10: 900,
      p90: 9_000,
      p99: 9_900,
      predicted: 1_200,
      predictedBy: "x",
      errorPercent: 20
    }
    const comparison = { roundTrips: [{ ...row, ...figures, noisy: "wide" }], apCreate: [], notMeasured: [] }
    expect(compareText(comparison, profile, context)).toMatch(
      /software KVM backend[\s\S]*vm-per-vmpl \*[\s\S]*\+20\.0 %/
    )
    expect(validateText(errorsByStrategy(comparison), comparison, context)).toMatch(/vm-per-vmpl │ +1 │ +20\.0 %/)
    expect(errorsByStrategy(comparison)).toEqual([{ strategy: "vm-per-vmpl", cases: 1, medianErrorPercent: 20 }])
  })
})
