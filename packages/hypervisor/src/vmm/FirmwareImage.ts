import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { FirmwareError, hex } from "./FirmwareError.ts"
import { parseTable, TABLE_GUID, type TableEntry } from "./FirmwareTable.ts"
import { HASH_TABLE_SIZE } from "./KernelHashes.ts"
import { type MetadataSection, parseSections, SECTION_TYPE } from "./MetadataSections.ts"

/** A range of guest memory, bytes. */
export interface GuestRange {
  readonly gpa: number
  readonly size: number
}

/** A guest firmware image (OVMF) with what a SEV launch needs to know of it. */
export interface FirmwareImage {
  /** What messages call it, usually the path. */
  readonly name: string
  /** The image itself, whole pages; not copied. */
  readonly bytes: Uint8Array
  /** Where it is mapped: it ends at 4 GiB. */
  readonly gpa: number
  /** SEV metadata sections in file order; empty when there is no metadata. */
  readonly sections: ReadonlyArray<MetadataSection>
  /** Address at which APs start, from the SEV-ES reset block; null without one. */
  readonly apEip: number | null
  /** Where the firmware looks for the hashes of kernel, initrd and command line; null when it does not. */
  readonly hashTable: GuestRange | null
}

/** "snp" demands SEV metadata; plain SEV and SEV-ES launches ("sev") do without. */
export type FirmwareUse = "snp" | "sev"

/** End of the image in guest memory: the processor starts 16 bytes below it. */
export const FIRMWARE_END = 0x1_0000_0000

/** Largest image taken, bytes: what fits below 4 GiB next to the APIC pages. */
export const FIRMWARE_SIZE_MAX = 0x100_0000

const checkSize = (size: number, name: string): void => {
  if (size === 0) throw new FirmwareError(name, "size is 0, expected a firmware image")
  if (size < PAGE_SIZE || size % PAGE_SIZE !== 0) {
    throw new FirmwareError(name, `size is ${size}, expected a multiple of ${PAGE_SIZE}`)
  }
  if (size > FIRMWARE_SIZE_MAX) {
    throw new FirmwareError(name, `size is ${size}, expected at most ${FIRMWARE_SIZE_MAX}`)
  }
}

const checkHashTable = (table: GuestRange, sections: ReadonlyArray<MetadataSection>, name: string): void => {
  const place = `SEV hash table at gPA ${hex(table.gpa)}`
  if (table.size < HASH_TABLE_SIZE) {
    throw new FirmwareError(name, `${place}: size is ${table.size}, expected at least ${HASH_TABLE_SIZE}`)
  }
  const page = sections.find((section) => section.type === SECTION_TYPE.KERNEL_HASHES)
  if (page !== undefined && (table.gpa < page.gpa || table.gpa + table.size > page.gpa + page.size)) {
    throw new FirmwareError(
      name,
      `${place}: ends at ${hex(table.gpa + table.size)}, ` +
        `expected to lie in the KERNEL_HASHES section ${hex(page.gpa)} to ${hex(page.gpa + page.size)}`
    )
  }
}

/**
 * Reads a firmware image. Every byte is taken as hostile: whatever is wrong throws FirmwareError, and nothing else is
 * thrown. `name` is used in messages only.
 */
export const parseFirmware = (bytes: Uint8Array, name: string, use: FirmwareUse = "snp"): FirmwareImage => {
  checkSize(bytes.length, name)
  const gpa = FIRMWARE_END - bytes.length
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const table = parseTable(bytes, name)
  const entryOf = (guid: string, what: string, size: number): TableEntry | undefined => {
    const entry = table.get(guid)
    if (entry !== undefined && entry.size < size) {
      throw new FirmwareError(
        name,
        `${what} entry at ${hex(entry.offset)} has ${entry.size} bytes of data, expected ${size}`
      )
    }
    return entry
  }

  const metadata = entryOf(TABLE_GUID.SEV_METADATA, "SEV metadata", 4)
  if (metadata === undefined && use === "snp") {
    throw new FirmwareError(name, `no SEV metadata entry in the table, expected GUID ${TABLE_GUID.SEV_METADATA}`)
  }
  const sections = metadata === undefined ? [] : parseSections(bytes, name, metadata, gpa)
  // The table of hashes has one address, so a second page for it could only be filled wrongly.
  const hashPages = sections.filter((section) => section.type === SECTION_TYPE.KERNEL_HASHES).length
  if (hashPages > 1) throw new FirmwareError(name, `${hashPages} KERNEL_HASHES sections, expected at most 1`)

  const hashEntry = entryOf(TABLE_GUID.SEV_HASH_TABLE, "SEV hash table", 8)
  const hashTable =
    hashEntry === undefined
      ? null
      : { gpa: view.getUint32(hashEntry.offset, true), size: view.getUint32(hashEntry.offset + 4, true) }
  // OVMF builds without the feature carry the entry with address 0.
  const offersHashes = hashTable !== null && hashTable.gpa !== 0
  if (offersHashes) checkHashTable(hashTable, sections, name)

  const resetEntry = entryOf(TABLE_GUID.SEV_ES_RESET, "SEV-ES reset block", 4)
  return {
    name,
    bytes,
    gpa,
    sections,
    apEip: resetEntry === undefined ? null : view.getUint32(resetEntry.offset, true) || null,
    hashTable: offersHashes ? hashTable : null
  }
}
