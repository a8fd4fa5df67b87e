import type { Status } from "@vmpl-lab/psp"
import type { PageSize } from "@vmpl-lab/rmp"

/** LAUNCH_UPDATE of one page; `masks` are those of VMPL1, VMPL2 and VMPL3. */
export interface PageLaunch {
  readonly pageType: number
  readonly asid: number
  readonly size: PageSize
  readonly masks: readonly [number, number, number]
}

/**
 * The AMD-SP as a trace uses it: one method per command, pages by system frame number, the name of the status as the
 * answer. There are no guest contexts behind it, only page states; a refused command changes nothing.
 */
export interface FirmwarePort {
  gctxCreate(pfn: number): Status
  decommission(pfn: number): Status
  launchUpdate(pfn: number, launch: PageLaunch): Status
  pageReclaim(pfn: number): Status
  pageUnsmash(pfn: number): Status
  pageSetState(pfn: number): Status
  mdInit(pfn: number, contextPfn: number): Status
  pageMove(pfn: number, targetPfn: number, metadataPfn: number): Status
  swapOut(pfn: number, targetPfn: number, metadataPfn: number): Status
  swapIn(pfn: number, targetPfn: number, metadataPfn: number): Status
}
