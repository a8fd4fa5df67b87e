// @section 1.2
/**
 * A bit field of the raw entry: bits `bit` to `bit + bits - 1` of the little-endian unit of `size` bytes that starts at
 * byte `offset` of the entry.
 */
export interface RmpEntryField<Name extends string = string> {
  readonly field: Name
  readonly offset: number
  readonly size: number
  readonly bit: number
  readonly bits: number
}

/** Bytes of one raw entry. */
export const RMP_ENTRY_SIZE = 16

const LOW = [
  ["assigned", 0, 1],
  ["page_size", 1, 1],
  ["immutable", 2, 1],
  ["subpage_count", 3, 9],
  ["gpa", 12, 39],
  ["asid", 51, 10],
  ["vmsa", 61, 1],
  ["validated", 62, 1],
  ["lock", 63, 1]
] as const

/** Above the masks. */
const HIGH = [
  ["implicit_key_select", 32, 1],
  ["root_port_id", 49, 5],
  ["pcie_ide_stream_id", 54, 8],
  ["page_migration", 62, 2]
] as const

const MASKS = ["permissions_0", "permissions_1", "permissions_2", "permissions_3"] as const

type FieldName = (typeof LOW)[number][0] | (typeof HIGH)[number][0] | (typeof MASKS)[number]

const quadword = <const Name extends FieldName>(
  offset: number,
  rows: ReadonlyArray<readonly [Name, number, number]>
): ReadonlyArray<RmpEntryField<Name>> => rows.map(([field, bit, bits]) => ({ field, offset, size: 8, bit, bits }))

/**
 * The 16-byte entry as Zen 3 and Zen 4 keep it in memory. Not architectural: software should use RMPREAD, but the AMD-SP
 * and Linux know it. `gpa` holds the guest frame number, GPA >> 12; each permission mask is one byte of the upper half.
 * @spec SNP-ABI "RMP entry", as AMD's published firmware has it
 */
export const RMP_ENTRY_FIELDS: ReadonlyArray<RmpEntryField<FieldName>> = [
  ...quadword(0, LOW),
  ...MASKS.map((field, vmpl) => ({ field, offset: 8 + vmpl, size: 1, bit: 0, bits: 8 })),
  ...quadword(8, HIGH)
]

/** The bit fields of the raw entry by name, for code: `RMP_ENTRY.asid.bit` is 51. */
export const RMP_ENTRY = Object.fromEntries(RMP_ENTRY_FIELDS.map((one) => [one.field, one])) as {
  readonly [K in FieldName]: RmpEntryField<K>
}

/** One field of the structure that RMPUPDATE reads and RMPREAD writes; bits above `bits` are reserved. */
export interface RmpStructField<Name extends string = string> {
  readonly field: Name
  readonly offset: number
  readonly size: number
  readonly bit?: number
  readonly bits?: number
}

/**
 * The 16 bytes at RCX of RMPUPDATE and RMPREAD. `region_status` is RMPREAD's alone.
 * @spec APM3 RMPUPDATE, RMPREAD
 */
export const RMP_STRUCT_FIELDS = [
  { field: "gpa", offset: 0x0, size: 8 },
  { field: "assigned", offset: 0x8, size: 1, bit: 0, bits: 1 },
  { field: "page_size", offset: 0x9, size: 1, bit: 0, bits: 1 },
  { field: "region_status", offset: 0x9, size: 1, bit: 1, bits: 1 },
  { field: "immutable", offset: 0xa, size: 1, bit: 0, bits: 1 },
  { field: "asid", offset: 0xc, size: 4 }
] as const satisfies ReadonlyArray<RmpStructField>
