import { layout, offsetsOf } from "./Layout.ts"
import type { U64 } from "./U64.ts"

/**
 * Header of the page state change structure in a scratch area; 8-byte entries follow. `end_entry` is the last index.
 * @spec GHCB "page state change"
 */
export const PSC_HEADER_FIELDS = layout([
  ["cur_entry", 0, 2],
  ["end_entry", 2, 2],
  ["reserved", 4, 4]
])

/** Byte offsets of the header by name. */
export const PSC_HEADER = offsetsOf(PSC_HEADER_FIELDS)

export const PSC_HEADER_SIZE = 8
export const PSC_ENTRY_SIZE = 8

/** Entries that fit into the GHCB's own buffer. */
export const PSC_MAX_ENTRIES = 253

/** One entry: cur_page [11:0] counts the 4 KiB pages of a 2 MiB one that are done. */
export interface PscEntry {
  readonly curPage: number
  readonly gfn: number
  /** One of PSC_OP. */
  readonly operation: number
  readonly is2m: boolean
}

const ENTRY_2M = 1 << 24

export const encodePscEntry = ({ curPage, gfn, operation, is2m }: PscEntry): U64 => ({
  lo: (((gfn % 0x10_0000) << 12) | (curPage & 0xfff)) >>> 0,
  hi: ((Math.floor(gfn / 0x10_0000) & 0xf_ffff) | ((operation & 0xf) << 20) | (is2m ? ENTRY_2M : 0)) >>> 0
})

export const decodePscEntry = (lo: number, hi: number): PscEntry => ({
  curPage: lo & 0xfff,
  gfn: (hi & 0xf_ffff) * 0x10_0000 + (lo >>> 12),
  operation: (hi >>> 20) & 0xf,
  is2m: (hi & ENTRY_2M) !== 0
})

/** Upper half of sw_exit_info_2; the lower half is PSC_INVALID where it is INVALID. */
export const PSC_ERROR = { INVALID: 1, GENERIC: 0x100 } as const
export const PSC_INVALID = { HEADER: 1, ENTRY: 2 } as const
