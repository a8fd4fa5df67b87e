import { SNAPSHOT } from "@vmpl-lab/rmp"
import type { Action } from "../trace/Action.ts"
import { PROPERTIES } from "./Properties.ts"

const { WORDS, ASID_SHIFT, GFN, MASKS } = SNAPSHOT
const LARGE = 2
const ASSIGNED = 1
const VALIDATED = 8
const VMSA_IN_USE = 0x30

/** Whose page it is, as a number; -1 for a page that is not validated. */
const placeOf = (words: Int32Array, page: number): number => {
  const large = (words[0]! & (ASSIGNED | LARGE)) === (ASSIGNED | LARGE)
  const word = large ? 0 : page * WORDS
  const flags = words[word]!
  if ((flags & VALIDATED) === 0) return -1
  return ((flags >>> ASID_SHIFT) & 0x3ff) * 16 + words[word + GFN]! + (large ? page : 0)
}

const differs = (a: Int32Array, b: Int32Array, page: number): boolean => {
  for (let word = page * WORDS; word < (page + 1) * WORDS; word++) if (a[word] !== b[word]) return true
  return false
}

/** Which property of changes an action broke, given the entries before and after it; null when all is well. */
export const brokenByChange = (action: Action, before: Int32Array, after: Int32Array): string | null => {
  const pages = before.length / WORDS
  for (let page = 0; page < pages; page++) {
    if (!differs(before, after, page)) continue
    if ("vmpl" in action && action.vmpl > 0) return PROPERTIES.vmpl1ChangesNothing
    const wasInUse = (before[page * WORDS]! & VMSA_IN_USE) === VMSA_IN_USE
    if (wasInUse && action.op !== "vmexit") return PROPERTIES.vmsaInUse
    if (action.op === "rmpadjust" && changesOwnOrAbove(before, after, page)) return PROPERTIES.vmpl1ChangesNothing
  }
  if (action.op !== "rmpupdate" && action.op !== "psmash") return null
  for (let page = 0; page < pages; page++) {
    const now = placeOf(after, page)
    if (now >= 0 && now !== placeOf(before, page)) return PROPERTIES.hostKeepsContents
  }
  return null
}

/** RMPADJUST at VMPL0 must leave VMPL0's own mask. */
const changesOwnOrAbove = (before: Int32Array, after: Int32Array, page: number): boolean =>
  (before[page * WORDS + MASKS]! & 0xff) !== (after[page * WORDS + MASKS]! & 0xff)
