import { describe, expect, it } from "vitest"
import { pvalidateCapacity, pvalidateList } from "../src/index.ts"

const bytes = (text: string): ReadonlyArray<number> => text.split(/\s+/).map((byte) => Number.parseInt(byte, 16))

describe("a PVALIDATE list", () => {
  it("is count, next, a reserved word, and 8 bytes for each page", () => {
    const entries = [
      { gpa: 0x8000, validate: true },
      { gpa: 0x1234_5000, validate: false },
      { gpa: 0xabcd_e1234000, validate: true }
    ]
    expect([...pvalidateList(entries)]).toEqual(
      bytes(`03 00 00 00 00 00 00 00
             04 80 00 00 00 00 00 00
             00 50 34 12 00 00 00 00
             04 40 23 e1 cd ab 00 00`)
    )
  })

  it("has the top bits of a 52-bit address, and of one right at 2 GiB and 4 GiB", () => {
    const at = (gpa: number): ReadonlyArray<number> => [...pvalidateList([{ gpa, validate: true }])].slice(8)
    expect(at(2 ** 52 - 4096)).toEqual(bytes("04 f0 ff ff ff ff 0f 00"))
    expect(at(0x8000_0000)).toEqual(bytes("04 00 00 80 00 00 00 00"))
    expect(at(0x1_0000_0000)).toEqual(bytes("04 00 00 00 01 00 00 00"))
    expect(at(0xffff_f000)).toEqual(bytes("04 f0 ff ff 00 00 00 00"))
  })

  it("counts in 16 bits, little-endian", () => {
    const list = pvalidateList(Array.from({ length: 510 }, () => ({ gpa: 0, validate: true })))
    expect([...list.slice(0, 8)]).toEqual(bytes("fe 01 00 00 00 00 00 00"))
    expect(list).toHaveLength(8 + 510 * 8)
  })

  it.each([
    [0, 511],
    [8, 510],
    [16, 509],
    [4080, 1],
    [4088, 0]
  ])("behind offset %i of its page has room for %i entries", (offset, entries) => {
    expect(pvalidateCapacity(offset)).toBe(entries)
  })
})
