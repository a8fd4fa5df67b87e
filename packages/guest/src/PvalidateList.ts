/** One entry of an SVSM PVALIDATE list: a page of 4 KiB, or of 2 MiB, to validate or to rescind. */
export interface PvalidateEntry {
  readonly gpa: number
  readonly validate: boolean
  readonly is2m?: boolean
}

/** Bytes before the entries. */
export const PVALIDATE_LIST_HEADER = 8

/** Entries that fit into the rest of a page from `offset` on. */
export const pvalidateCapacity = (offset: number): number => Math.floor((4096 - offset - PVALIDATE_LIST_HEADER) / 8)

/**
 * The bytes of a list: u16 count, u16 next = 0, u32 reserved, then entries with [1:0] size (0 = 4K, 1 = 2M), [2] action,
 * [63:12] page.
 * @spec SVSM 6.2 table 6
 */
export const pvalidateList = (entries: ReadonlyArray<PvalidateEntry>): Uint8Array => {
  const bytes = new Uint8Array(PVALIDATE_LIST_HEADER + 8 * entries.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, entries.length, true)
  entries.forEach(({ gpa, validate, is2m }, i) => {
    const offset = PVALIDATE_LIST_HEADER + 8 * i
    view.setUint32(offset, ((gpa >>> 0) | (validate ? 4 : 0) | (is2m === true ? 1 : 0)) >>> 0, true)
    view.setUint32(offset + 4, Math.floor(gpa / 0x1_0000_0000), true)
  })
  return bytes
}
