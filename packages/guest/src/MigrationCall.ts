import { SVSM_RESULT } from "./SvsmCall.ts"

/** Protocol number of the migration service: a private one, outside of what AMD gives out and of its reserved range. */
export const MIGRATION_PROTOCOL = 0x4d49_4752

/**
 * Calls of the migration service. Buffers are shared pages unless said otherwise: their address in RCX, their size in
 * RDX. Every call but PARK is the agent's, who is whoever calls HELLO first.
 */
export const MIGRATION_CALL = {
  /** R8: the role. Fills the buffer with this SVSM's offer for a key. Out: RCX bytes. */
  HELLO: 0,
  /** RDX: bytes of the other side's offer in the buffer. */
  PEER: 1,
  /**
   * RCX, RDX: the range of the agent's own pages, its calling area among them: private, and they stay behind. R8:
   * MIGRATION_START.
   */
  START: 2,
  /** RDX: bytes of a list of GFNs, 8 bytes each, that the host found dirty. */
  MARK: 3,
  /** R8: most pages to export. Out: RCX bytes, RDX pages in them, R8 pages that are left. */
  EXPORT: 4,
  /** RCX: RIP at which this vCPU goes on, here or elsewhere, with its other registers. It does not return. */
  PARK: 5,
  /** Answers once every other vCPU is parked; STILL_RUNNING where that takes long. */
  STOP: 6,
  /** Out: RCX bytes. From here on the guest is the other side's. */
  EXPORT_STATE: 7,
  /** RDX: bytes of what EXPORT gave. Out: RDX pages. */
  IMPORT: 8,
  /** RDX: bytes of what EXPORT_STATE gave. */
  IMPORT_STATE: 9,
  /** RCX: a private page for the list of vCPUs. Out: RDX their number. They may run from now on. */
  RESUME: 10
} as const

/** R8 of HELLO. */
export const MIGRATION_ROLE = { SOURCE: 0, TARGET: 1 } as const

/** R8 of START: who finds the dirty pages, and whether all memory is hashed anew once the guest has stopped. */
export const MIGRATION_START = { HOST_TRACKS: 1, REHASH: 2 } as const

const own = (code: number): number => SVSM_RESULT.FAIL_BASE + 0x100 + code

/** Results of the migration service beside the common ones. */
export const MIGRATION_RESULT = {
  /** No call for this moment, or not for this caller. */
  WRONG_PHASE: own(0),
  /** The other side's offer: no report, not its own, of other software, or not from a platform that is trusted. */
  UNTRUSTED_PEER: own(1),
  /** A record that this key did not seal, or that was changed on its way. */
  NOT_AUTHENTIC: own(2),
  /** A record that is not the next one: repeated, reordered, or one before it was dropped. */
  OUT_OF_SEQUENCE: own(3),
  /** Bytes that are no record, or one of another kind. */
  MALFORMED: own(4),
  /** The memory that arrived is not the memory that was there when the guest stopped. */
  STALE_MEMORY: own(5),
  /** The guest has another layout of memory, or other vCPUs. */
  OTHER_LAYOUT: own(6),
  /** A page came that the host had already used, or that cannot become what it was. */
  PAGE_REFUSED: own(7),
  /** Pages are left to export. */
  PAGES_LEFT: own(8),
  /** A vCPU has levels beside the guest's own: this prototype cannot move them. */
  MORE_LEVELS: own(9),
  /** Not every vCPU has parked yet: ask again, or give up. */
  STILL_RUNNING: own(10)
} as const

/** An entry of RESUME's list: u32 APIC ID, u32 VMPL, u64 GPA of the VMSA, u64 SEV_FEATURES. */
export const RESUME_ENTRY = { apicId: 0, vmpl: 4, vmsaGpa: 8, sevFeatures: 16, SIZE: 24 } as const
