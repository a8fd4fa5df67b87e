import { describe, expect, it } from "vitest"
import { affinityOf, PLACEMENTS } from "../src/index.ts"

const PINS = [
  { vcpu: 1, core: 9 },
  { vcpu: 1, vmpl: 2, core: 7 }
]

describe("the core of a vCPU thread", () => {
  it.each([
    ["spread", [5, 5, 5]],
    ["same-core", [3, 3, 3]],
    ["two-cores", [6, 7, 6]],
    ["unpinned", [-1, -1, -1]]
  ] as const)("under %s", (placement, cores) => {
    expect([0, 2, -1].map((vmpl) => affinityOf(placement, PINS, 3, vmpl, 5))).toEqual(cores)
  })

  it("is that of its own pin, else of its guest vCPU's, whatever the placement", () => {
    for (const placement of PLACEMENTS) {
      expect([0, 2, -1].map((vmpl) => affinityOf(placement, PINS, 1, vmpl, 5))).toEqual([9, 7, 9])
    }
  })
})
