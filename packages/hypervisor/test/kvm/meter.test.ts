import { AP_CREATION } from "@vmpl-lab/sev-es"
import { CostTable, Host, type HostThread, PRIMITIVE, PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type ApCreateRequest, Meter, OperationTotals } from "../../src/index.ts"

/** Step k costs k + 1 ns: sums tell which steps were taken. */
const profile = {
  name: "test",
  machine: "none",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name, i) => [name, { ns: i + 1, low: 0, high: 1_000, basis: "assumed", source: "none" }])
  ),
  sums: []
} as unknown as Profile

const newThread = (): HostThread => new Host(1, new CostTable(profile, 1)).spawn("test", -1)

/** A #VMEXIT of a guest vCPU, on a thread. */
const exit = (meter: Meter, apicId: number, thread: HostThread): void => {
  const span = meter.exitSpan(apicId)
  span.start(thread.time)
  thread.span = span
  thread.charge(PRIMITIVE.vmexit_sev_snp)
}

const creation = (fields: Partial<ApCreateRequest> = {}): ApCreateRequest => ({
  request: AP_CREATION.CREATE,
  vmpl: 2,
  apicId: 1,
  vmsaGpa: 0x1000,
  sevFeatures: 1,
  fromVmpl: 2,
  fromApicId: 0,
  ...fields
})

const sum = (values: Iterable<number>): number => [...values].reduce((a, b) => a + b, 0)

describe("the meter", () => {
  it("adds up any sequence of calls: a breakdown is its latencies, a round trip its two switches", () => {
    const steps = fc.array(fc.nat(PRIMITIVES.length - 1), { maxLength: 6 })
    const call = fc.record({ there: steps, served: steps, back: steps, refused: fc.boolean() })
    fc.assert(
      fc.property(fc.array(call, { minLength: 1, maxLength: 20 }), (calls) => {
        const meter = new Meter(() => true)
        const thread = newThread()
        const expected: Array<number> = []
        const trips: Array<number> = []
        for (const { there, served, back, refused } of calls) {
          exit(meter, 0, thread)
          let begin = thread.time - 1
          meter.switchRequested(0, 2, 0)
          for (const step of there) thread.charge(step)
          if (refused) {
            meter.switchRefused(0, thread)
            expect(thread.span).toBeNull()
            continue
          }
          expect([meter.awaits(0, 0), meter.awaits(0, 2), meter.awaits(1, 0)]).toEqual([true, false, false])
          meter.arrived(0, 0, thread)
          const one = thread.time - begin
          // What the level above does is its own affair.
          for (const step of served) thread.charge(step)
          exit(meter, 0, thread)
          begin = thread.time - 1
          meter.switchRequested(0, 0, 2)
          for (const step of back) thread.charge(step)
          meter.arrived(0, 2, thread)
          const other = thread.time - begin
          expected.push(one, other)
          trips.push(one + other)
        }
        expect(meter.oneWay.ns).toEqual(expected)
        expect(meter.roundTrip.ns).toEqual(trips)
        for (const totals of [meter.oneWay, meter.roundTrip]) {
          expect(sum(totals.nsByPrimitive)).toBe(sum(totals.ns))
          PRIMITIVES.forEach((_, i) => {
            expect(totals.nsByPrimitive[i]).toBe(totals.countByPrimitive[i]! * (i + 1))
          })
        }
        expect(meter.apCreate.ns).toEqual([])
      }),
      { seed: 1, numRuns: 100 }
    )
  })

  it("counts nothing before the workload begins, not even half of a call", () => {
    let counting = false
    const meter = new Meter(() => counting)
    const thread = newThread()
    const there = (): void => {
      exit(meter, 0, thread)
      meter.switchRequested(0, 2, 0)
      meter.arrived(0, 0, thread)
    }
    const back = (): void => {
      exit(meter, 0, thread)
      meter.switchRequested(0, 0, 2)
      meter.arrived(0, 2, thread)
    }
    there()
    back()
    there()
    counting = true
    back()
    expect([meter.oneWay.ns.length, meter.roundTrip.ns.length]).toEqual([0, 0])
    there()
    back()
    expect([meter.oneWay.ns.length, meter.roundTrip.ns.length]).toEqual([2, 1])
  })

  it("finds out when time has passed without a charge, or a charge without time", () => {
    for (const nudge of [1, -1]) {
      const meter = new Meter(() => true)
      const thread = newThread()
      exit(meter, 0, thread)
      meter.switchRequested(0, 2, 0)
      thread.time += nudge
      expect(() => meter.arrived(0, 0, thread)).toThrow(/has charges of/)
    }
  })

  it("ends a creation with the first instruction on the target, and names its group", () => {
    const meter = new Meter(() => true)
    const [issuer, target] = [newThread(), newThread()]
    exit(meter, 0, issuer)
    const { span } = issuer
    meter.creationRequested(creation())
    issuer.charge(PRIMITIVE.kvm_dispatch)
    // The path moves to the target's thread.
    issuer.span = null
    issuer.charge(PRIMITIVE.ioctl)
    target.time = issuer.time - PRIMITIVE.ioctl - 1
    target.span = span
    target.charge(PRIMITIVE.vmrun_sev_snp)
    expect([meter.awaits(1, 2), meter.awaits(0, 2)]).toEqual([true, false])
    meter.arrived(1, 2, target)
    const ns = PRIMITIVE.vmexit_sev_snp + PRIMITIVE.kvm_dispatch + PRIMITIVE.vmrun_sev_snp + 3
    expect(meter.apCreate.ns).toEqual([ns])
    expect([...meter.apCreateGroups]).toEqual([["VMPL2 CREATE", [ns]]])
    expect(meter.awaits(1, 2)).toBe(false)
  })

  it("forgets a creation that was refused", () => {
    const meter = new Meter(() => true)
    const thread = newThread()
    for (const request of [creation(), creation({ request: AP_CREATION.CREATE_ON_INIT })]) {
      exit(meter, 0, thread)
      meter.creationRequested(request)
      meter.creationRefused(request, thread)
      expect([thread.span, meter.awaits(0, 2), meter.awaits(1, 2)]).toEqual([null, false, false])
    }
    exit(meter, 0, thread)
    meter.creationRequested(creation({ request: AP_CREATION.DESTROY }))
    expect(meter.awaits(1, 2)).toBe(false)
  })
})

it("totals of several runs merge into what one run would have recorded", () => {
  const meters = [1, 2, 3].map((calls) => {
    const meter = new Meter(() => true)
    const thread = newThread()
    for (let i = 0; i < calls; i++) {
      exit(meter, 0, thread)
      meter.switchRequested(0, 2, 0)
      thread.charge(i)
      meter.arrived(0, 0, thread)
    }
    return meter
  })
  const all = new OperationTotals()
  for (const { oneWay } of meters) all.merge(oneWay)
  expect(all.ns).toEqual(meters.flatMap(({ oneWay }) => oneWay.ns))
  expect(sum(all.nsByPrimitive)).toBe(sum(all.ns))
  expect(all.countByPrimitive[PRIMITIVE.vmexit_sev_snp]).toBe(6 + 3)
})
