import { PRIMITIVES } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import { breakdown } from "../src/Breakdown.ts"
import { latency, summarize } from "../src/Summary.ts"
import { nearestRank } from "../src/statistics/Quantile.ts"
import { profile, record, run, scenario } from "./fixture.ts"

const json = summarize({ run, profile, scenario, seed: 7, commit: "unknown" })
const result = (strategy: string, operation: string) =>
  json.results.find((one) => one.strategy === strategy && one.operation === operation)!

const SUM = "vmexit_sev_snp + kvm_dispatch + vmrun_sev_snp"

describe("quantiles", () => {
  it("are samples, by nearest rank", () => {
    const hundred = Array.from({ length: 100 }, (_, i) => i + 1)
    expect([50, 90, 99, 100].map((p) => nearestRank(hundred, p))).toEqual([50, 90, 99, 100])
    expect([50, 90, 99].map((p) => nearestRank([5], p))).toEqual([5, 5, 5])
    expect([50, 90, 99].map((p) => nearestRank([1, 2, 3], p))).toEqual([2, 3, 3])
  })

  it("do not depend on the order of the samples, which are sorted as numbers", () => {
    expect(latency([100, 9, 20])).toEqual({ p50: 20, p90: 100, p99: 100, mean: 43, min: 9, max: 100 })
  })

  it("are null without samples", () => {
    const empty = result("vcpu-per-vmpl", "run-vmpl-one-way")
    expect(empty).toMatchObject({ samples: 0, ratioToFastest: null, assumedShare: null, breakdown: [] })
    expect(new Set([...Object.values(empty.ns), ...Object.values(empty.perSwitch)])).toEqual(new Set([null]))
  })
})

describe("breakdown", () => {
  it("adds up to the mean, longest first", () => {
    for (const { ns, breakdown: rows, samples } of json.results) {
      if (samples === 0) continue
      expect(rows.reduce((sum, row) => sum + row.ns, 0)).toBeCloseTo(ns.mean!, 6)
      expect(rows.map((row) => row.ns)).toEqual(rows.map((row) => row.ns).sort((a, b) => b - a))
    }
  })

  it("counts complete sets of a published sum as published, and what is left over as assumed", () => {
    // Two exits and entries but three dispatches: two sets, and one dispatch of its own.
    const rows = result("vcpu-per-vmpl", "run-vmpl-round-trip").breakdown
    expect(rows.find((row) => row.primitive === SUM)).toEqual({
      primitive: SUM,
      ns: 2 * 2965,
      basis: "published",
      source: "sigm-snpx-hypercall"
    })
    expect(rows.find((row) => row.primitive === "kvm_dispatch")).toMatchObject({ ns: 1165, basis: "assumed" })
    expect(rows.some((row) => row.primitive === "vmrun_sev_snp")).toBe(false)
  })

  it("leaves an incomplete set as single primitives", () => {
    const rows = breakdown(record("ap-create", 3, { vmexit_sev_snp: 1, vmrun_sev_snp: 1 }), profile)
    expect(rows.map((row) => [row.primitive, row.basis])).toEqual([
      ["vmexit_sev_snp", "assumed"],
      ["vmrun_sev_snp", "assumed"]
    ])
  })

  it("has a row for the wait for a core", () => {
    const bare = record("ap-create", 2, { ioctl: 1 })
    const nsByPrimitive = bare.nsByPrimitive.map((ns, index) => (index === PRIMITIVES.length ? 500 : ns))
    expect(breakdown({ ...bare, nsByPrimitive }, profile)[0]).toMatchObject({ primitive: "core_wait", ns: 250 })
  })
})

describe("summary", () => {
  it("divides counters by switches, of which a round trip has two", () => {
    expect(result("multi-vmpl-vcpu", "run-vmpl-round-trip").perSwitch).toMatchObject({ vmExits: 1, tlbFlushes: 0.5 })
    expect(result("multi-vmpl-vcpu", "ap-create").perSwitch).toMatchObject({ vmExits: 1, userExits: 0 })
  })

  it("gives the assumed share of the mean", () => {
    const { assumedShare, ns } = result("multi-vmpl-vcpu", "run-vmpl-round-trip")
    expect(ns.mean).toBe(2 * 2965 + 200)
    expect(assumedShare).toBeCloseTo(200 / 6130, 12)
  })

  it("compares medians with the fastest strategy of the same operation", () => {
    expect(result("multi-vmpl-vcpu", "run-vmpl-round-trip").ratioToFastest).toBe(1)
    const slow = result("vcpu-per-vmpl", "run-vmpl-round-trip")
    expect(slow.ratioToFastest).toBe(slow.ns.p50! / 6130)
  })

  it("digests the states of all strategies, and tells when they disagree on what the guest saw", () => {
    const [first, second] = run.runs
    const other = { ...run, runs: [first!, { ...second!, stateDigest: "0".repeat(64), guestDigest: "1".repeat(64) }] }
    const changed = summarize({ run: other, profile, scenario, seed: 7, commit: "unknown" })
    expect(json.stateDigest).toMatch(/^[0-9a-f]{64}$/)
    expect(changed.stateDigest).not.toBe(json.stateDigest)
    expect(json.guestDigest).toBe("ab".repeat(32))
    expect(changed.guestDigest).toBeNull()
  })

  it("holds nothing that differs from run to run but `wall`", () => {
    const slower = { ...run, runs: run.runs.map((one) => ({ ...one, wallMs: one.wallMs * 2 })) }
    const again = summarize({ run: slower, profile, scenario, seed: 7, commit: "unknown" })
    expect(JSON.stringify({ ...again, wall: null })).toBe(JSON.stringify({ ...json, wall: null }))
    expect(again.wall).not.toEqual(json.wall)
  })
})
