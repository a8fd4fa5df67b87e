// @section 1.2
import { PAGE_2M } from "./PageSize.ts"
import type { RmpEntry } from "./RmpEntry.ts"
import { RMP_ENTRY, RMP_ENTRY_SIZE } from "./RmpEntryLayout.ts"

const bits = (value: bigint, { bit, bits: width }: { readonly bit: number; readonly bits: number }): bigint =>
  (value >> BigInt(bit)) & ((1n << BigInt(width)) - 1n)

const placed = (value: number | boolean, { bit, bits: width }: { readonly bit: number; readonly bits: number }) =>
  (BigInt(Number(value)) & ((1n << BigInt(width)) - 1n)) << BigInt(bit)

/** What a raw entry says beyond the architectural fields. */
export interface RawEntry {
  readonly entry: Omit<RmpEntry, "inUse">
  /** Assigned pages of the region beside the first; only in the entry of the first page, derived from the others. */
  readonly subpageCount: number
  readonly lock: boolean
}

/**
 * The 16 bytes of an entry as Zen 3 and Zen 4 keep them in memory. Lock is what the AMD-SP writes: Immutable, but not
 * of an HV-Fixed page. GPA bits above 50 and ASID bits above 9 have no place and are lost.
 * @spec SNP-ABI "RMP entry"
 */
export const encodeRawEntry = (entry: Omit<RmpEntry, "inUse">, subpageCount: number): Uint8Array => {
  const low =
    placed(entry.assigned, RMP_ENTRY.assigned) |
    placed(entry.size, RMP_ENTRY.page_size) |
    placed(entry.immutable, RMP_ENTRY.immutable) |
    placed(subpageCount, RMP_ENTRY.subpage_count) |
    placed(entry.gfn, RMP_ENTRY.gpa) |
    placed(entry.asid, RMP_ENTRY.asid) |
    placed(entry.vmsa, RMP_ENTRY.vmsa) |
    placed(entry.validated, RMP_ENTRY.validated) |
    placed(entry.immutable && entry.assigned, RMP_ENTRY.lock)
  const bytes = new Uint8Array(RMP_ENTRY_SIZE)
  new DataView(bytes.buffer).setBigUint64(0, low, true)
  bytes.set(entry.perms, RMP_ENTRY.permissions_0.offset)
  return bytes
}

/**
 * A raw entry as its fields. Of the upper half only the masks count: the key, port and migration fields are not
 * modelled.
 * @param bytes 16 bytes
 */
export const decodeRawEntry = (bytes: Uint8Array): RawEntry => {
  if (bytes.length !== RMP_ENTRY_SIZE) throw new RangeError(`a raw RMP entry has 16 bytes, got ${bytes.length}`)
  const low = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getBigUint64(0, true)
  const flag = (field: { readonly bit: number; readonly bits: number }): boolean => bits(low, field) === 1n
  const first = RMP_ENTRY.permissions_0.offset
  return {
    entry: {
      assigned: flag(RMP_ENTRY.assigned),
      size: flag(RMP_ENTRY.page_size) ? PAGE_2M : 0,
      immutable: flag(RMP_ENTRY.immutable),
      gfn: Number(bits(low, RMP_ENTRY.gpa)),
      asid: Number(bits(low, RMP_ENTRY.asid)),
      validated: flag(RMP_ENTRY.validated),
      vmsa: flag(RMP_ENTRY.vmsa),
      perms: [bytes[first]!, bytes[first + 1]!, bytes[first + 2]!, bytes[first + 3]!]
    },
    subpageCount: Number(bits(low, RMP_ENTRY.subpage_count)),
    lock: flag(RMP_ENTRY.lock)
  }
}
