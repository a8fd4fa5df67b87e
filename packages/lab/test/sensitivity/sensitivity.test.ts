import { describe, expect, it } from "vitest"
import { sensitivity } from "../../src/sensitivity/Sensitivity.ts"
import { bar, sensitivityText } from "../../src/sensitivity/SensitivityText.ts"
import { type Counts, ended, linear, profileOf } from "./linear.ts"

const sums = [
  {
    primitives: ["vmexit_sev_snp", "vmrun_sev_snp"],
    ns: 1_000,
    low: 900,
    high: 1_200,
    basis: "published",
    source: "x"
  } as const
]

/** In the kernel 2,040 ns; by the VMM 2,250 ns, of which the hand-off may be as little as 10 ns. */
const profile = profileOf(
  {
    vmexit_sev_snp: [600, 500, 700],
    vmrun_sev_snp: [400, 300, 500],
    vmcb_swap_fields: [20, 10, 120],
    thread_handoff_same_core: [50, 10, 80],
    userspace_exit: [75, 75, 75],
    create_vm: [9_000, 1_000, 90_000]
  },
  sums
)
const both: Counts = { vmexit_sev_snp: 2, vmrun_sev_snp: 2 }
const counts = {
  kernel: { ...both, vmcb_swap_fields: 2 },
  vmm: { ...both, thread_handoff_same_core: 2, userspace_exit: 2 / 3 }
}
const input = { profile, strategies: ["kernel", "vmm"], draws: 1 }

describe("tornado of a profile by hand", () => {
  const evaluate = linear(counts)
  const result = ended(sensitivity({ ...input, evaluate }))
  const of = (name: string) => result.knobs.find(({ knob }) => knob === name)!

  it("has each median with each price at both ends", () => {
    expect(result.baseline).toEqual([
      { strategy: "kernel", ns: 2_040, samples: 10, noiseNs: 0 },
      { strategy: "vmm", ns: 2_150, samples: 10, noiseNs: 0 }
    ])
    expect(of("vmcb_swap_fields").effects.map(({ low, high }) => [low, high])).toEqual([
      [2_020, 2_240],
      [2_150, 2_150]
    ])
    expect(of("thread_handoff_same_core").effects.map(({ low, high }) => [low, high])).toEqual([
      [2_040, 2_040],
      [2_070, 2_210]
    ])
    expect(of("vmexit_sev_snp + vmrun_sev_snp").effects.map(({ low, high }) => [low, high])).toEqual([
      [1_840, 2_440],
      [1_950, 2_550]
    ])
  })

  it("is sorted by swing", () => {
    expect(result.knobs.slice(0, 4).map(({ knob, swingNs }) => [knob, swingNs])).toEqual([
      ["vmexit_sev_snp + vmrun_sev_snp", 600],
      ["vmcb_swap_fields", 220],
      ["thread_handoff_same_core", 140],
      ["vmexit_sev_snp", 0]
    ])
  })

  it("lists what has no effect: parts of a sum, what has no range, what no path takes", () => {
    expect(result.withoutEffect).toEqual(
      expect.arrayContaining(["vmexit_sev_snp", "vmrun_sev_snp", "userspace_exit", "create_vm"])
    )
    expect([of("vmexit_sev_snp").taken, of("create_vm").taken]).toEqual([true, false])
    expect(result.withoutEffect).not.toContain("vmcb_swap_fields")
  })

  it("says when one overtakes the other", () => {
    expect(result.reversals).toEqual([
      {
        knob: "vmcb_swap_fields",
        end: "high",
        ns: 120,
        overtakes: "vmm",
        overtaken: "kernel",
        overtakesNs: 2_150,
        overtakenNs: 2_240
      }
    ])
  })

  it("has the pair's ratio and difference at both ends", () => {
    const [pair] = result.pairs
    expect(pair).toMatchObject({ a: "kernel", b: "vmm", ratio: 2_040 / 2_150, differenceNs: -110 })
    expect(pair!.knobs.find(({ knob }) => knob === "vmcb_swap_fields")).toEqual({
      knob: "vmcb_swap_fields",
      ratioLow: 2_020 / 2_150,
      ratioHigh: 2_240 / 2_150,
      differenceLow: -130,
      differenceHigh: 90,
      detected: true
    })
  })

  it("runs nothing for an end that is the nominal price", () => {
    const [primitives, nominal] = [[...new Set(result.knobs)], 2]
    const ends = primitives.reduce((sum, { ns, low, high }) => sum + (low < ns ? 1 : 0) + (high > ns ? 1 : 0), 0)
    expect(evaluate.runs).toBe(nominal + 2 * ends)
  })

  it.each([60, 80, 98, 140])("fits %d columns", (width) => {
    const text = sensitivityText(result, "run-vmpl-round-trip", width)
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(Math.max(width, 76))
    expect(text.replace(/\s+/g, " ")).toContain("With vmcb_swap_fields at its high, 120 ns, vmm overtakes kernel")
    expect(text).toMatch(/no path takes it: .*create_vm/s)
  })

  it("looks like this", () => {
    expect(sensitivityText(result, "run-vmpl-round-trip", 98)).toMatchSnapshot()
  })
})

describe("chance", () => {
  // A price off the path shuffles the draws: by up to 30 ns, upwards or downwards.
  const mixed = (a: number, b: number): number => {
    const once = Math.imul(a + Math.imul(b, 0x9e37_79b1), 0x85eb_ca6b)
    return ((once ^ (once >>> 13)) >>> 0) % 31
  }
  const shuffled = linear(counts, (name, { primitives }, draw) =>
    name === "kernel" ? 0 : mixed(primitives.create_vm.ns + primitives.vmcb_swap_fields.ns, draw)
  )

  it("is no effect, and no reason for one to overtake the other", () => {
    const result = ended(sensitivity({ ...input, draws: 9, evaluate: shuffled }))
    const [, vmm] = result.baseline
    expect(vmm!.noiseNs).toBeGreaterThan(0)
    expect(result.withoutEffect).toContain("create_vm")
    const effect = result.knobs.find(({ knob }) => knob === "create_vm")!.effects[1]!
    expect(effect.low === vmm!.ns && effect.high === vmm!.ns).toBe(false)
    expect(result.reversals.map(({ knob }) => knob)).toEqual(["vmcb_swap_fields"])
  })

  it("does not hide what is larger than it", () => {
    const result = ended(sensitivity({ ...input, draws: 9, evaluate: shuffled }))
    const handOff = result.knobs.find(({ knob }) => knob === "thread_handoff_same_core")!
    expect(handOff.effects[1]).toMatchObject({ lowDetected: true, highDetected: true })
    expect(handOff.swingNs).toBeGreaterThan(100)
  })

  it("counts where there is one draw to see", () => {
    const result = ended(sensitivity({ ...input, draws: 1, evaluate: shuffled }))
    expect(result.withoutEffect).not.toContain("create_vm")
  })
})

describe("bar", () => {
  it.each([
    [0, 10, 0, 10, 5, "-----|----"],
    [0, 10, 5, 10, 5, "     |----"],
    [0, 10, 10, 5, 5, "     |----"],
    [0, 10, 5, 5, 5, "     |    "],
    [5, 5, 5, 5, 5, "|         "]
  ])("from %d to %d: %d to %d around %d", (from, to, low, high, base, text) => {
    expect(bar(10, from, to, low, high, base)).toBe(text)
  })
})
