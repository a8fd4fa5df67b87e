import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type ApicMessage, decodeMsi, encodeMsi } from "../../src/index.ts"
import { message } from "./support.ts"

describe("an MSI", () => {
  it.each([
    // Address, data, message: as Linux composes them for fixed, lowest priority, NMI and level.
    [0xfee0_0000, 0, 0x0000_0023, { vector: 0x23 }],
    [0xfee0_5000, 0, 0x0000_4023, { vector: 0x23, destination: 5 }],
    [0xfeef_f004, 0, 0x0000_0041, { vector: 0x41, destination: 0xff, logical: true }],
    [0xfee0_300c, 0, 0x0000_0141, { vector: 0x41, destination: 3, logical: true, deliveryMode: 1 }],
    [0xfee0_3008, 0, 0x0000_0041, { vector: 0x41, destination: 3, deliveryMode: 1 }],
    [0xfee0_3008, 0, 0x0000_0441, { vector: 0x41, destination: 3, deliveryMode: 4 }],
    [0xfee0_1000, 0, 0x0000_c051, { vector: 0x51, destination: 1, levelTriggered: true }],
    [0xfee0_1000, 0, 0x0000_8051, { vector: 0x51, destination: 1, levelTriggered: true }],
    [0xfee1_2000, 0x0001_0000, 0x0000_0051, { vector: 0x51, destination: 0x1_0012, x2apic: true }],
    [0xfeef_f000, 0xffff_ff00, 0x0000_0051, { vector: 0x51, destination: 0xffff_ffff, x2apic: true }],
    [0xfee1_2000, 0x0000_00ff, 0x0000_0051, { vector: 0x51, destination: 0x12 }]
  ] as const)("at %i, %i with %i is its message", (lo, hi, data, fields) => {
    expect(decodeMsi(lo, hi, data)).toEqual(message(fields))
  })

  it("is composed and taken apart alike", () => {
    const fields = fc.record({
      destination: fc.oneof(fc.nat(0xff), fc.nat(0xffff_ffff)),
      logical: fc.boolean(),
      deliveryMode: fc.nat(7),
      vector: fc.nat(255),
      levelTriggered: fc.boolean()
    })
    fc.assert(
      fc.property(fields, (partial) => {
        const m: ApicMessage = message({ ...partial, x2apic: partial.destination > 0xff })
        const { addressLo, addressHi, data } = encodeMsi(m)
        expect(decodeMsi(addressLo, addressHi, data)).toEqual(m)
        expect(addressLo >>> 20).toBe(0xfee)
        expect((addressLo & 8) !== 0).toBe(m.deliveryMode === 1)
        expect(data & 0x4000).toBe(0x4000)
        expect(encodeMsi({ ...m, assert: false }).data & 0x4000).toBe(0)
      })
    )
  })
})
