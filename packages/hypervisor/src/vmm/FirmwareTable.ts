import { GUID_SIZE, guidText } from "@vmpl-lab/sev-es"
import { FirmwareError, hex } from "./FirmwareError.ts"

/** GUIDs of OVMF's table that matter to a SEV launch. @spec OVMF ResetVector, "GUIDed structures" */
export const TABLE_GUID = {
  FOOTER: "96b582de-1fb2-45f7-baea-a366c55a082d",
  SEV_METADATA: "dc886566-984a-4798-a75e-5585a7bf67cc",
  SEV_HASH_TABLE: "7255371f-3a3b-4b04-927b-1da6efa8d454",
  SEV_ES_RESET: "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
} as const

/** The table ends this many bytes before the end of the image. */
export const TABLE_END_DISTANCE = 32

/** Every entry ends with u16 length, data included, and the GUID. */
export const ENTRY_TRAILER_SIZE = 2 + GUID_SIZE

/** Data of one entry. */
export interface TableEntry {
  /** Byte offset of the data in the image. */
  readonly offset: number
  /** Bytes of data, without length and GUID. */
  readonly size: number
}

/**
 * Entries of the table by GUID. The table is read backwards: its last entry is the footer, whose length covers the
 * whole table. A GUID of interest that appears twice is refused, since readers differ in which of the two they take.
 * Throws FirmwareError for a missing footer, and for lengths that leave the table or the image.
 */
export const parseTable = (image: Uint8Array, name: string): ReadonlyMap<string, TableEntry> => {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const tableEnd = image.length - TABLE_END_DISTANCE
  const footer = guidText(image, tableEnd - GUID_SIZE)
  if (footer !== TABLE_GUID.FOOTER) {
    throw new FirmwareError(
      name,
      `footer GUID at ${hex(tableEnd - GUID_SIZE)} is ${footer}, expected ${TABLE_GUID.FOOTER}`
    )
  }
  const footerStart = tableEnd - ENTRY_TRAILER_SIZE
  const tableSize = view.getUint16(footerStart, true)
  if (tableSize < ENTRY_TRAILER_SIZE || tableSize > tableEnd) {
    throw new FirmwareError(
      name,
      `table length at ${hex(footerStart)} is ${tableSize}, expected ${ENTRY_TRAILER_SIZE} to ${tableEnd}`
    )
  }
  const tableStart = tableEnd - tableSize
  const entries = new Map<string, TableEntry>()
  const known: ReadonlyArray<string> = Object.values(TABLE_GUID)
  let end = footerStart
  while (end > tableStart) {
    const room = end - tableStart
    if (room < ENTRY_TRAILER_SIZE) {
      throw new FirmwareError(
        name,
        `table entry that ends at ${hex(end)} has ${room} bytes left, expected at least ${ENTRY_TRAILER_SIZE}`
      )
    }
    const size = view.getUint16(end - ENTRY_TRAILER_SIZE, true)
    if (size < ENTRY_TRAILER_SIZE || size > room) {
      throw new FirmwareError(
        name,
        `table entry length at ${hex(end - ENTRY_TRAILER_SIZE)} is ${size}, expected ${ENTRY_TRAILER_SIZE} to ${room}`
      )
    }
    const guid = guidText(image, end - GUID_SIZE)
    if (known.includes(guid) && entries.has(guid)) {
      throw new FirmwareError(name, `table entry ${guid} at ${hex(end - size)} is there twice, expected once`)
    }
    entries.set(guid, { offset: end - size, size: size - ENTRY_TRAILER_SIZE })
    end -= size
  }
  return entries
}
