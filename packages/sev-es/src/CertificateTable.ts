import { GUID_SIZE, guidBytes, guidText } from "./Guid.ts"

/** Names of certificates that a host hands out. @spec GHCB "SNP extended guest request" */
export const CERTIFICATE_GUID = {
  VCEK: "63da758d-e664-4564-adc5-f4b93be8accd",
  VLEK: "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
  ASK: "4ab7b379-bbac-4fe4-a02f-05aef327c782",
  ARK: "c0b406a4-a803-4952-9743-3fb6014cd0ae"
} as const

/** One certificate with its name. */
export interface NamedCertificate {
  readonly guid: string
  readonly bytes: Uint8Array
}

/** {GUID, u32 offset, u32 length}; an entry of zeros ends the table. */
const ENTRY_SIZE = GUID_SIZE + 8

/** Bytes of a table without certificates. */
export const EMPTY_CERTIFICATE_TABLE = ENTRY_SIZE

/** The table with its certificates behind it, each at a multiple of 8. @spec GHCB "SNP extended guest request" */
export const encodeCertificateTable = (certificates: ReadonlyArray<NamedCertificate>): Uint8Array => {
  let end = (certificates.length + 1) * ENTRY_SIZE
  const offsets = certificates.map(({ bytes }) => {
    const offset = Math.ceil(end / 8) * 8
    end = offset + bytes.length
    return offset
  })
  const table = new Uint8Array(end)
  const view = new DataView(table.buffer)
  for (const [i, { guid, bytes }] of certificates.entries()) {
    table.set(guidBytes(guid), i * ENTRY_SIZE)
    view.setUint32(i * ENTRY_SIZE + GUID_SIZE, offsets[i]!, true)
    view.setUint32(i * ENTRY_SIZE + GUID_SIZE + 4, bytes.length, true)
    table.set(bytes, offsets[i])
  }
  return table
}

/** Bytes of a table with its certificates; 0 for one without any, all of it where its entries make no sense. */
export const certificateTableSize = (table: Uint8Array): number => {
  const found = decodeCertificateTable(table)
  if (typeof found === "string") return table.length
  if (found.length === 0) return 0
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const ends = found.map((_, i) => view.getUint32(i * ENTRY_SIZE + GUID_SIZE, true) + found[i]!.bytes.length)
  return Math.max(...ends)
}

/** The certificates of a table, or what is wrong with it: which bytes, what is there and what was expected. */
export const decodeCertificateTable = (table: Uint8Array): ReadonlyArray<NamedCertificate> | string => {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const found: Array<{ readonly guid: string; readonly offset: number; readonly length: number }> = []
  for (let at = 0; ; at += ENTRY_SIZE) {
    if (at + ENTRY_SIZE > table.length) {
      return `ends at byte 0x${table.length.toString(16)}, expected an entry of 24 zeros to end the table`
    }
    const offset = view.getUint32(at + GUID_SIZE, true)
    const length = view.getUint32(at + GUID_SIZE + 4, true)
    if (table.subarray(at, at + ENTRY_SIZE).every((byte) => byte === 0)) break
    found.push({ guid: guidText(table, at), offset, length })
  }
  const entries = (found.length + 1) * ENTRY_SIZE
  for (const [i, { offset, length }] of found.entries()) {
    if (offset >= entries && length > 0 && offset + length <= table.length) continue
    const at = i * ENTRY_SIZE + GUID_SIZE
    const range = `0x${offset.toString(16)} and length 0x${length.toString(16)}`
    return (
      `offset ${range} at bytes 0x${at.toString(16)} to 0x${(at + 7).toString(16)} lie outside, ` +
      `expected bytes 0x${entries.toString(16)} to 0x${(table.length - 1).toString(16)}`
    )
  }
  return found.map(({ guid, offset, length }) => ({ guid, bytes: table.slice(offset, offset + length) }))
}
