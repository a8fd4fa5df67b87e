import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { FirmwareError, hex } from "./FirmwareError.ts"
import type { TableEntry } from "./FirmwareTable.ts"

/** Types of SEV metadata sections. @spec OVMF OvmfPkg, "SEV metadata descriptor" */
export const SECTION_TYPE = { SEC_MEM: 1, SECRETS: 2, CPUID: 3, SVSM_CAA: 4, KERNEL_HASHES: 0x10 } as const

/** Guest memory that the VMM prepares before launch; addresses and sizes in bytes, whole pages. */
export interface MetadataSection {
  readonly gpa: number
  readonly size: number
  /** One of SECTION_TYPE. */
  readonly type: number
}

/** {"ASEV", u32 size, u32 version, u32 count}, then count x {u32 gPA, u32 size, u32 type}. */
export const METADATA = { SIGNATURE: "ASEV", VERSION: 1, HEADER_SIZE: 16, SECTION_SIZE: 12 } as const

const KNOWN_TYPES: ReadonlyArray<number> = Object.values(SECTION_TYPE)
const isOnePage = (type: number): boolean =>
  type === SECTION_TYPE.SECRETS || type === SECTION_TYPE.CPUID || type === SECTION_TYPE.KERNEL_HASHES

const checkSection = (
  section: MetadataSection,
  place: string,
  imageGpa: number,
  fail: (why: string) => Error
): void => {
  const { gpa, size, type } = section
  if (!KNOWN_TYPES.includes(type)) {
    throw fail(`${place}: type is ${hex(type)}, expected one of ${KNOWN_TYPES.map(hex).join(", ")}`)
  }
  if (gpa % PAGE_SIZE !== 0) throw fail(`${place}: gPA is ${hex(gpa)}, expected a multiple of 4096`)
  if (size === 0 || size % PAGE_SIZE !== 0) {
    throw fail(`${place}: size is ${hex(size)}, expected a multiple of 4096 above 0`)
  }
  // VMMs disagree on what to launch in the further pages of such a section, so there must be none.
  if (isOnePage(type) && size !== PAGE_SIZE) {
    throw fail(`${place}: size is ${hex(size)}, expected 0x1000 for type ${hex(type)}`)
  }
  if (gpa + size > imageGpa) {
    throw fail(`${place}: ends at ${hex(gpa + size)}, expected at most ${hex(imageGpa)}, where the firmware starts`)
  }
}

/**
 * The sections in file order, which is the order of launch. Throws FirmwareError for a descriptor outside of the
 * image, wrong header, unknown type, sections that are not whole pages, and for overlaps with each other or the image.
 */
export const parseSections = (
  image: Uint8Array,
  name: string,
  entry: TableEntry,
  imageGpa: number
): ReadonlyArray<MetadataSection> => {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const fail = (why: string): FirmwareError => new FirmwareError(name, why)
  const distance = view.getUint32(entry.offset, true)
  if (distance < METADATA.HEADER_SIZE || distance > image.length) {
    throw fail(
      `SEV metadata offset at ${hex(entry.offset)} is ${hex(distance)}, ` +
        `expected ${hex(METADATA.HEADER_SIZE)} to ${hex(image.length)} before the end`
    )
  }
  const start = image.length - distance
  const signature = String.fromCharCode(...image.subarray(start, start + METADATA.SIGNATURE.length))
  if (signature !== METADATA.SIGNATURE) {
    throw fail(`SEV metadata signature at ${hex(start)} is ${JSON.stringify(signature)}, expected "ASEV"`)
  }
  const length = view.getUint32(start + 4, true)
  const version = view.getUint32(start + 8, true)
  const count = view.getUint32(start + 12, true)
  if (version !== METADATA.VERSION) {
    throw fail(`SEV metadata version at ${hex(start + 8)} is ${version}, expected ${METADATA.VERSION}`)
  }
  const room = Math.floor((distance - METADATA.HEADER_SIZE) / METADATA.SECTION_SIZE)
  if (count < 1 || count > room) {
    throw fail(`SEV metadata count at ${hex(start + 12)} is ${count}, expected 1 to ${room}`)
  }
  const lengthMin = METADATA.HEADER_SIZE + count * METADATA.SECTION_SIZE
  if (length < lengthMin || length > distance) {
    throw fail(`SEV metadata length at ${hex(start + 4)} is ${length}, expected ${lengthMin} to ${distance}`)
  }
  const sections: Array<MetadataSection> = []
  for (let i = 0; i < count; i++) {
    const offset = start + METADATA.HEADER_SIZE + i * METADATA.SECTION_SIZE
    const section = {
      gpa: view.getUint32(offset, true),
      size: view.getUint32(offset + 4, true),
      type: view.getUint32(offset + 8, true)
    }
    checkSection(section, `SEV metadata section ${i} at ${hex(offset)}`, imageGpa, fail)
    sections.push(section)
  }
  let previous: MetadataSection | undefined
  for (const section of [...sections].sort((a, b) => a.gpa - b.gpa)) {
    if (previous !== undefined && section.gpa < previous.gpa + previous.size) {
      throw fail(
        `SEV metadata section at gPA ${hex(section.gpa)} overlaps the one at ${hex(previous.gpa)}, ` +
          `expected no section below ${hex(previous.gpa + previous.size)}`
      )
    }
    previous = section
  }
  return sections
}
