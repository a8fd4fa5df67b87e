import { PAGES_PER_2M } from "./PageSize.ts"
import { type RmpTable, ROW_WORDS } from "./RmpTable.ts"

const REGION_WORDS = PAGES_PER_2M * ROW_WORDS

const isZero = (words: Int32Array, from: number): boolean => {
  for (let word = from; word < from + REGION_WORDS; word++) if (words[word] !== 0) return false
  return true
}

/**
 * Feeds all entries to a hash: coverage, then number and bytes of every 2 MiB region with a nonzero entry. Equal tables
 * give equal bytes, whatever led to them; regions never written are not even read. The bytes are views: `update` must
 * not keep them.
 */
export const digestInto = (table: RmpTable, update: (bytes: Uint8Array) => void): void => {
  const header = new Float64Array([table.pages, table.basePfn])
  update(new Uint8Array(header.buffer))
  const number = new Uint32Array(1)
  const numberBytes = new Uint8Array(number.buffer)
  const { buffer } = table.words
  for (let region = 0; region < table.touched.length; region++) {
    const from = region * REGION_WORDS
    if (table.touched[region] === 0 || isZero(table.words, from)) continue
    number[0] = region
    update(numberBytes)
    update(new Uint8Array(buffer, from * 4, REGION_WORDS * 4))
  }
}
