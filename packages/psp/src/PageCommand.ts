import type { PageSize } from "@vmpl-lab/rmp"

/** Commands that name one page and nothing more. */
export interface OnePageCommand {
  readonly command: "PAGE_RECLAIM" | "PAGE_UNSMASH" | "GCTX_CREATE" | "DECOMMISSION" | "PAGE_SET_STATE"
  readonly pfn: number
}

/** LAUNCH_UPDATE as far as the page goes; `asid` is that of the guest, `masks` are those of VMPL1, VMPL2 and VMPL3. */
export interface LaunchPageCommand {
  readonly command: "LAUNCH_UPDATE"
  readonly pfn: number
  readonly pageType: number
  readonly asid: number
  readonly size: PageSize
  readonly masks: readonly [number, number, number]
}

/** MD_INIT of a page for the guest whose context is in frame `contextPfn`. */
export interface MetadataInitCommand {
  readonly command: "MD_INIT"
  readonly pfn: number
  readonly contextPfn: number
}

/**
 * Source page, destination page, and the metadata page whose first entry describes the image. SWAP_OUT reads the guest's
 * page `pfn` and leaves the image in `targetPfn`; SWAP_IN reads the image in `pfn` and fills the guest's page `targetPfn`.
 * PAGE_MOVE needs no metadata.
 */
export interface TransferCommand {
  readonly command: "PAGE_MOVE" | "SWAP_OUT" | "SWAP_IN"
  readonly pfn: number
  readonly targetPfn: number
  readonly metadataPfn: number
}

/** Frames are system frame numbers. */
export type PageCommand = OnePageCommand | LaunchPageCommand | MetadataInitCommand | TransferCommand
