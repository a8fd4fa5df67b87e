import { PAGE_2M } from "../PageSize.ts"
import type { Rmp } from "../Rmp.ts"
import type { RmpEntry } from "../RmpEntry.ts"

/** An entry, and how many pages into its page the one asked for lies. */
export interface View {
  readonly pfn: number
  readonly entry: RmpEntry
  readonly offset: number
}

const isLarge = (entry: RmpEntry): boolean => entry.assigned && entry.size === PAGE_2M

export const regionStart = (rmp: Rmp, pfn: number): number => pfn - (pfn % rmp.pagesPer2M)

/** Entry of the first page of a page's 2 MiB region. */
export const headView = (rmp: Rmp, pfn: number): View => {
  const head = regionStart(rmp, pfn)
  return { pfn: head, entry: rmp.entry(head), offset: pfn - head }
}

/** The entry that rules a page: that of the 2 MiB page it lies in, else its own. */
export const rulingView = (rmp: Rmp, pfn: number): View => {
  const head = headView(rmp, pfn)
  return isLarge(head.entry) ? head : { pfn, entry: rmp.entry(pfn), offset: 0 }
}

/** Frames of the region of a page. */
export const regionOf = (rmp: Rmp, pfn: number): ReadonlyArray<number> =>
  Array.from({ length: rmp.pagesPer2M }, (_, page) => regionStart(rmp, pfn) + page)

/** Whether a page, or for a 2 MiB page any part of it, is in use. */
export const isRulingInUse = (rmp: Rmp, pfn: number): boolean => {
  const { entry } = headView(rmp, pfn)
  return isLarge(entry) ? regionOf(rmp, pfn).some((page) => rmp.isInUse(page)) : rmp.isInUse(pfn)
}

export const isInsideLarge = (rmp: Rmp, pfn: number): boolean => isLarge(headView(rmp, pfn).entry)
