import { InterruptMeter, type InterruptTag, type InterruptTotals } from "@vmpl-lab/hypervisor"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"

const GUEST: InterruptTag = { source: "device", vmpl: 2 }
const VECTOR = 0x41

const meterOf = (counting?: () => boolean) => {
  const meter = new InterruptMeter(new Map([[VECTOR, GUEST]]), counting)
  return { meter, totals: meter.totals.get(GUEST)! }
}

const ended = ({ delivered, misdelivered, merged, refused, pending, lost }: InterruptTotals): number =>
  delivered + misdelivered + merged + refused + pending + lost

describe("the interrupt meter", () => {
  it("measures from the request to the handler, and tells whether the level ran", () => {
    const { meter, totals } = meterOf()
    const deliver = (vmplBefore: number, begin: number, end: number) => {
      meter.entered(0, vmplBefore)
      meter.requested(0, VECTOR, false, begin)
      meter.taken(0, VECTOR)
      meter.entered(0, 2)
      meter.delivered(0, 2, VECTOR, end)
    }
    deliver(2, 1_000, 4_000)
    deliver(0, 5_000, 25_000)
    expect(totals).toMatchObject({ raised: 2, delivered: 2, delayed: 1, directNs: [3_000], delayedNs: [20_000] })
  })

  it("a handler at another level is a misdelivery, whose latency is nobody's", () => {
    const { meter, totals } = meterOf()
    meter.requested(0, VECTOR, false, 1)
    meter.taken(0, VECTOR)
    meter.delivered(0, 0, VECTOR, 2)
    expect(totals).toMatchObject({ misdelivered: 1, delivered: 0, directNs: [], delayedNs: [] })
  })

  it("numbers interrupts by vector and vCPU", () => {
    const { meter } = meterOf()
    const seen: Array<readonly [number, number]> = []
    meter.onDelivered = ({ apicId, sequence }) => seen.push([apicId, sequence])
    for (const apicId of [0, 1, 0]) {
      meter.requested(apicId, VECTOR, false, 1)
      meter.taken(apicId, VECTOR)
      meter.delivered(apicId, 2, VECTOR, 2)
    }
    expect(seen).toEqual([
      [0, 1],
      [1, 1],
      [0, 2]
    ])
  })

  it("at the end, what a local APIC holds is pending, and what nobody holds is lost", () => {
    const { meter, totals } = meterOf()
    meter.requested(0, VECTOR, false, 1)
    meter.requested(1, VECTOR, false, 1)
    meter.taken(1, VECTOR)
    meter.requested(2, VECTOR, false, 1)
    meter.close((apicId) => apicId !== 2)
    expect(totals).toMatchObject({ raised: 3, pending: 1, lost: 2 })
  })

  it("counts nothing before it is told to, and no vector that it does not know", () => {
    let up = false
    const { meter, totals } = meterOf(() => up)
    meter.requested(0, VECTOR, false, 1)
    meter.taken(0, VECTOR)
    meter.refused(VECTOR)
    up = true
    meter.delivered(0, 2, VECTOR, 2)
    meter.requested(0, 0x99, false, 3)
    meter.delivered(0, 2, 0x99, 4)
    expect(totals).toMatchObject({ raised: 0, delivered: 0, misdelivered: 0, merged: 0 })
  })

  it("whatever happens in whatever order, what was raised has ended once", () => {
    const step = fc.constantFrom("request", "merge", "refuse", "take", "deliver", "misdeliver")
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, held) => {
        const { meter, totals } = meterOf()
        steps.forEach((what, time) => {
          if (what === "request" || what === "merge") meter.requested(0, VECTOR, what === "merge", time)
          else if (what === "refuse") meter.refused(VECTOR)
          else if (what === "take") meter.taken(0, VECTOR)
          else meter.delivered(0, what === "deliver" ? 2 : 0, VECTOR, time)
        })
        meter.close(() => held)
        expect(ended(totals)).toBe(totals.raised)
        expect(totals.merged).toBeGreaterThanOrEqual(0)
      })
    )
  })
})
