/** Bytes of a GUID in memory. */
export const GUID_SIZE = 16

/** Memory order of the text's bytes: the first three groups are little-endian, the rest is as written. */
const ORDER = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]

/** The 16 bytes of a GUID written as 8-4-4-4-12 hex digits. */
export const guidBytes = (text: string): Uint8Array => {
  const written = Buffer.from(text.replaceAll("-", ""), "hex")
  return Uint8Array.from(ORDER, (index) => written[index] ?? 0)
}

/** The text of the GUID at `offset`, in lower case. */
export const guidText = (bytes: Uint8Array, offset: number): string => {
  const digits = Buffer.from(ORDER.map((index) => bytes[offset + index] ?? 0)).toString("hex")
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")
}
