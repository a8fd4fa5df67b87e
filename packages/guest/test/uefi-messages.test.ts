import {
  ACCESS_VARIABLE,
  ACCESS_VARIABLE_FIELDS,
  AUTHENTICATION_2,
  AUTHENTICATION_2_FIELDS,
  EFI_STATUS,
  EFI_TIME_FIELDS,
  efiStatusOf,
  getVariableMessage,
  LOCK_ON_STATE,
  LOCK_ON_STATE_FIELDS,
  MM_HEADER,
  MM_HEADER_FIELDS,
  NEXT_NAME,
  NEXT_NAME_FIELDS,
  NO_STATUS,
  nameBytes,
  nameIn,
  nextNameMessage,
  POLICY_DUMP_FIELDS,
  POLICY_ENTRY_FIELDS,
  POLICY_HEADER_FIELDS,
  QUERY_INFO,
  QUERY_INFO_FIELDS,
  RUNTIME_CACHE_INFO,
  RUNTIME_CACHE_INFO_FIELDS,
  registerPolicyMessage,
  setEfiStatus,
  setVariableMessage,
  VARIABLE_HEADER_FIELDS,
  VARIABLE_PROPERTY,
  VARIABLE_PROPERTY_FIELDS
} from "@vmpl-lab/guest"
import type { Field } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"

/** Size and alignment of EDK2's types on x86-64. */
const TYPE = {
  UINT8: [1, 1],
  UINT16: [2, 2],
  INT16: [2, 2],
  UINT32: [4, 4],
  UINT64: [8, 8],
  UINTN: [8, 8],
  EFI_STATUS: [8, 8],
  BOOLEAN: [1, 1],
  /** UINT32, two UINT16, eight UINT8. */
  EFI_GUID: [16, 4],
  EFI_TIME: [16, 4]
} as const
type Declared = readonly [field: string, type: keyof typeof TYPE]

/** Fields as a C compiler places them. */
const placed = (declared: ReadonlyArray<Declared>, isPacked = false): ReadonlyArray<Field> => {
  let at = 0
  return declared.map(([field, type]) => {
    const [size, align] = TYPE[type]
    if (!isPacked) at = Math.ceil(at / align) * align
    const offset = at
    at += size
    return { field, offset, size }
  })
}
const endOf = (fields: ReadonlyArray<Field>): number => Math.max(...fields.map(({ offset, size }) => offset + size))

describe("structures are where EDK2's compilers put them", () => {
  it.each<[string, ReadonlyArray<Field>, ReadonlyArray<Declared>, boolean?]>([
    [
      "EFI_MM_COMMUNICATE_HEADER",
      MM_HEADER_FIELDS,
      [
        ["guid", "EFI_GUID"],
        ["length", "UINT64"]
      ]
    ],
    [
      "SMM_VARIABLE_COMMUNICATE_HEADER",
      VARIABLE_HEADER_FIELDS,
      [
        ["function", "UINTN"],
        ["status", "EFI_STATUS"]
      ]
    ],
    [
      "SMM_VARIABLE_COMMUNICATE_ACCESS_VARIABLE",
      ACCESS_VARIABLE_FIELDS,
      [
        ["guid", "EFI_GUID"],
        ["data_size", "UINTN"],
        ["name_size", "UINTN"],
        ["attributes", "UINT32"]
      ]
    ],
    [
      "SMM_VARIABLE_COMMUNICATE_GET_NEXT_VARIABLE_NAME",
      NEXT_NAME_FIELDS,
      [
        ["guid", "EFI_GUID"],
        ["name_size", "UINTN"]
      ]
    ],
    [
      "SMM_VARIABLE_COMMUNICATE_QUERY_VARIABLE_INFO",
      QUERY_INFO_FIELDS,
      [
        ["max_storage", "UINT64"],
        ["remaining_storage", "UINT64"],
        ["max_variable", "UINT64"],
        ["attributes", "UINT32"]
      ]
    ],
    [
      "SMM_VARIABLE_COMMUNICATE_VAR_CHECK_VARIABLE_PROPERTY",
      VARIABLE_PROPERTY_FIELDS,
      [
        ["guid", "EFI_GUID"],
        ["name_size", "UINTN"],
        ["revision", "UINT16"],
        ["property", "UINT16"],
        ["attributes", "UINT32"],
        ["min_size", "UINTN"],
        ["max_size", "UINTN"]
      ]
    ],
    [
      "SMM_VARIABLE_COMMUNICATE_GET_RUNTIME_CACHE_INFO",
      RUNTIME_CACHE_INFO_FIELDS,
      [
        ["hob", "UINTN"],
        ["non_volatile", "UINTN"],
        ["volatile", "UINTN"],
        ["authenticated", "BOOLEAN"]
      ]
    ],
    [
      "VAR_CHECK_POLICY_COMM_HEADER",
      POLICY_HEADER_FIELDS,
      [
        ["signature", "UINT32"],
        ["revision", "UINT32"],
        ["command", "UINT32"],
        ["result", "EFI_STATUS"]
      ],
      true
    ],
    [
      "VAR_CHECK_POLICY_COMM_DUMP_PARAMS",
      POLICY_DUMP_FIELDS,
      [
        ["page_requested", "UINT32"],
        ["total_size", "UINT32"],
        ["page_size", "UINT32"],
        ["has_more", "BOOLEAN"]
      ],
      true
    ],
    [
      "VARIABLE_POLICY_ENTRY",
      POLICY_ENTRY_FIELDS,
      [
        ["version", "UINT32"],
        ["size", "UINT16"],
        ["offset_to_name", "UINT16"],
        ["namespace", "EFI_GUID"],
        ["min_size", "UINT32"],
        ["max_size", "UINT32"],
        ["attributes_must_have", "UINT32"],
        ["attributes_cant_have", "UINT32"],
        ["lock_policy_type", "UINT8"]
      ],
      true
    ],
    [
      "VARIABLE_LOCK_ON_VAR_STATE_POLICY",
      LOCK_ON_STATE_FIELDS,
      [
        ["namespace", "EFI_GUID"],
        ["value", "UINT8"]
      ],
      true
    ],
    [
      "EFI_VARIABLE_AUTHENTICATION_2",
      AUTHENTICATION_2_FIELDS,
      [
        ["timestamp", "EFI_TIME"],
        ["length", "UINT32"],
        ["revision", "UINT16"],
        ["certificate_type", "UINT16"],
        ["certificate_guid", "EFI_GUID"]
      ]
    ],
    [
      "EFI_TIME",
      EFI_TIME_FIELDS,
      [
        ["year", "UINT16"],
        ["month", "UINT8"],
        ["day", "UINT8"],
        ["hour", "UINT8"],
        ["minute", "UINT8"],
        ["second", "UINT8"],
        ["pad1", "UINT8"],
        ["nanosecond", "UINT32"],
        ["time_zone", "INT16"],
        ["daylight", "UINT8"],
        ["pad2", "UINT8"]
      ]
    ]
  ])("%s", (_, fields, declared, isPacked) => {
    expect(fields).toEqual(placed(declared, isPacked))
  })

  it("what follows them begins where they end", () => {
    expect(MM_HEADER.SIZE).toBe(endOf(MM_HEADER_FIELDS))
    expect(ACCESS_VARIABLE.name).toBe(endOf(ACCESS_VARIABLE_FIELDS))
    expect(NEXT_NAME.name).toBe(endOf(NEXT_NAME_FIELDS))
    expect(VARIABLE_PROPERTY.name).toBe(endOf(VARIABLE_PROPERTY_FIELDS))
    expect(AUTHENTICATION_2.data).toBe(endOf(AUTHENTICATION_2_FIELDS))
    // One byte of padding is declared.
    expect(LOCK_ON_STATE.name).toBe(endOf(LOCK_ON_STATE_FIELDS) + 1)
    // Whole structures are as long as their alignment makes them.
    expect([QUERY_INFO.SIZE, RUNTIME_CACHE_INFO.SIZE]).toEqual([32, 32])
  })
})

describe("messages, byte by byte", () => {
  const VARIABLE_PROTOCOL = "33d532ede699094 29cc02d72cdd998a7".replaceAll(" ", "")
  const OWNER = "78563412341278561234567812345678"
  const NAME = { name: "A1", guid: "12345678-1234-5678-1234-567812345678" }
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
  const u64 = (value: number): string => {
    const bytes = Buffer.alloc(8)
    bytes.writeUInt32LE(value)
    return bytes.toString("hex")
  }
  const NO = "ff".repeat(8)
  const A1 = "410031000000"

  it("SetVariable", () => {
    const message = setVariableMessage({ ...NAME, attributes: 7, data: Uint8Array.of(0xaa, 0xbb) })
    const body = [u64(3), NO, OWNER, u64(2), u64(6), "07000000", A1, "aabb"].join("")
    expect(hex(message)).toBe([VARIABLE_PROTOCOL, u64(body.length / 2), body].join(""))
  })

  it("GetVariable and GetNextVariableName with room", () => {
    const get = [u64(1), NO, OWNER, u64(3), u64(6), "00000000", A1, "000000"].join("")
    expect(hex(getVariableMessage(NAME, 3))).toBe([VARIABLE_PROTOCOL, u64(get.length / 2), get].join(""))
    const next = [u64(2), NO, OWNER, u64(8), A1, "0000"].join("")
    expect(hex(nextNameMessage(NAME, 8))).toBe([VARIABLE_PROTOCOL, u64(next.length / 2), next].join(""))
  })

  it("a policy", () => {
    const entry = ["00000100", "3200", "2c00", OWNER, "01000000", "02000000", "03000000", "04000000", "01000000", A1]
    const body = ["56435043", "01000000", "03000000", NO, ...entry].join("")
    const limits = { minSize: 1, maxSize: 2, mustHave: 3, cantHave: 4, lock: 1 }
    const receiver = "110d1bdaa7d1c4469dc9f3714875c6eb"
    expect(hex(registerPolicyMessage({ ...NAME, ...limits }))).toBe([receiver, u64(body.length / 2), body].join(""))
  })

  it("a status is 64 bits with the highest for errors", () => {
    const view = new DataView(new ArrayBuffer(8))
    for (const status of Object.values(EFI_STATUS)) {
      setEfiStatus(view, 0, status)
      expect(efiStatusOf(view, 0)).toBe(status)
      expect(view.getBigUint64(0, true)).toBe(status === 0 ? 0n : (1n << 63n) | BigInt(status))
    }
    for (const none of [1n, 1n << 63n, (1n << 64n) - 1n]) {
      view.setBigUint64(0, none, true)
      expect(efiStatusOf(view, 0)).toBe(NO_STATUS)
    }
  })

  it("names come back as they went, whatever is behind their end", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 0xffff }), { maxLength: 40 }), fc.uint8Array(), (units, rest) => {
        const name = units.map((unit) => String.fromCharCode(unit)).join("")
        expect(nameIn(Uint8Array.from([...nameBytes(name), ...rest]))).toBe(name)
      }),
      { seed: 1 }
    )
  })
})
