import { guidBytes, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { ENTRY_TRAILER_SIZE, TABLE_END_DISTANCE, TABLE_GUID } from "./FirmwareTable.ts"
import { METADATA, type MetadataSection, SECTION_TYPE } from "./MetadataSections.ts"

/** Bytes of the synthetic image. */
export const SYNTHETIC_SIZE = 16 * PAGE_SIZE

/** Memory layout of OVMF's general build (OvmfPkgX64), so that addresses in traces look familiar. */
const SECTIONS: ReadonlyArray<MetadataSection> = [
  { gpa: 0x80_0000, size: 0x9000, type: SECTION_TYPE.SEC_MEM },
  { gpa: 0x80_a000, size: 0x3000, type: SECTION_TYPE.SEC_MEM },
  { gpa: 0x80_d000, size: 0x1000, type: SECTION_TYPE.SECRETS },
  { gpa: 0x80_e000, size: 0x1000, type: SECTION_TYPE.CPUID },
  { gpa: 0x80_f000, size: 0x1000, type: SECTION_TYPE.SVSM_CAA },
  { gpa: 0x81_0000, size: 0x1_0000, type: SECTION_TYPE.SEC_MEM }
]
const AP_EIP = 0x80_b004

/** HLT, then a jump back to it: what a processor would execute at the reset vector. */
const RESET_CODE = [0xf4, 0xeb, 0xfd]
const RESET_DISTANCE = 16

/** Distance of the metadata from the end of the image, clear of the table. */
const METADATA_DISTANCE = 0x400

const u32s = (...values: ReadonlyArray<number>): Uint8Array => {
  const bytes = new Uint8Array(values.length * 4)
  const view = new DataView(bytes.buffer)
  for (const [index, value] of values.entries()) view.setUint32(index * 4, value, true)
  return bytes
}

const metadata = (): Uint8Array => {
  const size = METADATA.HEADER_SIZE + SECTIONS.length * METADATA.SECTION_SIZE
  const bytes = new Uint8Array(size)
  bytes.set(Buffer.from(METADATA.SIGNATURE, "latin1"), 0)
  bytes.set(u32s(size, METADATA.VERSION, SECTIONS.length), METADATA.SIGNATURE.length)
  bytes.set(u32s(...SECTIONS.flatMap((section) => [section.gpa, section.size, section.type])), METADATA.HEADER_SIZE)
  return bytes
}

/**
 * A small firmware image made at run time, always the same bytes: OVMF's table and SEV metadata around code that only
 * halts. For runs and tests on machines without OVMF; it offers no kernel hashes.
 */
export const syntheticFirmware = (): Uint8Array => {
  const image = new Uint8Array(SYNTHETIC_SIZE)
  const view = new DataView(image.buffer)
  const tableEnd = SYNTHETIC_SIZE - TABLE_END_DISTANCE
  let end = tableEnd - ENTRY_TRAILER_SIZE
  const prepend = (guid: string, data: Uint8Array): void => {
    image.set(guidBytes(guid), end - ENTRY_TRAILER_SIZE + 2)
    view.setUint16(end - ENTRY_TRAILER_SIZE, data.length + ENTRY_TRAILER_SIZE, true)
    end -= data.length + ENTRY_TRAILER_SIZE
    image.set(data, end)
  }
  prepend(TABLE_GUID.SEV_ES_RESET, u32s(AP_EIP))
  prepend(TABLE_GUID.SEV_METADATA, u32s(METADATA_DISTANCE))
  image.set(guidBytes(TABLE_GUID.FOOTER), tableEnd - ENTRY_TRAILER_SIZE + 2)
  view.setUint16(tableEnd - ENTRY_TRAILER_SIZE, tableEnd - end, true)
  image.set(metadata(), SYNTHETIC_SIZE - METADATA_DISTANCE)
  image.set(RESET_CODE, SYNTHETIC_SIZE - RESET_DISTANCE)
  return image
}
