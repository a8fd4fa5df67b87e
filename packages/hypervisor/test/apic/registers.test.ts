import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { APIC_REG, decodeIcr, encodeIcr, Lapic, x2apicLdr, x2apicMsr, x2apicRegister } from "../../src/index.ts"
import { enabledLapic, message, TestBus } from "./support.ts"

const ALL_ONES = 0xffff_ffff
const vectors = (base: number) => Array.from({ length: 8 }, (_, i) => base + i * 16)
const READ_ONLY = [0x30, 0x90, 0xa0, ...vectors(0x100), ...vectors(0x180), ...vectors(0x200), 0x390]

/** Register, value after INIT of an AP, what is read after all ones were written, and after zero. */
const WRITABLE: ReadonlyArray<readonly [string, number, number, number, number]> = [
  ["ID", 0x20, 0x0500_0000, 0xff00_0000, 0],
  ["TPR", 0x80, 0, 0xff, 0],
  ["LDR", 0xd0, 0, 0xff00_0000, 0],
  ["DFR", 0xe0, 0xffff_ffff, 0xffff_ffff, 0x0fff_ffff],
  ["SPIV", 0xf0, 0xff, 0x3ff, 0],
  ["ICR", 0x300, 0, 0xffff_efff, 0],
  ["ICR2", 0x310, 0, 0xff00_0000, 0],
  ["LVTT", 0x320, 0x1_0000, 0x7_10ff, 0],
  ["LVTTHMR", 0x330, 0x1_0000, 0x1_17ff, 0],
  ["LVTPC", 0x340, 0x1_0000, 0x1_17ff, 0],
  ["LVT0", 0x350, 0x1_0000, 0x1_f7ff, 0],
  ["LVT1", 0x360, 0x1_0000, 0x1_f7ff, 0],
  ["LVTERR", 0x370, 0x1_0000, 0x1_10ff, 0],
  ["TMICT", 0x380, 0, 0xffff_ffff, 0],
  ["TDCR", 0x3e0, 0, 0xb, 0]
]

describe("the registers in xAPIC mode", () => {
  it.each(WRITABLE)("%s holds its bits", (_, register, reset, ones, zero) => {
    const lapic = new Lapic(5, new TestBus(), false)
    expect(lapic.read(register)).toBe(reset)
    const { lapic: enabled } = enabledLapic(5)
    enabled.write(register, ALL_ONES)
    expect(enabled.read(register)).toBe(ones)
    enabled.write(register, 0)
    expect(enabled.read(register)).toBe(zero)
  })

  it("are read-only where the manual says so", () => {
    for (const register of READ_ONLY) {
      const { lapic } = enabledLapic()
      const before = lapic.read(register)
      lapic.write(register, ALL_ONES)
      expect(lapic.read(register)).toBe(before)
      lapic.write(APIC_REG.ESR, 0)
      expect(lapic.read(APIC_REG.ESR)).toBe(0)
    }
    expect(enabledLapic().lapic.read(APIC_REG.LVR)).toBe(0x0005_0014)
  })

  it("are no others, which ESR tells after it was written", () => {
    const there = new Set([...READ_ONLY, ...WRITABLE.map(([, register]) => register), APIC_REG.EOI, APIC_REG.ESR])
    for (let offset = 0; offset < 0x1000; offset += 4) {
      for (const access of ["read", "write"]) {
        const { lapic } = enabledLapic()
        if (access === "write") lapic.write(offset, 0)
        else expect(lapic.read(offset) === null).toBe(!there.has(offset) || offset === APIC_REG.EOI)
        expect(lapic.read(APIC_REG.ESR)).toBe(0)
        lapic.write(APIC_REG.ESR, ALL_ONES)
        // A zero in ICR is an IPI with an illegal vector: bit 5.
        expect(lapic.read(APIC_REG.ESR)! & 0x80).toBe(there.has(offset) ? 0 : 0x80)
        lapic.write(APIC_REG.ESR, 0)
        expect(lapic.read(APIC_REG.ESR)).toBe(0)
      }
    }
  })

  it("mask the LVT for as long as software has the APIC disabled", () => {
    const { lapic } = enabledLapic()
    lapic.write(APIC_REG.LVTT, 0x31)
    expect(lapic.read(APIC_REG.LVTT)).toBe(0x31)
    lapic.write(APIC_REG.SPIV, 0xff)
    for (const register of [0x320, 0x330, 0x340, 0x350, 0x360, 0x370]) {
      expect(lapic.read(register)! & 0x1_0000).toBe(0x1_0000)
      lapic.write(register, 0x31)
      expect(lapic.read(register)).toBe(0x1_0031)
    }
    lapic.write(APIC_REG.SPIV, 0x1ff)
    expect(lapic.read(APIC_REG.LVTT)).toBe(0x1_0031)
  })

  it("are gone in x2APIC mode and while hardware has the APIC disabled", () => {
    for (const base of [0xfee0_0c00, 0xfee0_0000]) {
      const { lapic } = enabledLapic()
      expect(lapic.writeApicBase(base)).toBe(true)
      expect(lapic.read(APIC_REG.TPR)).toBe(ALL_ONES)
      lapic.write(APIC_REG.TPR, 0x20)
      expect(lapic.getTpr()).toBe(0)
    }
  })
})

describe("the registers in x2APIC mode", () => {
  const MSR_READABLE = [
    0x20,
    0x30,
    0x80,
    0xa0,
    0xd0,
    0xf0,
    ...vectors(0x100),
    ...vectors(0x180),
    ...vectors(0x200),
    0x280,
    0x300,
    0x320,
    0x330,
    0x340,
    0x350,
    0x360,
    0x370,
    0x380,
    0x390,
    0x3e0
  ]
  const MSR_WRITABLE = [0x80, 0xb0, 0xf0, 0x280, 0x300, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0, 0x3f0]

  it("have an MSR each", () => {
    expect(x2apicMsr(APIC_REG.ID)).toBe(0x802)
    expect(x2apicMsr(APIC_REG.ICR)).toBe(0x830)
    expect(x2apicMsr(APIC_REG.SELF_IPI)).toBe(0x83f)
    for (const register of Object.values(APIC_REG)) expect(x2apicRegister(x2apicMsr(register))).toBe(register)
  })

  it("can be read and written where KVM lets them, and #GP elsewhere", () => {
    for (let msr = 0x7f0; msr < 0x910; msr++) {
      const { lapic } = enabledLapic(0, true)
      const register = (msr - 0x800) * 16
      expect(lapic.readMsr(msr) !== null).toBe(MSR_READABLE.includes(register))
      expect(lapic.writeMsr(msr, 0, 0)).toBe(MSR_WRITABLE.includes(register))
      expect(lapic.writeMsr(msr, 0, 1)).toBe(register === APIC_REG.ICR)
    }
  })

  it("do not exist in xAPIC mode or disabled", () => {
    const { lapic } = enabledLapic()
    expect(lapic.readMsr(0x802)).toBeNull()
    expect(lapic.writeMsr(0x808, 0, 0)).toBe(false)
    lapic.writeApicBase(0xfee0_0000)
    expect(lapic.readMsr(0x802)).toBeNull()
    expect(lapic.writeMsr(0x808, 0, 0)).toBe(false)
  })

  it("refuse the reserved bits of ICR, ESR and SELF_IPI", () => {
    const { lapic, bus } = enabledLapic(0, true)
    for (let bit = 0; bit < 32; bit++) {
      const reserved = bit === 13 || bit === 16 || bit === 17 || bit >= 20
      expect(lapic.writeMsr(0x830, 0x40 | (1 << bit), 0)).toBe(!reserved)
      expect(lapic.writeMsr(0x83f, 1 << bit, 0)).toBe(bit < 8)
      expect(lapic.writeMsr(0x828, 1 << bit, 0)).toBe(false)
    }
    // 20 good bits less the three of ICR, and 8 of SELF_IPI.
    expect(bus.sent.length).toBe(17 + 8)
  })

  it("keep the ICR as 64 bits, without the delivery status", () => {
    const { lapic, bus } = enabledLapic(0, true)
    expect(lapic.writeMsr(0x830, 0x5841, 0x8000_0001)).toBe(true)
    expect(lapic.readMsr(0x830)).toEqual({ lo: 0x4841, hi: 0x8000_0001 })
    expect(bus.sent).toEqual([
      message({ destination: 0x8000_0001, logical: true, vector: 0x41, sender: 0, x2apic: true })
    ])
  })

  it("derive ID and LDR from the APIC ID", () => {
    for (const [id, ldr] of [
      [0, 0x0000_0001],
      [15, 0x0000_8000],
      [16, 0x0001_0001],
      [0x123, 0x0012_0008],
      [0xf_fff5, 0xffff_0020]
    ] as const) {
      const { lapic } = enabledLapic(id, true)
      expect(lapic.readMsr(0x802)).toEqual({ lo: id, hi: 0 })
      expect(lapic.readMsr(0x80d)).toEqual({ lo: ldr, hi: 0 })
      expect(x2apicLdr(id)).toBe(ldr)
      lapic.reset()
      expect(lapic.x2apic).toBe(true)
      expect(lapic.readMsr(0x802)).toEqual({ lo: id, hi: 0 })
      expect(lapic.readMsr(0x80d)).toEqual({ lo: ldr, hi: 0 })
    }
  })
})

describe("APIC_BASE", () => {
  const MODES = { disabled: 0xfee0_0000, xapic: 0xfee0_0800, x2apic: 0xfee0_0c00, invalid: 0xfee0_0400 }
  const inMode = (mode: keyof typeof MODES): Lapic => {
    const { lapic } = enabledLapic(3, mode === "x2apic")
    lapic.writeApicBase(MODES[mode])
    return lapic
  }

  it.each([
    ["disabled", ["disabled", "xapic"]],
    ["xapic", ["disabled", "xapic", "x2apic"]],
    ["x2apic", ["disabled", "x2apic"]]
  ] as const)("goes from %s to %s only", (from, to) => {
    for (const mode of ["disabled", "xapic", "x2apic", "invalid"] as const) {
      const lapic = inMode(from)
      expect(lapic.readApicBase()).toBe(MODES[from])
      const legal = (to as ReadonlyArray<string>).includes(mode)
      expect(lapic.writeApicBase(MODES[mode])).toBe(legal)
      const now = legal ? mode : from
      expect(lapic.readApicBase()).toBe(MODES[now])
      expect([lapic.enabled, lapic.x2apic]).toEqual([now !== "disabled", now === "x2apic"])
    }
  })

  it("names the boot processor, and refuses reserved bits", () => {
    const boot = new Lapic(0, new TestBus(), true)
    expect(boot.readApicBase()).toBe(0xfee0_0900)
    expect(boot.read(APIC_REG.LVT0)).toBe(0x700)
    expect(new Lapic(1, new TestBus(), false).readApicBase()).toBe(0xfee0_0800)
    for (let bit = 0; bit < 12; bit++) {
      if (bit === 8 || bit === 10 || bit === 11) continue
      expect(boot.writeApicBase((0xfee0_0900 | (1 << bit)) >>> 0)).toBe(false)
    }
    expect(boot.writeApicBase(0xfed0_0900)).toBe(true)
    expect(boot.readApicBase()).toBe(0xfed0_0900)
  })

  it("gives the ID back on the way from disabled to xAPIC, and a pending interrupt is looked at again", () => {
    const { lapic, bus } = enabledLapic(3)
    lapic.write(APIC_REG.ID, 0x0900_0000)
    lapic.accept(message())
    expect(bus.raised).toBe(1)
    lapic.writeApicBase(MODES.disabled)
    expect([lapic.highestPending(), lapic.acknowledge()]).toEqual([-1, -1])
    expect(lapic.accept(message({ deliveryMode: 4 }))).toBe(false)
    lapic.writeApicBase(MODES.xapic)
    expect(lapic.read(APIC_REG.ID)).toBe(0x0300_0000)
    expect([lapic.highestPending(), bus.raised]).toEqual([0x40, 2])
    lapic.writeApicBase(MODES.disabled)
    lapic.setTpr(0x40)
    lapic.writeApicBase(MODES.xapic)
    expect(bus.raised).toBe(2)
  })
})

describe("ICR", () => {
  const fields = fc.record({
    destination: fc.nat(0xff),
    logical: fc.boolean(),
    shorthand: fc.constantFrom(0, 1, 2, 3),
    deliveryMode: fc.nat(7),
    vector: fc.nat(255),
    levelTriggered: fc.boolean(),
    assert: fc.boolean(),
    sender: fc.nat(255),
    x2apic: fc.constant(false)
  })
  const wide = fc.tuple(fields, fc.nat(0xffff_ffff)).map(([m, destination]) => ({ ...m, destination, x2apic: true }))

  it("is composed and taken apart alike", () => {
    fc.assert(
      fc.property(fc.oneof(fields, wide), (m) => {
        const { lo, hi } = encodeIcr(m as ReturnType<typeof message>)
        expect(decodeIcr(lo, hi, m.sender, m.x2apic)).toEqual(m)
        expect(lo & 0xfff3_3000).toBe(0)
      })
    )
  })

  it.each([
    // What Linux writes: INIT assert and deassert, SIPI at 0x9a000, NMI to all but self.
    [0x0000_c500, 0x0500_0000, { destination: 5, deliveryMode: 5, vector: 0, levelTriggered: true, assert: true }],
    [0x0000_8500, 0x0500_0000, { destination: 5, deliveryMode: 5, vector: 0, levelTriggered: true, assert: false }],
    [0x0000_069a, 0xff00_0000, { destination: 255, deliveryMode: 6, vector: 0x9a, assert: false }],
    [0x000c_0c00, 0, { shorthand: 3, logical: true, deliveryMode: 4, vector: 0, assert: false }],
    [0x0004_00f6, 0, { shorthand: 1, vector: 0xf6, assert: false }]
  ] as const)("%i reads as Linux means it", (lo, hi, expected) => {
    expect(decodeIcr(lo, hi, 2, false)).toEqual(message({ ...expected, sender: 2 }))
    const { lapic, bus } = enabledLapic(2)
    lapic.write(APIC_REG.ICR2, hi)
    expect(bus.sent).toEqual([])
    lapic.write(APIC_REG.ICR, lo)
    expect(bus.sent).toEqual([message({ ...expected, sender: 2 })])
    expect(encodeIcr(bus.sent[0]!)).toEqual({ lo, hi })
  })

  it("sends SELF_IPI to itself", () => {
    const { lapic, bus } = enabledLapic(2, true)
    expect(lapic.writeMsr(0x83f, 0x55, 0)).toBe(true)
    expect(bus.sent).toEqual([message({ shorthand: 1, vector: 0x55, assert: false, sender: 2, x2apic: true })])
    expect(lapic.matches(bus.sent[0]!)).toBe(true)
    expect(lapic.accept(bus.sent[0]!)).toBe(true)
    expect(lapic.highestPending()).toBe(0x55)
    expect(lapic.readMsr(0x830)).toEqual({ lo: 0, hi: 0 })
  })
})

describe("hostile accesses", () => {
  it("never throw, and leave values that fit their registers", () => {
    const value = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(-1, 0x8000_0000, 2 ** 40 + 1))
    const offset = fc.oneof(
      fc.nat(0x1100),
      fc.nat(0x3f).map((i) => i * 16)
    )
    const access = fc.oneof(
      fc.tuple(fc.constant("write"), offset, value, value),
      fc.tuple(
        fc.constant("wrmsr"),
        fc.oneof(
          fc.nat(0x3f).map((i) => 0x800 + i),
          fc.nat()
        ),
        value,
        value
      ),
      fc.tuple(fc.constant("base"), fc.constantFrom(0xfee0_0000, 0xfee0_0800, 0xfee0_0c00, 7), value, value),
      fc.tuple(fc.constantFrom("accept", "ack", "time", "deadline", "reset"), offset, value, value)
    )
    fc.assert(
      fc.property(fc.array(access, { maxLength: 200, size: "max" }), (accesses) => {
        const { lapic, bus } = enabledLapic(1)
        for (const [kind, where, lo, hi] of accesses) {
          if (kind === "write") lapic.write(where, lo)
          if (kind === "wrmsr") lapic.writeMsr(where, lo, hi)
          if (kind === "base") lapic.writeApicBase(where)
          if (kind === "accept") lapic.accept(decodeIcr(lo, hi, 0, false))
          if (kind === "ack") lapic.acknowledge()
          if (kind === "deadline") lapic.writeTscDeadline(Math.abs(lo))
          if (kind === "reset" && lo % 4 === 0) lapic.reset()
          if (kind === "time") {
            bus.time += where * 1000
            lapic.timerExpired()
          }
          for (let register = 0; register < 0x400; register += 16) {
            const seen = lapic.x2apic ? (lapic.readMsr(x2apicMsr(register))?.lo ?? 0) : (lapic.read(register) ?? 0)
            if (seen !== seen >>> 0) expect(seen).toBe(seen >>> 0)
          }
          if (bus.alarm !== null) expect(Number.isSafeInteger(bus.alarm)).toBe(true)
        }
      })
    )
  })
})
