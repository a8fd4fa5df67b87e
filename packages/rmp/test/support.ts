import {
  carryOf,
  eaxOf,
  FAULT,
  faultBits,
  faultName,
  isFault,
  PAGE_2M,
  PAGE_4K,
  type PageSize,
  Rmp,
  type RmpEntry,
  returnCodeName,
  type Switches
} from "../src/index.ts"

/** First frame of the second 2 MiB region: off zero, so that a lost base or offset shows. */
export const BASE = 0x200
/** A 2 MiB-aligned guest frame that needs more than 32 bits. */
export const GFN = 0xf_ffff_f000

/** A table of two 2 MiB regions. */
export const newRmp = (switches: Partial<Switches> = {}): Rmp => new Rmp({ pages: 1024, basePfn: BASE, switches })

/** A result in words: `SUCCESS`, `SUCCESS CF`, `FAIL_INPUT`, `#NPF RMP SIZEM`. */
export const outcome = (code: number): string =>
  isFault(code)
    ? [faultName(code), ...faultBits(code)].join(" ")
    : returnCodeName(eaxOf(code)) + (carryOf(code) === 1 ? " CF" : "")

/** A check's result in words: `ok` or a fault. */
export const verdict = (code: number): string => (code === FAULT.NONE ? "ok" : outcome(code))

/** A guest's page as firmware would leave it at launch: assigned, validated, VMPL0 only, unless `fields` says otherwise. */
export const give = (rmp: Rmp, pfn: number, gfn: number, fields: Partial<RmpEntry> = {}): void => {
  rmp.firmwareSet(pfn, { assigned: true, asid: 1, gfn, validated: true, perms: [0xf, 0, 0, 0], ...fields })
  if (fields.size === PAGE_2M) for (let page = 1; page < 512; page++) rmp.firmwareSet(pfn + page, { assigned: true })
}

export const SIZES: ReadonlyArray<readonly [string, PageSize]> = [
  ["4K", PAGE_4K],
  ["2M", PAGE_2M]
]
