import { guidBytes, PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  FIRMWARE_END,
  FIRMWARE_SIZE_MAX,
  FirmwareError,
  type FirmwareUse,
  parseFirmware,
  SECTION_TYPE,
  SYNTHETIC_SIZE,
  syntheticFirmware
} from "../src/vmm/index.ts"

const NAME = "test.fd"

// Where the synthetic image keeps what these tests damage.
const FOOTER = SYNTHETIC_SIZE - 32 - 18
const RESET_ENTRY_LENGTH = FOOTER - 18
const RESET_ENTRY = FOOTER - 22
const METADATA_ENTRY_LENGTH = RESET_ENTRY - 18
const METADATA_ENTRY = RESET_ENTRY - 22
const METADATA = SYNTHETIC_SIZE - 0x400
const SECTION = METADATA + 16
const LAST_SECTION = SECTION + 5 * 12

const edited = (edit: (view: DataView, bytes: Uint8Array) => void): Uint8Array => {
  const bytes = syntheticFirmware()
  edit(new DataView(bytes.buffer), bytes)
  return bytes
}

/** The synthetic image with a hash table entry and, if asked, its last section as KERNEL_HASHES page at 0x810000. */
const withHashTable = (gpa: number, size: number, kernelHashes: boolean): Uint8Array =>
  edited((view, bytes) => {
    const entry = METADATA_ENTRY - 26
    view.setUint32(entry, gpa, true)
    view.setUint32(entry + 4, size, true)
    view.setUint16(entry + 8, 26, true)
    bytes.set(guidBytes("7255371f-3a3b-4b04-927b-1da6efa8d454"), entry + 10)
    view.setUint16(FOOTER, view.getUint16(FOOTER, true) + 26, true)
    if (kernelHashes) {
      view.setUint32(LAST_SECTION + 4, PAGE_SIZE, true)
      view.setUint32(LAST_SECTION + 8, SECTION_TYPE.KERNEL_HASHES, true)
    }
  })

const errorOf = (bytes: Uint8Array, use: FirmwareUse = "snp"): string => {
  try {
    parseFirmware(bytes, NAME, use)
  } catch (error) {
    if (error instanceof FirmwareError) return error.message
    throw error
  }
  throw new Error("the image was accepted")
}

describe("parseFirmware", () => {
  it("reads the synthetic image", () => {
    const image = parseFirmware(syntheticFirmware(), NAME)
    expect(image).toMatchObject({ name: NAME, gpa: FIRMWARE_END - SYNTHETIC_SIZE, apEip: 0x80_b004, hashTable: null })
    expect(image.sections).toEqual([
      { gpa: 0x80_0000, size: 0x9000, type: SECTION_TYPE.SEC_MEM },
      { gpa: 0x80_a000, size: 0x3000, type: SECTION_TYPE.SEC_MEM },
      { gpa: 0x80_d000, size: 0x1000, type: SECTION_TYPE.SECRETS },
      { gpa: 0x80_e000, size: 0x1000, type: SECTION_TYPE.CPUID },
      { gpa: 0x80_f000, size: 0x1000, type: SECTION_TYPE.SVSM_CAA },
      { gpa: 0x81_0000, size: 0x1_0000, type: SECTION_TYPE.SEC_MEM }
    ])
  })

  it("makes the synthetic image the same each time", () => {
    expect(syntheticFirmware()).toEqual(syntheticFirmware())
  })

  it("reads an image of one page, and one inside a larger buffer", () => {
    const onePage = syntheticFirmware().subarray(SYNTHETIC_SIZE - PAGE_SIZE)
    expect(parseFirmware(onePage, NAME).gpa).toBe(FIRMWARE_END - PAGE_SIZE)
    expect(parseFirmware(onePage.slice(), NAME).sections).toHaveLength(6)
  })

  it("lets SEV and SEV-ES do without metadata, but not SNP", () => {
    const bytes = edited((_view, image) => image.fill(0xaa, METADATA_ENTRY + 6, METADATA_ENTRY + 22))
    expect(parseFirmware(bytes, NAME, "sev").sections).toEqual([])
    expect(errorOf(bytes)).toContain("no SEV metadata entry")
  })

  it("knows no AP entry without a reset block, or with one that says 0", () => {
    expect(
      parseFirmware(
        edited((_view, image) => image.fill(0xaa, RESET_ENTRY + 6, RESET_ENTRY + 22)),
        NAME
      ).apEip
    ).toBe(null)
    expect(
      parseFirmware(
        edited((view) => view.setUint32(RESET_ENTRY, 0, true)),
        NAME
      ).apEip
    ).toBe(null)
  })

  it("reads the hash table, inside of its page or without one, and none at address 0", () => {
    const place = { gpa: 0x81_0c00, size: 0x400 }
    expect(parseFirmware(withHashTable(place.gpa, place.size, true), NAME).hashTable).toEqual(place)
    expect(parseFirmware(withHashTable(place.gpa, place.size, false), NAME).hashTable).toEqual(place)
    expect(parseFirmware(withHashTable(0, 0, true), NAME).hashTable).toBe(null)
  })

  it.each<readonly [string, () => Uint8Array, string]>([
    ["empty", () => new Uint8Array(0), "size is 0"],
    ["below a page", () => new Uint8Array(4095), "size is 4095, expected a multiple of 4096"],
    ["not whole pages", () => new Uint8Array(SYNTHETIC_SIZE + 1), "expected a multiple of 4096"],
    ["too large", () => new Uint8Array(FIRMWARE_SIZE_MAX + PAGE_SIZE), "expected at most 16777216"],
    ["no footer", () => new Uint8Array(PAGE_SIZE), "footer GUID at 0xfd0 is 00000000-0000"],
    ["table length 0", () => edited((v) => v.setUint16(FOOTER, 0, true)), "table length at 0xffce is 0"],
    ["table length 17", () => edited((v) => v.setUint16(FOOTER, 17, true)), "is 17, expected 18 to"],
    [
      "table larger than the image",
      () => edited((v) => v.setUint16(FOOTER, 0xffff, true)).subarray(SYNTHETIC_SIZE - PAGE_SIZE),
      "table length at 0xfce is 65535, expected 18 to 4064"
    ],
    ["table cut inside an entry", () => edited((v) => v.setUint16(FOOTER, 50, true)), "10 bytes left"],
    ["table too long by 4", () => edited((v) => v.setUint16(FOOTER, 18 + 44 + 4, true)), "has 4 bytes left"],
    ["entry length 0", () => edited((v) => v.setUint16(RESET_ENTRY_LENGTH, 0, true)), "table entry length"],
    ["entry past table", () => edited((v) => v.setUint16(RESET_ENTRY_LENGTH, 45, true)), "is 45, expected 18 to 44"],
    [
      "entry without data",
      () =>
        edited((v) => {
          v.setUint16(METADATA_ENTRY_LENGTH, 18, true)
          v.setUint16(FOOTER, 18 + 40, true)
        }),
      "SEV metadata entry"
    ],
    [
      "entry twice",
      () => edited((_v, b) => b.set(b.slice(METADATA_ENTRY + 6, METADATA_ENTRY + 22), RESET_ENTRY + 6)),
      "is there twice"
    ],
    ["metadata offset 0", () => edited((v) => v.setUint32(METADATA_ENTRY, 0, true)), "SEV metadata offset"],
    ["metadata offset 15", () => edited((v) => v.setUint32(METADATA_ENTRY, 15, true)), "is 0xf, expected 0x10"],
    [
      "metadata outside",
      () => edited((v) => v.setUint32(METADATA_ENTRY, SYNTHETIC_SIZE + 1, true)),
      "is 0x10001, expected 0x10 to 0x10000"
    ],
    ["metadata offset 2^32 - 1", () => edited((v) => v.setUint32(METADATA_ENTRY, 0xffff_ffff, true)), "0xffffffff"],
    ["signature", () => edited((_v, b) => b.set([0x0a], METADATA)), 'is "\\nSEV", expected "ASEV"'],
    ["version", () => edited((v) => v.setUint32(METADATA + 8, 2, true)), "version at 0xfc08 is 2, expected 1"],
    ["no section", () => edited((v) => v.setUint32(METADATA + 12, 0, true)), "count at 0xfc0c is 0"],
    ["too many", () => edited((v) => v.setUint32(METADATA + 12, 0xffff_ffff, true)), "is 4294967295, expected 1 to 84"],
    ["length too small", () => edited((v) => v.setUint32(METADATA + 4, 87, true)), "is 87, expected 88 to 1024"],
    ["length too large", () => edited((v) => v.setUint32(METADATA + 4, 1025, true)), "is 1025, expected 88 to 1024"],
    ["gPA in a page", () => edited((v) => v.setUint32(SECTION, 0x80_0001, true)), "gPA is 0x800001"],
    ["size 0", () => edited((v) => v.setUint32(SECTION + 4, 0, true)), "size is 0x0"],
    ["size not whole pages", () => edited((v) => v.setUint32(SECTION + 4, 0x1001, true)), "size is 0x1001"],
    ["type", () => edited((v) => v.setUint32(SECTION + 8, 5, true)), "type is 0x5, expected one of 0x1, 0x2"],
    ["SECRETS of two pages", () => edited((v) => v.setUint32(SECTION + 28, 0x2000, true)), "expected 0x1000"],
    [
      "overlap",
      () => edited((v) => v.setUint32(SECTION + 4, 0xb000, true)),
      "gPA 0x80a000 overlaps the one at 0x800000"
    ],
    [
      "overlaps the image",
      () => edited((v) => v.setUint32(LAST_SECTION + 4, 0xff7f_0000, true)),
      "ends at 0x100000000"
    ],
    ["past 4 GiB", () => edited((v) => v.setUint32(LAST_SECTION + 4, 0xffff_f000, true)), "where the firmware starts"],
    ["hash table before its page", () => withHashTable(0x80_fff0, 0x400, true), "expected to lie in the KERNEL_HASHES"],
    ["hash table past its page", () => withHashTable(0x81_0c10, 0x400, true), "ends at 0x811010"],
    ["hash table too small", () => withHashTable(0x81_0c00, 175, true), "size is 175, expected at least 176"]
  ])("refuses: %s", (_name, make, message) => {
    const found = errorOf(make())
    expect(found).toContain(`${NAME}: `)
    expect(found).toContain(message)
  })

  it("refuses two pages for one hash table", () => {
    const bytes = withHashTable(0x81_0c00, 0x400, true)
    new DataView(bytes.buffer).setUint32(SECTION + 4 * 12 + 8, SECTION_TYPE.KERNEL_HASHES, true)
    expect(errorOf(bytes)).toContain("2 KERNEL_HASHES sections")
  })

  it("keeps the message on one line whatever the file is called", () => {
    expect(() => parseFirmware(new Uint8Array(0), "a\nb\u001b[2J")).toThrow("a?b?[2J: size is 0")
  })
})

/** Offsets that matter, far more often than a uniform choice over 64 KiB would hit them. */
const offset = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: METADATA_ENTRY, max: FOOTER + 18 - 1 }) },
  { weight: 6, arbitrary: fc.integer({ min: METADATA, max: LAST_SECTION + 11 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: SYNTHETIC_SIZE - 1 }) }
)
const value = fc.oneof(fc.constantFrom(0, 1, 17, 18, 0x7f, 0x80, 0xff), fc.integer({ min: 0, max: 255 }))
const flips = fc.array(fc.tuple(offset, value), { minLength: 1, maxLength: 6 })

describe("hostile images", () => {
  /** True when the image was taken; anything but FirmwareError passes through and fails the property. */
  const isTaken = (bytes: Uint8Array, use: FirmwareUse): boolean => {
    try {
      const image = parseFirmware(bytes, NAME, use)
      for (const { gpa, size } of image.sections) {
        expect(gpa % PAGE_SIZE === 0 && size > 0 && size % PAGE_SIZE === 0 && gpa + size <= image.gpa).toBe(true)
      }
      return true
    } catch (error) {
      if (!(error instanceof FirmwareError)) throw error
      expect(error._tag).toBe("FirmwareError")
      expect(error.message).toMatch(/^test\.fd: [^\n]+$/)
      return false
    }
  }

  it("with changed bytes either parse or throw FirmwareError, and both happen", () => {
    const seen = { taken: 0, refused: 0 }
    const base = syntheticFirmware()
    fc.assert(
      fc.property(flips, fc.constantFrom<FirmwareUse>("snp", "sev"), (changes, use) => {
        const bytes = base.slice()
        for (const [at, byte] of changes) bytes[at] = byte
        if (isTaken(bytes, use)) seen.taken++
        else seen.refused++
      }),
      { numRuns: 3000, seed: 1 }
    )
    expect(seen.taken).toBeGreaterThan(50)
    expect(seen.refused).toBeGreaterThan(50)
  })

  it("cut off at either end either parse or throw FirmwareError", () => {
    const base = syntheticFirmware()
    const cut = fc.oneof(
      fc.integer({ min: 0, max: SYNTHETIC_SIZE }),
      fc.integer({ min: 0, max: SYNTHETIC_SIZE / PAGE_SIZE }).map((pages) => pages * PAGE_SIZE)
    )
    fc.assert(
      fc.property(cut, cut, (from, to) => {
        isTaken(base.subarray(Math.min(from, to), Math.max(from, to)), "snp")
      }),
      { numRuns: 1000, seed: 2 }
    )
  })

  it("of random bytes throw FirmwareError", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: PAGE_SIZE, maxLength: PAGE_SIZE }), (bytes) => {
        expect(isTaken(bytes, "sev")).toBe(false)
      }),
      { numRuns: 50, seed: 3 }
    )
  })
})
