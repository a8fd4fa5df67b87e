import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { APIC_REG, divideCount, MIN_TIMER_PERIOD_NS } from "../../src/index.ts"
import { enabledLapic, passTime } from "./support.ts"

const ONE_SHOT = 0x40
const PERIODIC = 0x2_0040
const TSC_DEADLINE = 0x4_0040
const RESERVED = 0x6_0040
const DIVIDERS = [
  [0, 2],
  [1, 4],
  [2, 8],
  [3, 16],
  [8, 32],
  [9, 64],
  [10, 128],
  [11, 1]
] as const

/** An APIC with its timer in a mode, at a time. */
const timer = (lvtt: number, tdcr = 11, time = 1_000) => {
  const made = enabledLapic()
  made.bus.time = time
  made.lapic.write(APIC_REG.TDCR, tdcr)
  made.lapic.write(APIC_REG.LVTT, lvtt)
  return made
}

describe("the divide configuration", () => {
  it.each(DIVIDERS)("%i divides by %i", (tdcr, divider) => {
    expect(divideCount(tdcr)).toBe(divider)
    expect(divideCount(tdcr | 4)).toBe(divider)
  })
})

describe("the one-shot timer", () => {
  it("counts down in ticks of 1 ns times the divider, and expires once", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...DIVIDERS),
        fc.integer({ min: 1, max: 0xffff_ffff }),
        fc.integer({ min: 0, max: 1_000_000 }),
        (divider, count, parts) => {
          const { lapic, bus } = timer(ONE_SHOT, divider[0])
          lapic.write(APIC_REG.TMICT, count)
          const total = count * divider[1]
          expect(bus.alarm).toBe(1_000 + total)
          expect(lapic.read(APIC_REG.TMCCT)).toBe(count)
          const passed = Math.floor((total - 1) * (parts / 1_000_000))
          expect(passTime(lapic, bus, 1_000 + passed)).toEqual([])
          expect(lapic.read(APIC_REG.TMCCT)).toBe(Math.floor((total - passed) / divider[1]))
          expect(lapic.highestPending()).toBe(-1)
          expect(passTime(lapic, bus, 1_000 + 3 * total)).toEqual([1_000 + total])
          expect([lapic.acknowledge(), lapic.read(APIC_REG.TMCCT), bus.alarm]).toEqual([0x40, 0, null])
          expect(lapic.read(APIC_REG.TMICT)).toBe(count)
        }
      )
    )
  })

  it("stops when its count is set to 0, starts anew when set again", () => {
    const { lapic, bus } = timer(ONE_SHOT)
    lapic.write(APIC_REG.TMICT, 500)
    bus.time = 1_100
    lapic.write(APIC_REG.TMICT, 300)
    expect(bus.alarm).toBe(1_400)
    lapic.write(APIC_REG.TMICT, 0)
    expect([bus.alarm, lapic.read(APIC_REG.TMCCT)]).toEqual([null, 0])
    bus.time = 2_000
    lapic.timerExpired()
    expect(lapic.highestPending()).toBe(-1)
  })

  it("takes no alarm that was overtaken", () => {
    const { lapic, bus } = timer(ONE_SHOT)
    lapic.write(APIC_REG.TMICT, 500)
    bus.time = 1_400
    lapic.write(APIC_REG.TMICT, 500)
    bus.time = 1_500
    lapic.timerExpired()
    expect([lapic.highestPending(), lapic.read(APIC_REG.TMCCT)]).toEqual([-1, 400])
    bus.time = 1_900
    expect(lapic.read(APIC_REG.TMCCT)).toBe(0)
    lapic.timerExpired()
    expect(lapic.highestPending()).toBe(0x40)
  })

  it("runs on while masked, without an interrupt", () => {
    const { lapic, bus } = timer(ONE_SHOT | 0x1_0000)
    lapic.write(APIC_REG.TMICT, 500)
    passTime(lapic, bus, 1_250)
    expect(lapic.read(APIC_REG.TMCCT)).toBe(250)
    passTime(lapic, bus, 2_000)
    expect([lapic.highestPending(), bus.raised]).toEqual([-1, 0])
  })

  it("keeps what is left when the divider changes", () => {
    const { lapic, bus } = timer(ONE_SHOT, 0)
    lapic.write(APIC_REG.TMICT, 1_000)
    bus.time = 1_500
    expect(lapic.read(APIC_REG.TMCCT)).toBe(750)
    lapic.write(APIC_REG.TDCR, 3)
    expect([lapic.read(APIC_REG.TMCCT), bus.alarm]).toEqual([750, 1_500 + 750 * 16])
    bus.alarm = -1
    lapic.write(APIC_REG.TDCR, 3)
    expect(bus.alarm).toBe(-1)
    bus.alarm = 1_500 + 750 * 16
    passTime(lapic, bus, 20_000)
    expect(lapic.acknowledge()).toBe(0x40)
    lapic.write(APIC_REG.TDCR, 0)
    expect(bus.alarm).toBeNull()
  })

  it("shows an expiry that the bus brings late, once", () => {
    const { lapic, bus } = timer(ONE_SHOT)
    lapic.write(APIC_REG.TMICT, 10)
    bus.time = 5_000
    lapic.write(APIC_REG.TDCR, 0)
    expect(bus.alarm).toBe(5_000)
    expect(passTime(lapic, bus, 9_000)).toEqual([5_000])
    expect(lapic.acknowledge()).toBe(0x40)
  })
})

describe("the periodic timer", () => {
  it("expires at each multiple of its period, which KVM keeps at 200 us or more", () => {
    fc.assert(
      fc.property(fc.constantFrom(...DIVIDERS), fc.integer({ min: 1, max: 400_000 }), (divider, count) => {
        const { lapic, bus } = timer(PERIODIC, divider[0])
        lapic.write(APIC_REG.TMICT, count)
        const period = Math.max(MIN_TIMER_PERIOD_NS, count * divider[1])
        expect(passTime(lapic, bus, 1_000 + period * 3)).toEqual([1, 2, 3].map((n) => 1_000 + n * period))
        expect(lapic.acknowledge()).toBe(0x40)
        expect(bus.raised).toBe(3)
        expect(lapic.read(APIC_REG.TMCCT)).toBe(Math.floor(period / divider[1]))
        passTime(lapic, bus, bus.time + 1_999)
        expect(lapic.read(APIC_REG.TMCCT)).toBe(Math.floor((period - 1_999) / divider[1]))
      })
    )
  })

  it("does not make up for missed periods", () => {
    const { lapic, bus } = timer(PERIODIC)
    lapic.write(APIC_REG.TMICT, 300_000)
    bus.time = 1_000_000
    expect(lapic.read(APIC_REG.TMCCT)).toBe(0)
    lapic.timerExpired()
    expect(bus.alarm).toBe(1_000_000)
    expect(passTime(lapic, bus, 1_500_000)).toEqual([1_000_000, 1_300_000])
  })

  it("takes over a one-shot count and gives it back", () => {
    const { lapic, bus } = timer(ONE_SHOT)
    lapic.write(APIC_REG.TMICT, 300_000)
    lapic.write(APIC_REG.LVTT, PERIODIC)
    expect(passTime(lapic, bus, 700_000)).toEqual([301_000, 601_000])
    lapic.write(APIC_REG.LVTT, ONE_SHOT)
    expect(passTime(lapic, bus, 2_000_000)).toEqual([901_000])
    lapic.write(APIC_REG.LVTT, PERIODIC)
    expect([bus.alarm, lapic.read(APIC_REG.TMCCT)]).toEqual([null, 0])
  })

  it("limits a short one-shot count that becomes periodic after its first expiry", () => {
    const { lapic, bus } = timer(ONE_SHOT)
    lapic.write(APIC_REG.TMICT, 100)
    lapic.write(APIC_REG.LVTT, PERIODIC)
    expect(passTime(lapic, bus, 250_000)).toEqual([1_100, 201_100])
  })

  it("shows no more than a period when a divider grew over a limited one", () => {
    const { lapic, bus } = timer(PERIODIC)
    lapic.write(APIC_REG.TMICT, 1)
    lapic.write(APIC_REG.TDCR, 10)
    expect(bus.alarm).toBe(1_000 + MIN_TIMER_PERIOD_NS * 128)
    bus.time += 1
    expect(lapic.read(APIC_REG.TMCCT)).toBe(Math.floor((MIN_TIMER_PERIOD_NS - 1) / 128))
  })
})

describe("the TSC-deadline timer", () => {
  it("expires at the deadline, once", () => {
    const { lapic, bus } = timer(TSC_DEADLINE)
    lapic.writeTscDeadline(5_000)
    expect([bus.alarm, lapic.readTscDeadline(), lapic.read(APIC_REG.TMCCT)]).toEqual([5_000, 5_000, 0])
    expect(passTime(lapic, bus, 4_999)).toEqual([])
    expect(lapic.highestPending()).toBe(-1)
    expect(passTime(lapic, bus, 9_000)).toEqual([5_000])
    expect([lapic.acknowledge(), lapic.readTscDeadline(), bus.alarm]).toEqual([0x40, 0, null])
  })

  it("interrupts at once for a deadline that has passed, and is disarmed by 0", () => {
    const { lapic, bus } = timer(TSC_DEADLINE)
    lapic.writeTscDeadline(1_000)
    expect([lapic.acknowledge(), lapic.readTscDeadline(), bus.alarm]).toEqual([0x40, 0, null])
    lapic.write(APIC_REG.EOI, 0)
    lapic.writeTscDeadline(2_000)
    lapic.writeTscDeadline(0)
    expect([lapic.highestPending(), lapic.readTscDeadline(), bus.alarm]).toEqual([-1, 0, null])
  })

  it("ignores TMICT, and others ignore the deadline", () => {
    const { lapic, bus } = timer(TSC_DEADLINE)
    lapic.write(APIC_REG.TMICT, 100)
    expect([bus.alarm, lapic.read(APIC_REG.TMICT)]).toEqual([null, 0])
    for (const mode of [ONE_SHOT, PERIODIC, RESERVED]) {
      const { lapic: other, bus: otherBus } = timer(mode)
      other.writeTscDeadline(500)
      other.writeTscDeadline(5_000)
      expect([otherBus.alarm, other.readTscDeadline(), other.highestPending()]).toEqual([null, 0, -1])
    }
  })

  it("stops when the mode changes, and so do the others", () => {
    const { lapic, bus } = timer(TSC_DEADLINE)
    lapic.writeTscDeadline(5_000)
    lapic.write(APIC_REG.TDCR, 0)
    expect(bus.alarm).toBe(5_000)
    lapic.write(APIC_REG.LVTT, ONE_SHOT)
    expect(bus.alarm).toBeNull()
    lapic.write(APIC_REG.TMICT, 100)
    expect(bus.alarm).toBe(1_200)
    lapic.write(APIC_REG.LVTT, TSC_DEADLINE)
    expect([bus.alarm, lapic.readTscDeadline(), lapic.read(APIC_REG.TMICT)]).toEqual([null, 0, 0])
  })

  it("is a one-shot timer after INIT", () => {
    const { lapic, bus } = timer(TSC_DEADLINE)
    lapic.writeTscDeadline(5_000)
    lapic.reset()
    expect(bus.alarm).toBeNull()
    lapic.write(APIC_REG.TMICT, 100)
    expect([bus.alarm, lapic.read(APIC_REG.TMCCT)]).toEqual([1_200, 100])
  })

  it("does nothing while hardware has the APIC disabled", () => {
    const { lapic, bus } = timer(TSC_DEADLINE)
    lapic.writeTscDeadline(5_000)
    lapic.writeApicBase(0xfee0_0000)
    lapic.writeTscDeadline(3_000)
    expect([lapic.readTscDeadline(), bus.alarm]).toEqual([0, 5_000])
    passTime(lapic, bus, 6_000)
    lapic.writeApicBase(0xfee0_0800)
    expect(lapic.highestPending()).toBe(-1)
  })
})

describe("the reserved mode", () => {
  it("starts nothing, and lets what runs end", () => {
    const { lapic, bus } = timer(RESERVED)
    lapic.write(APIC_REG.TMICT, 100)
    expect([bus.alarm, lapic.read(APIC_REG.TMICT), lapic.read(APIC_REG.TMCCT)]).toEqual([null, 100, 0])
    lapic.write(APIC_REG.LVTT, ONE_SHOT)
    lapic.write(APIC_REG.TMICT, 100)
    lapic.write(APIC_REG.LVTT, RESERVED)
    expect(passTime(lapic, bus, 5_000)).toEqual([1_100])
    expect(lapic.acknowledge()).toBe(0x40)
  })
})
