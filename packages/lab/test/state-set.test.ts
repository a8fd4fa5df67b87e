import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { StateSet } from "../src/explore/StateSet.ts"

describe("the explorer's states", () => {
  it("are numbered in the order of their finding, each once, as in a Map", () => {
    const key = fc.oneof(
      fc.integer({ min: 0, max: 20 }),
      fc.integer({ min: 0, max: 20 }).map((high) => high * 2 ** 44 + 7),
      fc.maxSafeNat()
    )
    fc.assert(
      fc.property(fc.array(key, { minLength: 1, maxLength: 3000, size: "max" }), (keys) => {
        const states = new StateSet()
        const plain = new Map<number, number>()
        for (const [step, one] of keys.entries()) {
          states.add(one, step - 1, step % 200)
          if (!plain.has(one)) plain.set(one, step)
        }
        expect(states.size).toBe(plain.size)
        let number = 0
        for (const [one, step] of plain) {
          expect([states.key(number), states.from(number), states.by(number)]).toEqual([one, step - 1, step % 200])
          number++
        }
      }),
      { numRuns: 30, seed: 20261121 }
    )
  })
})
