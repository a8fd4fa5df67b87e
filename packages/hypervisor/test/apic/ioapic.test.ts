import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ApicMap, type ApicMessage, IOAPIC_PINS, IoApic } from "../../src/index.ts"
import { enabledLapic, message } from "./support.ts"

const LEVEL = 0x8000
const MASKED = 0x1_0000
const REMOTE_IRR = 0x4000

const make = (version?: 0x11 | 0x20) => {
  const sent: Array<ApicMessage> = []
  const state = { takes: 1 }
  const ioapic = new IoApic((m) => {
    sent.push(m)
    return state.takes
  }, version)
  const select = (index: number) => ioapic.write(0x00, index)
  const get = (index: number): number => {
    select(index)
    return ioapic.read(0x10)
  }
  const set = (index: number, value: number): void => {
    select(index)
    ioapic.write(0x10, value)
  }
  return {
    ioapic,
    sent,
    state,
    get,
    set,
    entry: (pin: number) => get(0x10 + 2 * pin),
    route: (pin: number, lo: number, hi = 0) => {
      set(0x11 + 2 * pin, hi)
      set(0x10 + 2 * pin, lo)
    }
  }
}

describe("the registers of the I/O APIC", () => {
  it("start masked, with ID 0 and version 0x11 for 24 pins", () => {
    const { ioapic, get } = make()
    expect(ioapic.read(0x00)).toBe(0)
    expect([get(0), get(1), get(2)]).toEqual([0, 0x0017_0011, 0])
    for (let pin = 0; pin < IOAPIC_PINS; pin++) expect([get(0x10 + 2 * pin), get(0x11 + 2 * pin)]).toEqual([MASKED, 0])
    for (const index of [3, 0x0f, 0x40, 0x41, 0xff]) expect(get(index)).toBe(0xffff_ffff)
    expect(make(0x20).get(1)).toBe(0x0017_0020)
  })

  it("hold their bits", () => {
    const { ioapic, get, set } = make()
    for (const index of [0, 1, 2, 3, 0x0f, 0x40]) set(index, 0xffff_ffff)
    expect([get(0), get(1), get(2)]).toEqual([0x0f00_0000, 0x0017_0011, 0x0f00_0000])
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      set(0x10 + 2 * pin, 0xffff_ffff)
      set(0x11 + 2 * pin, 0xff00_0000 | pin)
      expect([get(0x10 + 2 * pin), get(0x11 + 2 * pin)]).toEqual([0xffff_afff, (0xff00_0000 | pin) >>> 0])
    }
    ioapic.write(0x00, 0x1_0001)
    expect([ioapic.read(0x00), ioapic.read(0x10)]).toEqual([1, 0x0017_0011])
    for (const offset of [0x04, 0x14, 0x20, 0x40]) {
      ioapic.write(offset, 5)
      expect(ioapic.read(offset)).toBe(0)
    }
  })
})

describe("a pin", () => {
  it("sends what its entry says", () => {
    const { ioapic, sent, route } = make()
    route(4, 0x0031, 0x0700_0000)
    route(9, 0x8950, 0x8000_0000)
    expect([ioapic.setIrq(4, true), ioapic.setIrq(9, true)]).toEqual([1, 1])
    expect(sent).toEqual([
      message({ destination: 7, vector: 0x31 }),
      message({ destination: 0x80, vector: 0x50, logical: true, deliveryMode: 1, levelTriggered: true })
    ])
  })

  it("that does not exist is a fault of the model", () => {
    for (const pin of [-1, 24, 0.5]) expect(() => make().ioapic.setIrq(pin, true)).toThrow("no pin")
  })
})

describe("an edge", () => {
  it("interrupts when it rises, not while it stays", () => {
    const { ioapic, sent, route, state } = make()
    route(4, 0x31)
    expect([true, true, false, true].map((level) => ioapic.setIrq(4, level))).toEqual([1, 0, 1, 1])
    expect(sent.length).toBe(2)
    ioapic.endOfInterrupt(0x31)
    expect(sent.length).toBe(2)
    state.takes = 3
    ioapic.setIrq(4, false)
    expect(ioapic.setIrq(4, true)).toBe(3)
  })

  it("is lost while masked", () => {
    const { ioapic, sent, route } = make()
    route(4, MASKED | 0x31)
    expect(ioapic.setIrq(4, true)).toBe(-1)
    route(4, 0x31)
    expect([ioapic.setIrq(4, true), sent.length]).toEqual([0, 0])
  })
})

describe("a level", () => {
  it("interrupts once until its end, and again while it stays high", () => {
    const { ioapic, sent, route, entry } = make()
    route(9, LEVEL | 0x50)
    expect([true, true].map((level) => ioapic.setIrq(9, level))).toEqual([1, -1])
    expect(entry(9)).toBe(LEVEL | REMOTE_IRR | 0x50)
    ioapic.endOfInterrupt(0x51)
    expect(sent.length).toBe(1)
    ioapic.endOfInterrupt(0x50)
    expect([sent.length, entry(9)]).toEqual([2, LEVEL | REMOTE_IRR | 0x50])
    ioapic.setIrq(9, false)
    ioapic.endOfInterrupt(0x50)
    expect([sent.length, entry(9)]).toEqual([2, LEVEL | 0x50])
  })

  it("waits for the mask, and for somebody to take it", () => {
    const { ioapic, sent, route, entry, state } = make()
    route(9, LEVEL | MASKED | 0x50)
    expect(ioapic.setIrq(9, true)).toBe(-1)
    state.takes = 0
    route(9, LEVEL | 0x50)
    expect([sent.length, entry(9)]).toEqual([1, LEVEL | 0x50])
    state.takes = 1
    expect(ioapic.setIrq(9, true)).toBe(1)
    expect(entry(9)).toBe(LEVEL | REMOTE_IRR | 0x50)
    route(9, LEVEL | MASKED | 0x50)
    ioapic.endOfInterrupt(0x50)
    expect([sent.length, entry(9)]).toEqual([2, LEVEL | MASKED | 0x50])
  })

  it("loses its remote IRR when turned to edge, as Linux does without an EOI register", () => {
    const { ioapic, route, entry } = make()
    route(9, LEVEL | 0x50)
    ioapic.setIrq(9, true)
    route(9, LEVEL | MASKED | 0x50)
    expect(entry(9)).toBe(LEVEL | MASKED | REMOTE_IRR | 0x50)
    route(9, MASKED | 0x50)
    expect(entry(9)).toBe(MASKED | 0x50)
  })

  it("ends through the EOI register of version 0x20 only", () => {
    for (const [version, left] of [
      [0x11, REMOTE_IRR],
      [0x20, 0]
    ] as const) {
      const { ioapic, route, entry } = make(version)
      route(9, LEVEL | 0x50)
      ioapic.setIrq(9, true)
      ioapic.setIrq(9, false)
      ioapic.write(0x40, 0x51)
      expect(entry(9)).toBe(LEVEL | REMOTE_IRR | 0x50)
      ioapic.write(0x40, 0x50)
      expect(entry(9)).toBe(LEVEL | left | 0x50)
    }
  })

  it("goes round with a local APIC: no end, no second interrupt", () => {
    const { lapic, bus } = enabledLapic(0)
    const ioapic = new IoApic((m) => new ApicMap([lapic]).deliver(m))
    ioapic.write(0x00, 0x10)
    ioapic.write(0x10, LEVEL | 0x50)
    ioapic.setIrq(0, true)
    expect(lapic.acknowledge()).toBe(0x50)
    expect(lapic.highestPending()).toBe(-1)
    lapic.write(0xb0, 0)
    expect(bus.ended).toEqual([0x50])
    for (const vector of bus.ended) ioapic.endOfInterrupt(vector)
    expect(lapic.highestPending()).toBe(0x50)
  })
})

/** The rules per pin, with names instead of bits. */
interface Pin {
  vector: number
  level: boolean
  masked: boolean
  remoteIrr: boolean
  high: boolean
}

describe("any sequence of levels, entries and ends", () => {
  it("sends what the rules per pin say", () => {
    const pin = fc.nat(2)
    const vector = fc.constantFrom(0x30, 0x31)
    const action = fc.oneof(
      fc.record({ kind: fc.constant("irq" as const), pin, high: fc.boolean() }),
      fc.record({ kind: fc.constant("entry" as const), pin, vector, level: fc.boolean(), masked: fc.boolean() }),
      fc.record({ kind: fc.constant("end" as const), vector })
    )
    fc.assert(
      fc.property(fc.array(action, { maxLength: 100, size: "max" }), (actions) => {
        const { ioapic, sent, set, entry } = make()
        const pins: Array<Pin> = [0, 1, 2].map(() => ({
          vector: 0,
          level: false,
          masked: true,
          remoteIrr: false,
          high: false
        }))
        const expected: Array<number> = []
        const serve = (p: Pin) => {
          if (p.masked || p.remoteIrr) return
          expected.push(p.vector)
          p.remoteIrr = p.level
        }
        for (const a of actions) {
          if (a.kind === "irq") {
            const p = pins[a.pin]!
            const rises = a.high && !p.high
            p.high = a.high
            if (a.high && (p.level || rises)) serve(p)
            ioapic.setIrq(a.pin, a.high)
          } else if (a.kind === "entry") {
            const p = pins[a.pin]!
            Object.assign(p, { vector: a.vector, level: a.level, masked: a.masked, remoteIrr: p.remoteIrr && a.level })
            if (p.level && p.high) serve(p)
            set(0x10 + 2 * a.pin, a.vector | (a.level ? LEVEL : 0) | (a.masked ? MASKED : 0))
          } else {
            for (const p of pins.filter((p) => p.level && p.vector === a.vector)) {
              p.remoteIrr = false
              if (p.high) serve(p)
            }
            ioapic.endOfInterrupt(a.vector)
          }
          expect(sent.map((m) => m.vector)).toEqual(expected)
          pins.forEach((p, i) => {
            expect((entry(i) & REMOTE_IRR) !== 0).toBe(p.remoteIrr)
          })
        }
      })
    )
  })

  it("never throws on hostile writes", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(0x50), fc.nat(0xffff_ffff)), { maxLength: 200, size: "max" }), (writes) => {
        const { ioapic, get } = make(0x20)
        for (const [offset, value] of writes) {
          ioapic.write(offset & 0x50, value)
          ioapic.setIrq(value % IOAPIC_PINS, (value & 0x100) !== 0)
        }
        for (let index = 0; index < 0x40; index++) {
          expect(get(index)).toBe(get(index) >>> 0)
          if (index >= 0x10 && index % 2 === 0) expect(get(index) & 0x1000).toBe(0)
        }
      })
    )
  })
})
