import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { APIC_REG, type ApicMessage, DELIVERY_MODE, Lapic } from "../../src/index.ts"
import { enabledLapic, message, TestBus } from "./support.ts"

/** The rules in sets of numbers: which vectors are requested, in service, and level-triggered. */
class Reference {
  readonly irr = new Set<number>()
  readonly isr = new Set<number>()
  readonly tmr = new Set<number>()
  readonly ended: Array<number> = []
  tpr = 0
  enabled = true

  ppr(): number {
    const inService = Math.floor(Math.max(0, ...this.isr) / 16)
    return Math.floor(this.tpr / 16) >= inService ? this.tpr : inService * 16
  }

  pending(): number {
    const highest = Math.max(-1, ...this.irr)
    return Math.floor(highest / 16) > Math.floor(this.ppr() / 16) ? highest : -1
  }
}

type Step = fc.Command<Reference, { lapic: Lapic; bus: TestBus }>

const words = (lapic: Lapic, base: number): Set<number> => {
  const set = new Set<number>()
  for (let vector = 0; vector < 256; vector++) {
    if (((lapic.read(base + (vector >> 5) * 16)! >>> (vector % 32)) & 1) === 1) set.add(vector)
  }
  return set
}

const seen = new Map<string, number>()

const step = (name: string, run: (model: Reference, lapic: Lapic, bus: TestBus) => unknown): Step => ({
  check: () => true,
  run: (model, { lapic, bus }) => {
    const raisedBefore = bus.raised
    const pendingBefore = model.pending()
    const outcome = run(model, lapic, bus)
    const key = `${name.split(" ")[0]} ${typeof outcome === "number" ? outcome >= 0 : outcome}`
    seen.set(key, (seen.get(key) ?? 0) + 1)
    expect(words(lapic, APIC_REG.IRR)).toEqual(model.irr)
    expect(words(lapic, APIC_REG.ISR)).toEqual(model.isr)
    expect(words(lapic, APIC_REG.TMR)).toEqual(model.tmr)
    expect(lapic.read(APIC_REG.PPR)).toBe(model.ppr())
    expect(lapic.processorPriority()).toBe(model.ppr())
    expect(lapic.highestPending()).toBe(model.pending())
    expect(bus.ended).toEqual(model.ended)
    // The vCPU hears of every interrupt that it could not take before.
    if (model.pending() > pendingBefore) expect(bus.raised).toBeGreaterThan(raisedBefore)
  },
  toString: () => name
})

const accept = ({
  vector,
  levelTriggered,
  assert,
  lowest
}: Record<"levelTriggered" | "assert" | "lowest", boolean> & { vector: number }) =>
  step(`accept ${vector} level=${levelTriggered} assert=${assert}`, (model, lapic) => {
    const taken = model.enabled && vector >= 16 && !(levelTriggered && !assert)
    if (taken) model.irr.add(vector)
    if (taken && levelTriggered) model.tmr.add(vector)
    if (taken && !levelTriggered) model.tmr.delete(vector)
    const deliveryMode = lowest ? DELIVERY_MODE.LOWEST_PRIORITY : DELIVERY_MODE.FIXED
    expect(lapic.accept(message({ vector, levelTriggered, assert, deliveryMode }))).toBe(taken)
    return taken
  })

const acknowledge = step("acknowledge", (model, lapic) => {
  const vector = model.pending()
  if (vector >= 0) {
    model.irr.delete(vector)
    model.isr.add(vector)
  }
  expect(lapic.acknowledge()).toBe(vector)
  return vector
})

const endOfInterrupt = step("eoi", (model, lapic) => {
  const vector = Math.max(-1, ...model.isr)
  model.isr.delete(vector)
  if (model.tmr.has(vector) && vector >= 0) model.ended.push(vector)
  lapic.write(APIC_REG.EOI, 0)
  return vector
})

const setTpr = (tpr: number): Step =>
  step(`tpr ${tpr}`, (model, lapic) => {
    model.tpr = tpr
    lapic.setTpr(tpr)
    expect(lapic.getTpr()).toBe(tpr)
  })

const setEnabled = (enabled: boolean): Step =>
  step(`enabled ${enabled}`, (model, lapic) => {
    model.enabled = enabled
    lapic.write(APIC_REG.SPIV, enabled ? 0x1ff : 0xff)
  })

const vector = fc.oneof(fc.nat(255), fc.integer({ min: 0x30, max: 0x5f }))
const steps = [
  fc
    .record({ vector, levelTriggered: fc.boolean(), assert: fc.constantFrom(true, true, false), lowest: fc.boolean() })
    .map(accept),
  fc.constant(acknowledge),
  fc.constant(endOfInterrupt),
  fc.oneof(fc.constant(0), fc.nat(255)).map(setTpr),
  fc.constantFrom(true, true, true, false).map(setEnabled)
]

describe("IRR, ISR, TMR and PPR", () => {
  it("follow the rules in sets of numbers", () => {
    fc.assert(
      fc.property(fc.commands(steps, { maxCommands: 200, size: "max" }), (commands) => {
        fc.modelRun(() => ({ model: new Reference(), real: enabledLapic() }), commands)
      })
    )
    for (const outcome of [
      "accept true",
      "accept false",
      "acknowledge true",
      "acknowledge false",
      "eoi true",
      "eoi false"
    ])
      expect([outcome, (seen.get(outcome) ?? 0) > 50]).toEqual([outcome, true])
  })

  it.each([
    // TPR, vector in service, PPR.
    [0x00, -1, 0x00],
    [0x2f, -1, 0x2f],
    [0x00, 0x51, 0x50],
    [0x4f, 0x51, 0x50],
    [0x5a, 0x51, 0x5a],
    [0x63, 0x51, 0x63]
  ])("with TPR %i and vector %i in service make PPR %i", (tpr, inService, ppr) => {
    const { lapic } = enabledLapic()
    if (inService >= 0) lapic.accept(message({ vector: inService }))
    lapic.acknowledge()
    lapic.setTpr(tpr)
    expect(lapic.processorPriority()).toBe(ppr)
  })

  it("nest by class: 0x61 interrupts 0x51, 0x5f does not", () => {
    const { lapic, bus } = enabledLapic()
    for (const [vector, next] of [
      [0x51, 0x51],
      [0x5f, -1],
      [0x61, 0x61]
    ] as const) {
      lapic.accept(message({ vector }))
      expect(lapic.acknowledge()).toBe(next)
    }
    expect(bus.raised).toBe(3)
    lapic.write(APIC_REG.EOI, 0)
    expect([lapic.highestPending(), bus.raised]).toEqual([-1, 3])
    lapic.write(APIC_REG.EOI, 0)
    expect([lapic.highestPending(), bus.raised]).toEqual([0x5f, 4])
  })
})

describe("a message", () => {
  const outcome = (fields: Partial<ApicMessage>) => {
    const bus = new TestBus()
    const lapic = new Lapic(0, bus, false)
    const taken = lapic.accept(message(fields))
    return [taken, lapic.nmiPending, lapic.initPending, lapic.sipiVector, bus.raised]
  }

  it.each([
    ["fixed", { deliveryMode: 0 }, [false, false, false, -1, 0]],
    ["lowest priority", { deliveryMode: 1 }, [false, false, false, -1, 0]],
    ["SMI", { deliveryMode: 2 }, [false, false, false, -1, 0]],
    ["reserved", { deliveryMode: 3 }, [false, false, false, -1, 0]],
    ["NMI", { deliveryMode: 4 }, [true, true, false, -1, 1]],
    ["INIT", { deliveryMode: 5, levelTriggered: true }, [true, false, true, -1, 1]],
    ["edge INIT", { deliveryMode: 5, assert: false }, [true, false, true, -1, 1]],
    ["INIT level de-assert", { deliveryMode: 5, levelTriggered: true, assert: false }, [false, false, false, -1, 0]],
    ["SIPI", { deliveryMode: 6, vector: 0x9a, assert: false }, [true, false, false, 0x9a, 1]],
    ["SIPI to page 0", { deliveryMode: 6, vector: 0, assert: false }, [true, false, false, 0, 1]],
    ["ExtINT", { deliveryMode: 7 }, [false, false, false, -1, 0]]
  ] as const)("%s to an APIC that software has disabled", (_, fields, expected) => {
    expect(outcome(fields)).toEqual(expected)
  })

  it("INIT takes back a SIPI that came before it; carrying it out leaves one that came after", () => {
    const { lapic } = enabledLapic()
    lapic.accept(message({ deliveryMode: DELIVERY_MODE.STARTUP, vector: 1 }))
    lapic.accept(message({ deliveryMode: DELIVERY_MODE.INIT }))
    expect(lapic.sipiVector).toBe(-1)
    lapic.accept(message({ deliveryMode: DELIVERY_MODE.STARTUP, vector: 2 }))
    lapic.accept(message({ deliveryMode: DELIVERY_MODE.NMI }))
    lapic.reset()
    expect([lapic.sipiVector, lapic.initPending, lapic.nmiPending]).toEqual([2, false, false])
  })
})

describe("INIT", () => {
  it("brings every register back but the ID", () => {
    const registers = (lapic: Lapic) => Array.from({ length: 0x40 }, (_, i) => (i === 0x28 ? 0 : lapic.read(i * 16)))
    const fresh = registers(new Lapic(3, new TestBus(), false))
    const { lapic, bus } = enabledLapic(3)
    lapic.write(APIC_REG.LVTT, 0x2_0040)
    for (let register = 0x20; register < 0x400; register += 16) {
      if (register !== APIC_REG.LVTT && register !== APIC_REG.SPIV) lapic.write(register, 0x0700_0055)
    }
    lapic.accept(message({ vector: 0x81, levelTriggered: true }))
    lapic.acknowledge()
    lapic.accept(message({ vector: 0x91, levelTriggered: true }))
    expect(bus.alarm).not.toBeNull()
    lapic.reset()
    const expected = [...fresh]
    expected[2] = 0x0700_0000
    expect(registers(lapic)).toEqual(expected)
    expect(bus.alarm).toBeNull()
    expect(lapic.readApicBase()).toBe(0xfee0_0800)
  })
})

describe("errors", () => {
  const esr = (lapic: Lapic): number | null => {
    lapic.write(APIC_REG.ESR, 0)
    return lapic.read(APIC_REG.ESR)
  }

  it("are sent and received vectors below 16", () => {
    for (let illegal = 0; illegal < 32; illegal++) {
      const { lapic } = enabledLapic()
      expect(lapic.accept(message({ vector: illegal }))).toBe(illegal >= 16)
      expect(esr(lapic)).toBe(illegal < 16 ? 0x40 : 0)
      for (let mode = 0; mode < 8; mode++) {
        lapic.write(APIC_REG.ICR, (mode << 8) | illegal)
        expect(esr(lapic)).toBe(illegal < 16 && mode < 2 ? 0x20 : 0)
      }
    }
  })

  it("add up, and interrupt once until ESR is written", () => {
    const { lapic, bus } = enabledLapic()
    lapic.write(APIC_REG.LVTERR, 0xfe)
    lapic.write(APIC_REG.ICR, 0x05)
    expect(lapic.acknowledge()).toBe(0xfe)
    lapic.write(APIC_REG.EOI, 0)
    lapic.read(APIC_REG.SELF_IPI)
    expect(lapic.highestPending()).toBe(-1)
    expect(esr(lapic)).toBe(0xa0)
    lapic.accept(message({ vector: 3 }))
    expect([lapic.acknowledge(), esr(lapic)]).toEqual([0xfe, 0x40])
    expect(bus.raised).toBe(2)
  })

  it("are forgotten by INIT", () => {
    const { lapic } = enabledLapic()
    lapic.read(0x10)
    lapic.reset()
    expect(esr(lapic)).toBe(0)
  })

  it("of the error interrupt itself end there", () => {
    const { lapic } = enabledLapic()
    lapic.write(APIC_REG.LVTERR, 0x01)
    lapic.read(0x10)
    expect([lapic.highestPending(), esr(lapic)]).toEqual([-1, 0xc0])
  })
})

describe("an LVT entry", () => {
  it("delivers what it says, unless masked", () => {
    const { lapic } = enabledLapic()
    expect(lapic.localDeliver(APIC_REG.LVTPC)).toBe(false)
    lapic.write(APIC_REG.LVTPC, 0x400)
    expect(lapic.localDeliver(APIC_REG.LVTPC)).toBe(true)
    expect(lapic.nmiPending).toBe(true)
    // As the performance counters do on AMD: the entry does not mask itself.
    expect(lapic.read(APIC_REG.LVTPC)).toBe(0x400)
    lapic.write(APIC_REG.LVT1, 0x8052)
    expect(lapic.localDeliver(APIC_REG.LVT1)).toBe(true)
    expect([lapic.acknowledge(), lapic.read(APIC_REG.TMR + 0x20)]).toEqual([0x52, 1 << 18])
    lapic.write(APIC_REG.LVT0, 0x700)
    expect(lapic.localDeliver(APIC_REG.LVT0)).toBe(false)
  })
})
