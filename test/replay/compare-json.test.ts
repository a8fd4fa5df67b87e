import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import type { ComparisonJson, ResultEntry } from "@vmpl-lab/lab"
import { describe, expect, it } from "vitest"

const launcher = fileURLToPath(new URL("../../packages/lab/bin/vmpl-lab.js", import.meta.url))
const run = (...args: ReadonlyArray<string>): string =>
  execFileSync(process.execPath, [launcher, "compare", "--json", ...args], { encoding: "utf8" })
const parse = (text: string): ComparisonJson => JSON.parse(text) as ComparisonJson
const withoutWall = ({ wall: _wall, ...rest }: ComparisonJson): string => JSON.stringify(rest)

/** Debian's package `ovmf`. */
const OVMF = "/usr/share/ovmf/OVMF.fd"
const SMALL = ["--calls", "50", "--boots", "2"]

describe("compare --json", () => {
  const first = parse(run(...SMALL))

  it("gives the same bytes for the same seed, but for the host's wall time", () => {
    expect(withoutWall(parse(run(...SMALL)))).toBe(withoutWall(first))
  })

  it("gives other latencies and the same guest for another seed", () => {
    const other = parse(run(...SMALL, "--seed", "2"))
    expect(other.stateDigest).not.toBe(first.stateDigest)
    expect(other.launchDigest).toBe(first.launchDigest)
    expect(other.results[3]).not.toEqual(first.results[3])
  })

  it("has one result per strategy and operation, with the keys that other programs rely on", () => {
    expect(first).toMatchObject({ seed: 1, profile: "epyc-9654p", scenario: "default" })
    expect(first.commit).toMatch(/^([0-9a-f]{40}|unknown)$/)
    expect(first.launchDigest).toMatch(/^[0-9a-f]{96}$/)
    expect(first.stateDigest).toMatch(/^[0-9a-f]{64}$/)
    expect(
      first.results.map(({ strategy: key, variant, operation }) => `${strategyName({ key, variant })} ${operation}`)
    ).toEqual(
      STRATEGIES.map(strategyName).flatMap((strategy) =>
        ["ap-create", "run-vmpl-round-trip", "run-vmpl-one-way"].map((operation) => `${strategy} ${operation}`)
      )
    )
    for (const result of first.results) {
      expect(Object.keys(result.ns)).toEqual(["p50", "p90", "p99", "mean", "min", "max"])
      expect(Object.keys(result.perSwitch)).toEqual([
        ...["vmExits", "userExits", "ioctls", "threadHandOffs", "kicks", "tlbFlushes"]
      ])
      for (const row of result.breakdown) expect(Object.keys(row)).toEqual(["primitive", "ns", "basis", "source"])
    }
  })

  it("makes every call a round trip of two switches, and every breakdown adds up to the mean", () => {
    const samples = (result: ResultEntry): number => result.samples
    expect(first.results.filter(({ operation }) => operation === "run-vmpl-round-trip").map(samples)).toEqual([
      ...Array(9).fill(200)
    ])
    expect(first.results.filter(({ operation }) => operation === "run-vmpl-one-way").map(samples)).toEqual([
      ...Array(9).fill(400)
    ])
    for (const { ns, breakdown } of first.results) {
      expect(breakdown.reduce((sum, row) => sum + row.ns, 0)).toBeCloseTo(ns.mean!, 6)
    }
  })

  it("says of each assumed share what its breakdown says", () => {
    for (const { assumedShare, breakdown, ns } of first.results) {
      const assumed = breakdown.filter(({ basis }) => basis === "assumed").reduce((sum, row) => sum + row.ns, 0)
      expect(assumedShare).toBeCloseTo(assumed / ns.mean!, 9)
    }
  })

  it("shows the guest the same under every strategy", () => {
    expect(new Set(first.strategies.map(({ guestDigest }) => guestDigest)).size).toBe(1)
    expect(first.guestDigest).toBe(first.strategies[0]!.guestDigest)
  })
})

describe.skipIf(!existsSync(OVMF))("compare --firmware with the image of Debian's package ovmf", () => {
  it("launches all of it and prints a digest that the image's bytes decide", () => {
    const json = parse(run("--firmware", OVMF, "--calls", "2", "--boots", "1"))
    const { length } = readFileSync(OVMF)
    expect(json.firmware).toMatchObject({ name: "OVMF.fd", bytes: length })
    expect(json.launchDigest).not.toBe(parse(run("--calls", "2", "--boots", "1")).launchDigest)
    // One millisecond for each of the image's pages at the least.
    expect(json.strategies[0]!.launchNs).toBeGreaterThan((length / 4096) * 1_000_000)
  })
})
