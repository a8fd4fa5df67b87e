import { describe, expect, it } from "vitest"
import { Machine } from "../src/Machine.ts"
import { medianTimeline } from "../src/observe/Timeline.ts"
import { CASES, finish, inputOf, plainRun } from "./observed.ts"

describe.each(CASES)("one median call under %s", (_, strategy, scenario) => {
  const input = inputOf(strategy, scenario)
  const { p50 } = plainRun(input)
  const timeline = finish(medianTimeline(input, p50))!

  it("takes the median, step by step: the steps on the path add up to it", () => {
    expect(timeline).toMatchObject({ strategy: strategy.key, variant: strategy.variant, ns: p50 })
    expect(timeline.steps.reduce((sum, { ns, onPath }) => (onPath ? sum + ns : sum), 0)).toBe(p50)
    expect(timeline.elapsedNs).toBeGreaterThanOrEqual(p50)
  })

  it("begins with the exit that asks and ends with the first instruction back at the caller", () => {
    const path = timeline.steps.filter(({ onPath }) => onPath)
    expect(path[0]).toMatchObject({ atNs: 0, label: "vmexit_sev_snp", lane: "hardware" })
    expect(path.at(-1)).toMatchObject({ label: "first instruction at VMPL2", lane: "guest", vmpl: 2 })
    expect(path.at(-1)!.atNs).toBe(timeline.elapsedNs)
    expect(path.filter(({ label }) => label.startsWith("first instruction")).map(({ vmpl }) => vmpl)).toEqual([0, 2])
  })

  it("leaves no hole and no overlap on the path but for the service between the two switches", () => {
    const path = timeline.steps.filter(({ onPath }) => onPath)
    const holes = path.slice(1).filter((step, i) => step.atNs !== path[i]!.atNs + path[i]!.ns)
    for (const { atNs, label } of holes) {
      expect(label).toBe("vmexit_sev_snp")
      expect(atNs).toBeGreaterThan(0)
    }
    expect(holes.length).toBeLessThanOrEqual(1)
  })

  it("has an arrow from thread to thread wherever the path changes its thread, and no other place", () => {
    const path = timeline.steps.filter(({ onPath, ns }) => onPath && ns > 0)
    const changes = path.slice(1).flatMap((step, i) => {
      const before = path[i]!
      return before.thread === step.thread ? [] : [`${before.thread} ${step.thread}`]
    })
    expect(timeline.handOffs.map(({ fromThread, toThread }) => `${fromThread} ${toThread}`)).toEqual(
      expect.arrayContaining(changes)
    )
    const threads = new Set(timeline.steps.map(({ thread }) => thread))
    for (const { fromThread, toThread, atNs } of timeline.handOffs) {
      expect(threads).toContain(fromThread)
      expect(threads).toContain(toThread)
      expect(atNs).toBeGreaterThanOrEqual(0)
      expect(atNs).toBeLessThanOrEqual(timeline.elapsedNs)
    }
  })

  it("changes nothing: an observed machine ends in the same state", () => {
    const options = { ...input, boot: 0, calls: true }
    const states = [new Machine(options), new Machine({ ...options, trace: () => {} })].map((machine) => {
      while (machine.stepMany(50_000)) {}
      return machine.stateDigest()
    })
    expect(states[0]).toBe(states[1])
  })
})

it("has no timeline of a latency that no call takes, and none without calls", () => {
  const [, strategy, scenario] = CASES[0]!
  expect(finish(medianTimeline(inputOf(strategy, scenario), 1))).toBeNull()
})
