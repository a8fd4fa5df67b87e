import type { Rmp } from "@vmpl-lab/rmp"

/** The RMP as the AMD-SP uses it. Pages are named by system frame number. */
export type PspRmp = Pick<Rmp, "stateOf" | "entry" | "firmwareSet" | "pagesPer2M" | "layout" | "hasPagesOf">

/** The memory controller as the AMD-SP uses it. Frames are 4 KiB. */
export interface PspMemory {
  /** 4096 bytes of a frame as the host sees them: system memory read without a guest key. */
  readPlain(pfn: number): Uint8Array
  /** Writes 4096 bytes without a guest key. */
  writePlain(pfn: number, contents: Uint8Array): void
  /** 4096 bytes of a frame as the guest with this ASID sees them. */
  readEncrypted(pfn: number, asid: number): Uint8Array
  /** Writes 4096 bytes of guest data, encrypted under the key of `asid`. */
  writeEncrypted(pfn: number, asid: number, contents: Uint8Array): void
  /** Gives an ASID its memory key, 32 bytes. From then on guest accesses with this ASID are encrypted with it. */
  createKey(asid: number, key: Uint8Array): void
  /** Forgets the key of an ASID: what it encrypted can no longer be read. */
  destroyKey(asid: number): void
}
