import type { Status } from "@vmpl-lab/psp"
import {
  type FaultBit,
  faultBits,
  faultName,
  isFault,
  type PageState,
  type RmpEntry,
  type Switches
} from "@vmpl-lab/rmp"
import { addressText, type Perms, permsOf, type SizeText, sizeText } from "./TraceText.ts"

/** What RMPREAD shows. */
export interface RmpreadEntry {
  readonly assigned: boolean
  readonly size: SizeText
  readonly immutable: boolean
  readonly gpa: string
  readonly asid: number
  readonly regionStatus: boolean
}

export type FaultReply =
  | { readonly fault: "#NPF"; readonly bits: ReadonlyArray<FaultBit> }
  | { readonly fault: "#PF"; readonly bits: ReadonlyArray<FaultBit> }
  | { readonly fault: "#VC"; readonly error: "0x404" }
  | { readonly fault: "#GP" | "#UD" }

/** The stored entry of a covered page, with the state of the page that it belongs to. */
export interface EntryReply {
  readonly state: PageState
  readonly assigned: boolean
  readonly size: SizeText
  readonly immutable: boolean
  readonly gpa: string
  readonly asid: number
  readonly validated: boolean
  readonly vmsa: boolean
  readonly inUse: boolean
  readonly perms: ReadonlyArray<Perms>
}

/** The reply to one line. Its keys stand in the order in which they are printed; JSON.stringify gives the line. */
export type Reply =
  | { readonly ok: true }
  | { readonly ok: true; readonly switches: Switches }
  | { readonly ok: true; readonly data: string }
  | { readonly eax: number }
  | { readonly eax: number; readonly cf: 0 | 1 }
  | { readonly eax: 0; readonly entry: RmpreadEntry }
  | { readonly eax: 0; readonly perms: Perms; readonly vmsa: boolean; readonly size: SizeText }
  | FaultReply
  | { readonly exit: "VMEXIT_INVALID" }
  | { readonly status: Status }
  | EntryReply
  | { readonly state: "Default" }
  | { readonly digest: string }

export const OK = { ok: true } as const

/** A fault number of the RMP package as a reply. */
export const faultReply = (code: number): FaultReply => {
  const fault = faultName(code)
  switch (fault) {
    case "#NPF":
    case "#PF":
      return { fault, bits: faultBits(code) }
    case "#VC":
      return { fault, error: "0x404" }
    case "#GP":
    case "#UD":
      return { fault }
  }
  throw new Error(`faultReply: ${code} is no fault`)
}

/** The number that a check returns: nothing, or a fault. */
export const checkReply = (code: number): Reply => (isFault(code) ? faultReply(code) : OK)

/** The number that an instruction returns, where its reply is EAX alone. */
export const eaxReply = (code: number): Reply => (isFault(code) ? faultReply(code) : { eax: code })

export const entryReply = (state: PageState, entry: RmpEntry): EntryReply => ({
  state,
  assigned: entry.assigned,
  size: sizeText(entry.size),
  immutable: entry.immutable,
  gpa: addressText(entry.gfn),
  asid: entry.asid,
  validated: entry.validated,
  vmsa: entry.vmsa,
  inUse: entry.inUse,
  perms: entry.perms.map(permsOf)
})
