import { layout, offsetsOf } from "./Layout.ts"

/**
 * #HV doorbell page of restricted injection: what waits, for the level that takes #HV, and descriptors for the lower
 * levels of which it is told.
 * @spec GHCB "#HV doorbell page"; fields after COCONUT-SVSM
 */
export const DOORBELL_FIELDS = layout([
  ["pending_vector", 0, 1],
  ["flags", 1, 1],
  ["no_eoi_required", 2, 1],
  ["per_vmpl_events", 3, 1],
  ["vmpl1", 64, 64],
  ["vmpl2", 128, 64],
  ["vmpl3", 192, 64]
])

/** Byte offsets of the doorbell page by name. */
export const DOORBELL = offsetsOf(DOORBELL_FIELDS)

/** Byte 1 of the page. NO_FURTHER_SIGNAL is bit 15 of the word at 0: no #HV until the guest has cleared it. */
export const DOORBELL_FLAG = { NMI: 1, MC: 2, NO_FURTHER_SIGNAL: 0x80 } as const

/** Offsets in a lower level's descriptor: status, then vectors 32 to 255 requested, then all 256 in service. */
export const DOORBELL_DESCRIPTOR = { SIZE: 64, STATUS: 0, IRR: 4, ISR: 32 } as const

/**
 * A descriptor's status, whose byte 0 is the one vector that waits. With MULTIPLE that byte does not count, and vectors
 * are in the words behind it, but for 31, which has no place there.
 */
export const DOORBELL_STATUS = { NMI: 1 << 8, MULTIPLE: 1 << 14, VECTOR_31: 0x8000_0000 } as const

/** Lowest vector that MULTIPLE can tell of. */
export const DOORBELL_FIRST_VECTOR = 31

/** GPA that stands for "no doorbell page": all ones, as halves. */
export const NO_DOORBELL = 0xffff_ffff
