// @section 1.7
import type { PageSize, RmpEntry } from "@vmpl-lab/rmp"

/** What kind of page an image holds. */
export type ImageKind = "data" | "metadata" | "vmsa"

/**
 * An entry of a metadata page: 64 bytes that only the AMD-SP writes. It says what a swapped page was, and by its tag
 * which image is the page's.
 * @spec SNP-ABI "metadata entries"
 */
export interface MetadataEntry {
  /** Set by SWAP_OUT, cleared by SWAP_IN: an image is taken once. */
  readonly valid: boolean
  readonly kind: ImageKind
  readonly size: PageSize
  readonly gfn: number
  /** ASID of the guest, which the AMD-SP would find in the guest's context. */
  readonly asid: number
  readonly validated: boolean
  readonly perms: RmpEntry["perms"]
  /** The guest's counter at the time, unique for each image of that guest. */
  readonly iv: bigint
  /** Which image it describes: the AMD-SP would know it by its tag. */
  readonly image: number
  /** Authentication tag over the image; empty where contents are not modelled. */
  readonly tag: Uint8Array
}
