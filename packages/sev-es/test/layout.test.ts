// @section 4.3
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  CPUID_COUNT_MAX,
  CPUID_FUNCTION,
  CPUID_FUNCTION_BASE,
  CPUID_FUNCTION_FIELDS,
  CPUID_FUNCTION_SIZE,
  CPUID_PAGE,
  CPUID_PAGE_FIELDS,
  type Field,
  GHCB,
  GHCB_FIELDS,
  layout,
  offsetsOf,
  SECRETS,
  SECRETS_FIELDS,
  VMCB,
  VMCB_FIELDS,
  VMCB_SAVE,
  VMCB_SAVE_AREA,
  VMCB_SAVE_FIELDS,
  VMSA,
  VMSA_FIELDS,
  VMSA_STATE_SIZE,
  validByte,
  validMask
} from "../src/index.ts"
import {
  CPUID_FUNCTION_PUBLISHED,
  CPUID_PAGE_PUBLISHED,
  GHCB_PUBLISHED,
  SECRETS_PUBLISHED,
  VALID_BITS,
  VMCB_PUBLISHED,
  VMCB_SAVE_PUBLISHED,
  VMSA_PUBLISHED
} from "./published.ts"

const rowsOf = (fields: ReadonlyArray<Field>) => fields.map(({ field, offset, size }) => [field, offset, size])

describe.each([
  ["VMSA", VMSA_FIELDS, VMSA, VMSA_PUBLISHED],
  ["VMCB", VMCB_FIELDS, VMCB, VMCB_PUBLISHED],
  [
    "VMCB's save area",
    VMCB_SAVE_FIELDS,
    VMCB_SAVE,
    VMCB_SAVE_PUBLISHED.map(([name, offset, size]) => [name, 0x400 + offset, size] as const)
  ],
  ["GHCB", GHCB_FIELDS, GHCB, GHCB_PUBLISHED],
  ["secrets page", SECRETS_FIELDS, SECRETS, SECRETS_PUBLISHED],
  ["CPUID page's header", CPUID_PAGE_FIELDS, CPUID_PAGE, CPUID_PAGE_PUBLISHED],
  ["CPUID page's function", CPUID_FUNCTION_FIELDS, CPUID_FUNCTION, CPUID_FUNCTION_PUBLISHED]
] as const)("the %s", (_, fields, offsets, published) => {
  it("has every field at its published offset with its published size, and no other", () => {
    expect(rowsOf(fields)).toEqual(published)
  })

  it("gives code the same offsets by name", () => {
    expect(offsets).toEqual(Object.fromEntries(published.map(([name, offset]) => [name, offset])))
  })
})

describe("the CPUID page", () => {
  it("is a header of 16 bytes and up to 64 functions of 48 bytes", () => {
    expect([CPUID_FUNCTION_BASE, CPUID_FUNCTION_SIZE, CPUID_COUNT_MAX]).toEqual([16, 48, 64])
    for (const [fields, end] of [
      [CPUID_PAGE_FIELDS, CPUID_FUNCTION_BASE],
      [CPUID_FUNCTION_FIELDS, CPUID_FUNCTION_SIZE]
    ] as const) {
      expect(fields.at(-1)!.offset + fields.at(-1)!.size).toBe(end)
    }
  })
})

describe("the size of each page", () => {
  const end = (fields: ReadonlyArray<Field>): number => Math.max(...fields.map(({ offset, size }) => offset + size))

  it.each([
    ["VMSA", VMSA_FIELDS, 0xfc0],
    ["VMCB control area", VMCB_FIELDS, 0x400],
    ["VMCB save area", VMCB_SAVE_FIELDS, 0x400 + 0x7c8],
    ["GHCB", GHCB_FIELDS, 0x1000],
    ["secrets page, as far as it is named", SECRETS_FIELDS, 0x164]
  ] as const)("the %s ends where its last field does", (_, fields, size) => {
    expect(end(fields)).toBe(size)
  })

  it("puts the VMCB's save area right behind its control area", () => {
    expect(VMCB_SAVE_AREA).toBe(end(VMCB_FIELDS))
    expect(VMCB_SAVE_FIELDS[0]).toEqual({ field: "es", offset: VMCB_SAVE_AREA, size: 16 })
  })

  it("has the VMSA's registers where the VMCB's save area has them", () => {
    const vmsa = new Map<string, Field>(VMSA_FIELDS.map((field) => [field.field, field]))
    for (const { field, offset, size } of VMCB_SAVE_FIELDS) {
      expect(vmsa.get(field)).toEqual({ field, offset: offset - VMCB_SAVE_AREA, size })
    }
  })
})

describe("the saved state", () => {
  it("is 1648 bytes, up to the end of the YMM image", () => {
    expect(VMSA_STATE_SIZE).toBe(1648)
    const ymm = VMSA_FIELDS.find(({ field }) => field === "fpreg_ymm")!
    expect(ymm.offset + ymm.size).toBe(VMSA_STATE_SIZE)
  })
})

describe("the GHCB's valid bitmap", () => {
  it.each(Object.entries(VALID_BITS))("has %s at bit %i", (name, bit) => {
    const offset = GHCB[name as keyof typeof VALID_BITS]
    expect(validByte(offset)).toBe(0x3f0 + Math.floor(bit / 8))
    expect(validMask(offset)).toBe(2 ** (bit % 8))
  })

  it("names the exit code's bit as byte 0x3fe, mask 4", () => {
    expect([validByte(0x390), validMask(0x390)]).toEqual([0x3fe, 4])
  })

  it("has one bit for each quadword of the first 1024 bytes", () => {
    const seen = new Set<number>()
    for (let offset = 0; offset < 1024; offset += 8) {
      expect(validByte(offset + 7)).toBe(validByte(offset))
      expect(validMask(offset + 7)).toBe(validMask(offset))
      seen.add(validByte(offset) * 256 + validMask(offset))
    }
    expect(seen.size).toBe(128)
  })
})

describe("a table of fields", () => {
  it.each([
    ["two fields that share a byte", [["a", 0, 8] as const, ["b", 7, 1] as const], "b at 0x7"],
    ["two fields at one offset", [["a", 16, 4] as const, ["b", 16, 4] as const], "b at 0x10"],
    ["an overlap in whatever order", [["b", 4, 4] as const, ["a", 0, 5] as const], "b at 0x4"],
    ["a field that leaves the page", [["a", 4092, 8] as const], "a at 0xffc"],
    ["a field beyond the page", [["a", 4096, 1] as const], "a at 0x1000"],
    ["a field of no bytes", [["a", 0, 0] as const], "a at 0x0"]
  ])("refuses %s", (_, rows, where) => {
    expect(() => layout(rows)).toThrow(`layout: ${where} overlaps its neighbour or leaves the page`)
  })

  it("takes fields that touch each other and the page's end, and orders them by offset", () => {
    const fields = layout([
      ["end", 4095, 1],
      ["b", 8, 4087],
      ["a", 0, 8]
    ])
    expect(fields.map(({ field }) => field)).toEqual(["a", "b", "end"])
    expect(offsetsOf(fields)).toEqual({ a: 0, b: 8, end: 4095 })
  })

  it("accepts a random table exactly when no two fields overlap inside the page", () => {
    const row = fc.tuple(fc.integer({ min: 0, max: 4100 }), fc.integer({ min: 1, max: 600 }))
    fc.assert(
      fc.property(fc.array(row, { maxLength: 6 }), (rows) => {
        const used = new Uint8Array(8192)
        for (const [offset, size] of rows) for (let i = 0; i < size; i++) used[offset + i]! += 1
        const legal = used.every((count, at) => count === 0 || (count === 1 && at < 4096))
        const build = () => layout(rows.map(([offset, size], index) => [`f${index}`, offset, size] as const))
        if (legal) expect(build()).toHaveLength(rows.length)
        else expect(build).toThrow("layout:")
      }),
      { seed: 20260811, numRuns: 500 }
    )
  })
})
