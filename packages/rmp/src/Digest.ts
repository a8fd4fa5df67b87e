import { ASSIGNED, headRowOf, isLarge, type RmpTable, ROW_WORDS, UNASSIGNED_ROW } from "./RmpTable.ts"

/** Whether the pages after a region's first store no more than a compact region says of them. */
const isCompactable = (table: RmpTable, head: number): boolean => {
  const { words, pagesPer2M } = table
  const flags = isLarge(table, head) ? ASSIGNED : 0
  for (let row = head + ROW_WORDS; row < head + pagesPer2M * ROW_WORDS; row += ROW_WORDS)
    if (words[row] !== flags || words[row + 1] !== 0 || words[row + 2] !== 0) return false
  return true
}

const isZero = (words: Int32Array, row: number): boolean =>
  words[row] === 0 && words[row + 1] === 0 && words[row + 2] === 0

/**
 * Feeds all entries to a hash: coverage, then number, form and bytes of every 2 MiB region with a nonzero entry. Equal
 * tables give equal bytes, whatever led to them. The bytes are views: `update` must not keep them.
 */
export const digestInto = (table: RmpTable, update: (bytes: Uint8Array) => void): void => {
  const header = new Float64Array([table.pages, table.basePfn])
  update(new Uint8Array(header.buffer))
  const place = new Uint32Array(2)
  const placeBytes = new Uint8Array(place.buffer)
  const { words } = table
  for (let region = 0; region < table.rowOfRegion.length; region++) {
    const head = headRowOf(table, region * table.pagesPer2M)
    if (head === UNASSIGNED_ROW) continue
    const compact = head < table.firstBlock || isCompactable(table, head)
    if (compact && isZero(words, head)) continue
    place[0] = region
    place[1] = compact ? 1 : table.pagesPer2M
    update(placeBytes)
    update(new Uint8Array(words.buffer, head * 4, place[1] * ROW_WORDS * 4))
  }
}
