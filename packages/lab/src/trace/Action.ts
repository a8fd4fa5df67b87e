import type { PageCommand } from "@vmpl-lab/psp"
import type { PageSize, Switches } from "@vmpl-lab/rmp"

/** Names of the access kinds; the index of a name is its number in `ACCESS` of the RMP package. */
export const ACCESS_KINDS = ["read", "write", "fetch", "page-table-read", "page-table-write"] as const

/** One of ACCESS.READ to ACCESS.PAGE_TABLE_WRITE. */
export type AccessKind = 0 | 1 | 2 | 3 | 4

/** ASIDs that a guest can have; 0 is the host's and 0x3FF is used by firmware. @spec SNP-ABI "Page States" */
export const ASID_MAX = 1022

/** First line of a trace. The RMP covers `pages` pages of 4 KiB from frame `basePfn` on; every switch is spelled out. */
export interface TraceConfig {
  readonly pages: number
  readonly basePfn: number
  readonly vmpls: number
  readonly switches: Switches
  /** 4 KiB pages of a 2 MiB page: 512 unless the machine is made small to be explored. */
  readonly pagesPer2M?: number
}

/** The nested mapping of a GPA: first system frame and size of the mapped page. */
export interface NestedMapping {
  readonly pfn: number
  readonly size: PageSize
}

/** A guest that executes an instruction or accesses memory at a GPA; `npt` null: the GPA is not mapped. */
export interface GuestAt {
  readonly asid: number
  readonly vmpl: number
  readonly gfn: number
  readonly npt: NestedMapping | null
}

export type RmpupdateAction = {
  readonly op: "rmpupdate"
  readonly pfn: number
  readonly assigned: boolean
  readonly size: PageSize
  readonly immutable: boolean
  readonly gfn: number
  readonly asid: number
}
export type PvalidateAction = GuestAt & {
  readonly op: "pvalidate"
  readonly size: PageSize
  readonly validate: boolean
}
export type RmpadjustAction = GuestAt & {
  readonly op: "rmpadjust"
  readonly size: PageSize
  readonly targetVmpl: number
  readonly mask: number
  readonly vmsa: boolean
}
export type RmpqueryAction = GuestAt & { readonly op: "rmpquery"; readonly targetVmpl: number }
export type GuestAccessAction = GuestAt & {
  readonly op: "access"
  readonly by: "guest"
  readonly kind: AccessKind
  readonly cpl: number
  readonly cbit: boolean
}
export type PlainAccessAction = {
  readonly op: "access"
  readonly by: "host" | "non-snp"
  readonly kind: AccessKind
  readonly pfn: number
  readonly size: PageSize
}
export type VmrunAction = {
  readonly op: "vmrun"
  readonly asid: number
  readonly gfn: number
  /** Frame of the VMSA. */
  readonly pfn: number
  readonly snp: boolean
}

/** Firmware commands that name one page and nothing more. */
export const PAGE_COMMANDS = ["PAGE_RECLAIM", "PAGE_UNSMASH", "GCTX_CREATE", "DECOMMISSION", "PAGE_SET_STATE"] as const

/** Firmware commands that take a page, a target page and a metadata page. */
export const MOVE_COMMANDS = ["PAGE_MOVE", "SWAP_OUT", "SWAP_IN"] as const

/** A command of the AMD-SP on pages alone: there are no guest contexts behind it. */
export type FirmwareAction = PageCommand & { readonly op: "firmware" }

/**
 * One step of the machine as plain data: a line of a trace, a command of a property test and an edge of the explorer.
 * Addresses are frame numbers (system `pfn`, guest `gfn`), sizes 0 for 4 KiB and 1 for 2 MiB, masks as in PERMISSION.
 */
export type Action =
  | RmpupdateAction
  | { readonly op: "psmash" | "rmpread" | "vmexit" | "entry"; readonly pfn: number }
  | PvalidateAction
  | RmpadjustAction
  | RmpqueryAction
  | PlainAccessAction
  | GuestAccessAction
  | VmrunAction
  | FirmwareAction
  | { readonly op: "digest" }

export type Op = Action["op"]
