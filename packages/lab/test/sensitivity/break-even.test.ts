import { strategyName } from "@vmpl-lab/hv-strategies"
import type { PrimitiveName } from "@vmpl-lab/sim"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { builtInFirmware } from "../../src/Compare.ts"
import { DEFAULT_SCENARIO } from "../../src/DefaultScenario.ts"
import { Scenario } from "../../src/Scenario.ts"
import { chooseStrategies, STRATEGY_NAMES } from "../../src/StrategyNames.ts"
import { svsmLaunch } from "../../src/SvsmLaunch.ts"
import { breakEven } from "../../src/sensitivity/BreakEven.ts"
import { breakEvens, knobsBetween } from "../../src/sensitivity/BreakEvenPlan.ts"
import { breakEvenText } from "../../src/sensitivity/BreakEvenText.ts"
import { remembered, simulated } from "../../src/sensitivity/Evaluate.ts"
import { profile as real } from "../fixture.ts"
import { ended, linear, profileOf } from "./linear.ts"

const profile = profileOf({
  vmcb_swap_fields: [100, 50, 200],
  userspace_exit: [300, 200, 400],
  userspace_entry: [100, 50, 200],
  thread_handoff_same_core: [600, 300, 900],
  ioctl: [50, 20, 80]
})
const evaluate = linear({
  kernel: { vmcb_swap_fields: 8 },
  vmm: { userspace_exit: 2, userspace_entry: 2, thread_handoff_same_core: 2 },
  slow: { userspace_exit: 2, thread_handoff_same_core: 9 },
  idle: { ioctl: 1 }
})

const ask = (a: string, b: string, primitives: ReadonlyArray<PrimitiveName>, bound = 2_000) =>
  ended(breakEven({ profile, a, b, primitives, bound, draws: 3, evaluate }))

describe("break-even of strategies that are counts times prices", () => {
  it("finds the price to the nanosecond", () => {
    // 600 + 200 + 2 x is 800 at x = 0; with the exits free, 200 + 1200 of 800.
    expect(ask("vmm", "idle", ["thread_handoff_same_core"])).toMatchObject({
      answer: "never",
      best: { ns: 0, gapNs: 750 }
    })
    const found = ask("kernel", "vmm", ["vmcb_swap_fields"])
    expect(found).toMatchObject({ answer: "at", nowNs: 100, gapNowNs: -1_200, monotone: true, noiseNs: 0 })
    expect(found.crossings).toEqual([{ ns: 250, gapNs: 0, notSlower: "below" }])
  })

  it("knows which side of the price is the good one", () => {
    const [crossing] = ask("vmm", "slow", ["thread_handoff_same_core"]).crossings
    // 7 x is what slow has more, 200 what vmm has more: from 29 ns on.
    expect(crossing).toEqual({ ns: 29, gapNs: -3, notSlower: "above" })
  })

  it("moves several together, each with its share", () => {
    // 2 (x / 4 * 3 + x / 4) + 1200 against 8 * 100: never; with the hand-off at 200 ns it is at 200 ns in all.
    expect(ask("vmm", "kernel", ["userspace_exit", "userspace_entry"]).answer).toBe("never")
    const all = ask("vmm", "kernel", ["userspace_exit", "userspace_entry", "thread_handoff_same_core"])
    expect(all).toMatchObject({ nowNs: 1_000, crossings: [{ ns: 400, notSlower: "below" }] })
  })

  it("says always, and never with what remains", () => {
    expect(ask("kernel", "vmm", ["ioctl"])).toMatchObject({ answer: "always", crossings: [] })
    expect(ask("vmm", "kernel", ["userspace_exit"])).toMatchObject({ answer: "never", best: { ns: 0, gapNs: 600 } })
  })

  it("agrees with the solution of the equation", () => {
    const count = fc.integer({ min: 1, max: 20 })
    const price = fc.integer({ min: 0, max: 5_000 })
    fc.assert(
      fc.property(count, count, price, price, price, (m, n, now, restA, restB) => {
        const prices = profileOf({ ioctl: [now, now, now], zero_page_4k: [1, 1, 1] })
        const run = linear({ a: { ioctl: m, zero_page_4k: restA }, b: { ioctl: n, zero_page_4k: restB } })
        const one = ended(
          breakEven({ profile: prices, a: "a", b: "b", primitives: ["ioctl"], bound: 6_000, draws: 1, evaluate: run })
        )
        const solution = (restB - restA) / (m - n)
        if (m === n) expect(one.answer).toBe(restA <= restB ? "always" : "never")
        else if (m > n && solution >= 0 && solution < 6_000) expect(one.crossings[0]?.ns).toBe(Math.floor(solution))
        else if (m < n && solution > 0 && solution <= 6_000) expect(one.crossings[0]?.ns).toBe(Math.ceil(solution))
        else expect(one.crossings).toEqual([])
        expect(one.monotone).toBe(true)
      }),
      { seed: 3, numRuns: 300 }
    )
  })

  it("sees a gap that turns round", () => {
    const bent = linear({ a: {}, b: {} }, (name, { primitives: { ioctl } }) =>
      name === "a" ? Math.abs(ioctl.ns - 1_000) : 300
    )
    const primitives = ["ioctl"] as const
    const found = ended(breakEven({ profile, a: "a", b: "b", primitives, bound: 2_000, draws: 1, evaluate: bent }))
    expect(found).toMatchObject({ answer: "several", monotone: false })
    expect(found.crossings.map(({ ns, notSlower }) => [ns, notSlower])).toEqual([
      [700, "above"],
      [1_300, "below"]
    ])
  })

  it("takes the median over the draws where chance has a part", () => {
    const chancy = linear({ a: { ioctl: 2 }, b: {} }, (name, _, draw) => (name === "a" ? [0, 40, -40][draw]! : 1_000))
    const primitives = ["ioctl"] as const
    const found = ended(breakEven({ profile, a: "a", b: "b", primitives, bound: 2_000, draws: 3, evaluate: chancy }))
    expect(found).toMatchObject({ noiseNs: 80, crossings: [{ ns: 500, gapNs: 0 }] })
  })

  it("reads well", () => {
    const results = [
      ask("vmm", "kernel", ["userspace_exit", "userspace_entry", "thread_handoff_same_core"]),
      ask("vmm", "kernel", ["userspace_exit"]),
      ask("kernel", "vmm", ["ioctl"]),
      ask("kernel", "vmm", ["vmcb_swap_fields"])
    ]
    expect(breakEvenText(results, "run-vmpl-round-trip", 98)).toMatchSnapshot()
  })
})

describe("questions that are asked without being told", () => {
  it("are all strategies against the fastest, by what their paths have more or less of", () => {
    const strategies = ["kernel", "vmm", "slow"]
    const asked = ended(
      breakEvens({ profile, a: [], b: [], knobs: [], bound: undefined, strategies, draws: 1, evaluate })
    )
    expect(asked.map(({ a, b, primitives }) => `${a} ${b} ${primitives.join("+")}`)).toEqual([
      "vmm kernel vmcb_swap_fields",
      "vmm kernel userspace_exit",
      "vmm kernel userspace_entry",
      "vmm kernel thread_handoff_same_core",
      "vmm kernel userspace_exit+userspace_entry",
      "vmm kernel userspace_exit+userspace_entry+thread_handoff_same_core",
      "slow kernel vmcb_swap_fields",
      "slow kernel userspace_exit",
      "slow kernel thread_handoff_same_core",
      "slow kernel userspace_exit+thread_handoff_same_core"
    ])
    expect(asked[1]).toMatchObject({ boundNs: 400 })
  })

  it("are none where nothing differs", () => {
    const outcome = { ns: 1, samples: 1, taken: new Map([["ioctl", 2]] as const) }
    expect(knobsBetween(outcome, outcome)).toEqual([])
  })
})

describe("the simulation on one vCPU without spread is counts times prices", () => {
  const svsm = svsmLaunch(builtInFirmware(), 1)
  const host = { ...DEFAULT_SCENARIO.host, placement: "same-core" } as const
  const scenario = new Scenario({ ...DEFAULT_SCENARIO, host, vcpus: 1, calls: 5, boots: 1 })
  const run = remembered(simulated({ scenario, seed: 1, svsm, operation: "run-vmpl-round-trip" }))

  it.each(STRATEGY_NAMES)("%s", (name) => {
    const { ns, taken, samples } = ended(run(name, real, 0))
    expect(samples).toBe(5)
    expect(ns).toBe([...taken].reduce((sum, [primitive, n]) => sum + n * real.primitives[primitive].ns, 0))
  })

  const away = ["userspace_exit", "userspace_entry", "vmm_dispatch", "thread_handoff_same_core"] as const

  it.each([
    ["never", away],
    ["at", [...away, "ioctl", "tlb_flush_asid"]]
  ] as const)("so break-even is what arithmetic says: %s, with %j", (answer, primitives) => {
    const [a, b] = ["vcpu-per-vmpl/vmm-threads", "multi-vmpl-vcpu"]
    const slow = ended(run(a, real, 0))
    const fast = ended(run(b, real, 0))
    const found = ended(breakEven({ profile: real, a, b, primitives, bound: 4_000, draws: 3, evaluate: run }))
    const now = primitives.reduce((sum, name) => sum + real.primitives[name].ns, 0)
    expect([found.nowNs, found.gapNowNs, found.noiseNs]).toEqual([now, slow.ns - fast.ns, 0])
    const movable = primitives.reduce((sum, name) => {
      const more = (slow.taken.get(name) ?? 0) - (fast.taken.get(name) ?? 0)
      return sum + more * real.primitives[name].ns
    }, 0)
    const rest = slow.ns - fast.ns - movable
    // With the moved steps free, what is left decides whether there is a price at all.
    expect(found.answer).toBe(answer)
    if (rest > 0) expect(found.best).toEqual({ ns: 0, gapNs: rest })
    else {
      const solution = (-rest * now) / movable
      // Each of the prices is a whole number.
      expect(Math.abs(found.crossings[0]!.ns - solution)).toBeLessThan(primitives.length)
    }
  })
})

describe("names of strategies", () => {
  const namesOf = (asked: ReadonlyArray<string>) => {
    const chosen = chooseStrategies(asked)
    return typeof chosen === "string" ? chosen : chosen.map(strategyName)
  }

  it.each([
    [[], STRATEGY_NAMES],
    [["multi-vmpl-vcpu"], ["multi-vmpl-vcpu"]],
    [["vcpu-per-vmpl/vmm-threads"], ["vcpu-per-vmpl/vmm-threads"]],
    [
      ["planes/kernel,multi-vmpl-vcpu", "planes"],
      ["multi-vmpl-vcpu", "planes/user-space", "planes/kernel"]
    ],
    [["multi-vmpl-vcpu", "vcpu-per-vmpl/best"], "vcpu-per-vmpl/best"],
    [["vcpu"], "vcpu"],
    [[""], ""]
  ])("%j", (asked, names) => {
    expect(namesOf(asked)).toEqual(names)
  })
})
