import { describe, expect, it } from "vitest"
import { RMP_ENTRY, RMP_ENTRY_FIELDS, RMP_ENTRY_SIZE, RMP_STRUCT_FIELDS } from "../src/index.ts"

/** Lowest bit of the 128, and width. */
const PUBLISHED: { readonly [field: string]: readonly [bit: number, bits: number] } = {
  assigned: [0, 1],
  page_size: [1, 1],
  immutable: [2, 1],
  subpage_count: [3, 9],
  gpa: [12, 39],
  asid: [51, 10],
  vmsa: [61, 1],
  validated: [62, 1],
  lock: [63, 1],
  permissions_0: [64, 8],
  permissions_1: [72, 8],
  permissions_2: [80, 8],
  permissions_3: [88, 8],
  implicit_key_select: [96, 1],
  root_port_id: [113, 5],
  pcie_ide_stream_id: [118, 8],
  page_migration: [126, 2]
}

describe("the raw entry", () => {
  it("has every field at its published bits, and no other", () => {
    const fields = RMP_ENTRY_FIELDS.map(({ field, offset, bit, bits }) => [field, [offset * 8 + bit, bits]])
    expect(Object.fromEntries(fields)).toEqual(PUBLISHED)
    expect(fields).toHaveLength(Object.keys(PUBLISHED).length)
  })

  it("is 16 bytes: low quadword full, 16 reserved bits in the high one, no bit in two fields", () => {
    expect(RMP_ENTRY_SIZE).toBe(16)
    const used = new Uint8Array(RMP_ENTRY_SIZE * 8)
    for (const { offset, size, bit, bits } of RMP_ENTRY_FIELDS) {
      expect(bit + bits).toBeLessThanOrEqual(size * 8)
      for (let i = 0; i < bits; i++) used[offset * 8 + bit + i]! += 1
    }
    expect(Math.max(...used)).toBe(1)
    const free = [...used.keys()].filter((bit) => used[bit] === 0)
    // Bits 48:33 of the high quadword are reserved.
    expect(free).toEqual(Array.from({ length: 16 }, (_, index) => 64 + 33 + index))
  })

  it("gives code the same fields by name", () => {
    expect(Object.values(RMP_ENTRY)).toEqual(RMP_ENTRY_FIELDS)
    expect(RMP_ENTRY.asid).toEqual({ field: "asid", offset: 0, size: 8, bit: 51, bits: 10 })
  })
})

describe("the structure of RMPUPDATE and RMPREAD", () => {
  it("has every field at its published place, and no other", () => {
    expect(RMP_STRUCT_FIELDS).toEqual([
      { field: "gpa", offset: 0, size: 8 },
      { field: "assigned", offset: 8, size: 1, bit: 0, bits: 1 },
      { field: "page_size", offset: 9, size: 1, bit: 0, bits: 1 },
      { field: "region_status", offset: 9, size: 1, bit: 1, bits: 1 },
      { field: "immutable", offset: 10, size: 1, bit: 0, bits: 1 },
      { field: "asid", offset: 12, size: 4 }
    ])
  })
})
