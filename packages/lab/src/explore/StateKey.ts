import { SNAPSHOT } from "@vmpl-lab/rmp"

const PAGE_BITS = 11
const PAGE_STATES = 2 ** PAGE_BITS
/** Guest frames that each of two guests has validated at some time: four bits each. */
const HISTORY_STATES = 256
const ASID_SHIFT = SNAPSHOT.ASID_SHIFT
const { WORDS, GFN, MASKS } = SNAPSHOT
/** Flags of an entry, the lowest bits of its first word. */
const FLAGS = 0x3f
const ASSIGNED = 1
/** Of an unassigned entry only Immutable and in-use count: nothing ever looks at the rest. */
const UNASSIGNED_FLAGS = 0x24
const OWNER = 0xc0
const VMPL1_MAY = 0x400

/**
 * The small machine's state as one exact number: 11 bits for each of four entries, then the guests' history.
 * @param words entries as `Rmp.saveEntries` gives them
 */
export const encodeState = (words: Int32Array, history: number): number => {
  let key = 0
  for (let word = words.length - WORDS; word >= 0; word -= WORDS) {
    const flags = words[word]!
    const bits =
      (flags & ASSIGNED) === 0
        ? flags & UNASSIGNED_FLAGS
        : (flags & FLAGS) |
          (((flags >>> ASID_SHIFT) & 3) << 6) |
          ((words[word + GFN]! & 3) << 8) |
          ((words[word + MASKS]! & 0x100) === 0 ? 0 : VMPL1_MAY)
    key = key * PAGE_STATES + bits
  }
  return key * HISTORY_STATES + history
}

/** The entries of a state, into `words`. @returns the history */
export const decodeState = (key: number, words: Int32Array): number => {
  const history = key % HISTORY_STATES
  let rest = (key - history) / HISTORY_STATES
  for (let word = 0; word < words.length; word += WORDS) {
    const bits = rest % PAGE_STATES
    rest = (rest - bits) / PAGE_STATES
    words[word] = (bits & FLAGS) | (((bits >>> 6) & 3) << ASID_SHIFT)
    words[word + GFN] = (bits >>> 8) & 3
    // Pages with an owner have VMPL0's full mask; the inner pages of a 2 MiB page store none.
    words[word + MASKS] = (bits & OWNER) === 0 ? 0 : (bits & VMPL1_MAY) === 0 ? 0xf : 0xf0f
  }
  return history
}
