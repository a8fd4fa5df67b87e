import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { APIC_REG, ApicMap, type ApicMessage, DELIVERY_MODE, type Lapic } from "../../src/index.ts"
import { enabledLapic, message, X2APIC_BASE } from "./support.ts"

const FLAT = 0xffff_ffff
const CLUSTER = 0x0fff_ffff

const logicalLapic = (ldr: number, dfr: number): Lapic => {
  const { lapic } = enabledLapic(0)
  lapic.write(APIC_REG.LDR, ldr << 24)
  lapic.write(APIC_REG.DFR, dfr)
  return lapic
}

const lapics = (count: number, x2apic = false): ReadonlyArray<Lapic> =>
  Array.from({ length: count }, (_, id) => enabledLapic(id, x2apic).lapic)

/** IDs of those who have the message pending. */
const heard = (all: ReadonlyArray<Lapic>): ReadonlyArray<number> =>
  all
    .filter((lapic) => lapic.highestPending() >= 0 || lapic.nmiPending || lapic.initPending || lapic.sipiVector >= 0)
    .map(({ id }) => id)

describe("a physical destination", () => {
  it.each([
    // ID, target in x2APIC mode, message, matches.
    [5, false, { destination: 5 }, true],
    [5, false, { destination: 4 }, false],
    [5, true, { destination: 5 }, true],
    [5, true, { destination: 0x105, x2apic: true }, false],
    [0x105, true, { destination: 0x105, x2apic: true }, true],
    // In xAPIC mode an ID beyond 8 bits is heard in full, and its low byte is the ID register.
    [0x105, false, { destination: 0x105, x2apic: true }, true],
    [0x105, false, { destination: 5 }, true],
    // Broadcasts: from outside; IPIs in each format; and the two formats mixed.
    [5, false, { destination: 0xff }, true],
    [5, true, { destination: 0xff }, true],
    [5, true, { destination: 0xff, x2apic: true }, false],
    [5, true, { destination: 0xffff_ffff, x2apic: true }, true],
    [5, false, { destination: 0xffff_ffff, x2apic: true }, false],
    [5, false, { destination: 0xff, sender: 0 }, true],
    [5, true, { destination: 0xff, sender: 0 }, false],
    [5, true, { destination: 0xffff_ffff, sender: 0, x2apic: true }, true],
    [5, true, { destination: 0xff, sender: 0, x2apic: true }, false],
    [5, false, { destination: 0xff, sender: 0, x2apic: true }, false],
    [0xff, true, { destination: 0xff, sender: 0, x2apic: true }, true]
  ] as const)("ID %i, x2APIC %s: %o is %s", (id, x2apic, fields, expected) => {
    expect(enabledLapic(id, x2apic).lapic.matches(message(fields))).toBe(expected)
  })

  it("is what software wrote to the ID register, in xAPIC mode", () => {
    const { lapic } = enabledLapic(5)
    lapic.write(APIC_REG.ID, 0x0900_0000)
    expect([5, 9].map((destination) => lapic.matches(message({ destination })))).toEqual([false, true])
    lapic.writeApicBase(X2APIC_BASE)
    expect([5, 9].map((destination) => lapic.matches(message({ destination })))).toEqual([true, false])
  })
})

describe("a logical destination", () => {
  it.each([
    // LDR, DFR, destination, matches.
    [0x04, FLAT, 0x04, true],
    [0x04, FLAT, 0x0c, true],
    [0x04, FLAT, 0x0b, false],
    [0x04, FLAT, 0xff, true],
    [0x00, FLAT, 0xff, true],
    [0x24, CLUSTER, 0x24, true],
    [0x24, CLUSTER, 0x2c, true],
    [0x24, CLUSTER, 0x34, false],
    [0x24, CLUSTER, 0x21, false],
    [0x24, CLUSTER, 0xff, true],
    [0x24, 0x5fff_ffff, 0x24, false]
  ])("LDR %i, DFR %i: %i is %s", (ldr, dfr, destination, expected) => {
    expect(logicalLapic(ldr, dfr).matches(message({ destination, logical: true }))).toBe(expected)
  })

  it("names up to 16 of one cluster in x2APIC mode", () => {
    const all = lapics(40, true)
    const matching = (destination: number) =>
      all
        .filter((lapic) => lapic.matches(message({ destination, logical: true, sender: 0, x2apic: true })))
        .map(({ id }) => id)
    expect(matching(0x0000_0001)).toEqual([0])
    expect(matching(0x0001_8003)).toEqual([16, 17, 31])
    expect(matching(0x0002_ffff)).toEqual([32, 33, 34, 35, 36, 37, 38, 39])
    expect(matching(0x0003_ffff)).toEqual([])
    expect(matching(0xffff_ffff).length).toBe(40)
  })
})

describe("the bus", () => {
  it.each([
    [0, { destination: 2 }, [2]],
    [1, {}, [1]],
    [2, {}, [0, 1, 2, 3]],
    [3, {}, [0, 2, 3]]
  ] as const)("carries out shorthand %i", (shorthand, fields, expected) => {
    for (const x2apic of [false, true]) {
      for (const [deliveryMode, vector] of [
        [DELIVERY_MODE.FIXED, 0x40],
        [DELIVERY_MODE.NMI, 0],
        [DELIVERY_MODE.INIT, 0],
        [DELIVERY_MODE.STARTUP, 8]
      ]) {
        const all = lapics(4, x2apic)
        const ipi = message({ shorthand, sender: 1, x2apic, deliveryMode: deliveryMode!, vector: vector!, ...fields })
        expect(new ApicMap(all).deliver(ipi)).toBe(expected.length)
        expect(heard(all)).toEqual(expected)
      }
    }
  })

  it("starts the APs as Linux does: INIT, SIPI, to each by its ID", () => {
    const all = lapics(4)
    const map = new ApicMap()
    const send = (fields: Partial<ApicMessage>) => map.deliver(message({ sender: 0, destination: 2, ...fields }), all)
    expect(send({ deliveryMode: DELIVERY_MODE.INIT, levelTriggered: true })).toBe(1)
    expect(send({ deliveryMode: DELIVERY_MODE.INIT, levelTriggered: true, assert: false })).toBe(0)
    expect(all[2]!.initPending).toBe(true)
    all[2]!.reset()
    expect(send({ deliveryMode: DELIVERY_MODE.STARTUP, vector: 0x9a, assert: false })).toBe(1)
    expect([all[2]!.sipiVector, all[1]!.sipiVector]).toEqual([0x9a, -1])
  })

  it("passes over APICs that hardware has disabled, and counts those that drop a message as not taking it", () => {
    const all = lapics(3)
    all[0]!.writeApicBase(0xfee0_0000)
    all[1]!.write(APIC_REG.SPIV, 0xff)
    const map = new ApicMap(all)
    expect(map.deliver(message({ destination: 0xff }))).toBe(1)
    expect(heard(all)).toEqual([2])
    expect(map.deliver(message({ destination: 0xff, deliveryMode: DELIVERY_MODE.NMI }))).toBe(2)
    expect(map.deliver(message({ destination: 7 }))).toBe(0)
    const lowest = message({ shorthand: 2, sender: 2, deliveryMode: DELIVERY_MODE.LOWEST_PRIORITY, vector: 0x50 })
    expect(map.deliver(lowest)).toBe(1)
    expect(all[2]!.highestPending()).toBe(0x50)
  })

  it("gives a lowest-priority message to one: the lowest priority, then the lowest ID", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ tpr: fc.constantFrom(0, 0x10, 0x1f, 0x20), on: fc.boolean() }), {
          minLength: 1,
          maxLength: 8
        }),
        fc.nat(255),
        (states, destination) => {
          const all = states.map(({ tpr, on }, id) => {
            const { lapic } = enabledLapic(id)
            lapic.write(APIC_REG.LDR, 1 << (24 + id))
            lapic.setTpr(tpr)
            if (!on) lapic.write(APIC_REG.SPIV, 0xff)
            return lapic
          })
          const able = states
            .map(({ tpr, on }, id) => ({ tpr, on, id }))
            .filter(({ on, id }) => on && (destination === 0xff || ((destination >> id) & 1) === 1))
            .toSorted((a, b) => a.tpr - b.tpr || a.id - b.id)
          const m = message({ destination, logical: true, deliveryMode: DELIVERY_MODE.LOWEST_PRIORITY, vector: 0xf0 })
          expect(new ApicMap(all.toReversed()).deliver(m)).toBe(able.length > 0 ? 1 : 0)
          expect(heard(all)).toEqual(able.slice(0, 1).map(({ id }) => id))
        }
      )
    )
  })

  it("drops a lowest-priority message with an illegal vector, and gives a physical broadcast to all", () => {
    const all = lapics(3)
    const map = new ApicMap(all)
    const lowest = { deliveryMode: DELIVERY_MODE.LOWEST_PRIORITY }
    expect(map.deliver(message({ ...lowest, vector: 4 }))).toBe(0)
    expect(map.deliver(message({ ...lowest, destination: 0xff, logical: true }))).toBe(1)
    expect(map.deliver(message({ ...lowest, destination: 0xff, shorthand: 3, sender: 1 }))).toBe(1)
    expect(map.deliver(message({ ...lowest, destination: 0xff }))).toBe(3)
  })
})
