// @section 1.6
import { ASSIGNED, asidOf, gfnOf, IMMUTABLE, indexOf, type RmpTable, rulingRow, VALIDATED, VMSA } from "./RmpTable.ts"

/** @spec SNP-ABI "Page States"; Firmware-IOMMU is AMD's published firmware only; Invalid is every other combination. */
export type PageState =
  | "Default"
  | "Hypervisor"
  | "HV-Fixed"
  | "Firmware"
  | "Firmware-IOMMU"
  | "Reclaim"
  | "Context"
  | "Metadata"
  | "Pre-Guest"
  | "Pre-Swap"
  | "Guest-Invalid"
  | "Guest-Valid"
  | "Invalid"

/**
 * Tags that Genoa's firmware adds to the GFN field (its bits 38:36) of immutable pages with ASID 0. Untagged values
 * are told apart by value, where the frame of a guest context at frame 0 or 1 would be ambiguous.
 */
export const FIRMWARE_TAG = { METADATA: 2 ** 36, IOMMU: 2 ** 37 } as const

const firmwareState = (gfn: number, vmsa: boolean): PageState => {
  if (gfn === 0) return vmsa ? "Context" : "Firmware"
  if (gfn >= FIRMWARE_TAG.IOMMU || gfn === 1) return vmsa ? "Metadata" : "Firmware-IOMMU"
  return "Metadata"
}

/** State of a page; a page inside a 2 MiB page has that of the 2 MiB entry. */
export const stateOf = (table: RmpTable, pfn: number): PageState => {
  const index = indexOf(table, pfn)
  if (index < 0) return "Default"
  const row = rulingRow(table, index)
  const flags = table.words[row]!
  const asid = asidOf(table, row)
  const immutable = (flags & IMMUTABLE) !== 0
  const validated = (flags & VALIDATED) !== 0
  if ((flags & ASSIGNED) === 0) {
    if (validated || asid !== 0) return "Invalid"
    return immutable ? "HV-Fixed" : "Hypervisor"
  }
  if (asid > 0) {
    if (immutable) return validated ? "Pre-Swap" : "Pre-Guest"
    return validated ? "Guest-Valid" : "Guest-Invalid"
  }
  if (validated) return "Invalid"
  return immutable ? firmwareState(gfnOf(table, row), (flags & VMSA) !== 0) : "Reclaim"
}
