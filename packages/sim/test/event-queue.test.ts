import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { EventQueue } from "../src/index.ts"

interface Pending {
  readonly time: number
  readonly payload: number
}

const drain = (queue: EventQueue): ReadonlyArray<number> => {
  const payloads: Array<number> = []
  while (queue.size > 0) payloads.push(queue.pop())
  return payloads
}

describe("the event queue", () => {
  it("agrees with a stably sorted array, whatever is pushed and popped when", () => {
    // Few distinct times, so that equal ones are the rule; enough events to outgrow the first arrays.
    const push = fc.record({ time: fc.oneof(fc.integer({ min: 0, max: 8 }), fc.maxSafeNat()), payload: fc.nat(1000) })
    const steps = fc.array(fc.oneof({ weight: 3, arbitrary: push }, { weight: 2, arbitrary: fc.constant(null) }), {
      maxLength: 600,
      size: "max"
    })
    let grown = 0
    fc.assert(
      fc.property(steps, (list) => {
        const queue = new EventQueue()
        const model: Array<Pending> = []
        for (const step of list) {
          if (step !== null) {
            queue.push(step.time, step.payload)
            const after = model.findIndex(({ time }) => time > step.time)
            model.splice(after < 0 ? model.length : after, 0, step)
          } else if (model.length > 0) expect(queue.pop()).toBe(model.shift()!.payload)
          if (model.length > 64) grown++
          expect([queue.size, queue.peekTime()]).toEqual([model.length, model[0]?.time ?? Infinity])
        }
        expect(drain(queue)).toEqual(model.map(({ payload }) => payload))
      }),
      { seed: 20260821, numRuns: 200 }
    )
    expect(grown).toBeGreaterThan(0)
  })

  it("gives events of one instant in the order in which they came, also after it has grown", () => {
    const queue = new EventQueue()
    for (let i = 0; i < 1000; i++) queue.push(5, i)
    expect(drain(queue)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
  })

  it("keeps the order of arrival when earlier events come and go in between", () => {
    const queue = new EventQueue()
    for (let i = 0; i < 50; i++) {
      queue.push(100, i)
      queue.push(i, 1000 + i)
    }
    for (let i = 0; i < 50; i++) expect(queue.pop()).toBe(1000 + i)
    expect(drain(queue)).toEqual(Array.from({ length: 50 }, (_, i) => i))
  })

  it("is exact for times up to 2^53", () => {
    const queue = new EventQueue()
    queue.push(2 ** 53 - 1, 1)
    queue.push(2 ** 53 - 2, 2)
    expect(queue.peekTime()).toBe(2 ** 53 - 2)
    expect(drain(queue)).toEqual([2, 1])
    expect(queue.peekTime()).toBe(Infinity)
  })
})
