// @section 2.8
import { FAULT } from "./Fault.ts"
import { CARRY, RETURN_CODE } from "./ReturnCode.ts"
import { type RmpTable, regionOf } from "./RmpTable.ts"

/** RCX of RMPOPT. */
export const RMPOPT_FUNCTION = { VERIFY_AND_ENABLE: 0, REPORT: 1 } as const

export type RmpoptFunction = (typeof RMPOPT_FUNCTION)[keyof typeof RMPOPT_FUNCTION]

const PAGES_PER_1G = 0x4_0000
/** Two TiB from RMPOPT_BASE on are covered. */
const PAGES_COVERED = 0x2000_0000

/** What MSR RMPOPT_BASE (C001_0139) holds: bit 0 enable, the rest a 1 GiB-aligned base. @spec Linux RMPOPT series */
export const rmpoptBaseFrame = (value: number): number | null => {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`RMPOPT_BASE must be below 2^53, got ${value}`)
  return value % 2 === 1 ? Math.floor(value / (PAGES_PER_1G * 0x1000)) * PAGES_PER_1G : null
}

/** Whether no page of a GiB is assigned. */
const isAllHypervisorOwned = (table: RmpTable, first: number): boolean => {
  const end = Math.min(first + PAGES_PER_1G, table.pages)
  for (let index = first; index < end; index += table.pagesPer2M)
    if (table.assignedIn[regionOf(table, index)] !== 0) return false
  return true
}

/**
 * RMPOPT by the host: whether a GiB is free of guest pages, and from then on host stores to it are not looked up. CARRY
 * when it is; an RMPUPDATE or PSMASH in the GiB ends it. Only a shortcut: no outcome of a check changes.
 * #UD until RMPOPT_BASE is programmed, or where the RMP is not segmented.
 * @param baseFrame frame in RMPOPT_BASE, null when that is not enabled
 * @spec Linux RMPOPT series
 * @spec-silent what EAX holds (here 0), and that a frame outside of the 2 TiB or not covered is not optimised
 */
export const rmpopt = (table: RmpTable, baseFrame: number | null, pfn: number, operation: RmpoptFunction): number => {
  if (!table.layout.segmented || baseFrame === null) return FAULT.UD
  const first = pfn - (pfn % PAGES_PER_1G)
  const index = first - table.basePfn
  if (first < baseFrame || first >= baseFrame + PAGES_COVERED || index < 0 || index >= table.pages)
    return RETURN_CODE.SUCCESS
  const gib = index / PAGES_PER_1G
  if (operation === RMPOPT_FUNCTION.VERIFY_AND_ENABLE && isAllHypervisorOwned(table, index)) table.optimised[gib] = 1
  return table.optimised[gib] === 1 ? CARRY : RETURN_CODE.SUCCESS
}
