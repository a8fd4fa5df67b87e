import type { FirmwareRequest } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import type { GuestVmsa, SvsmState } from "../State.ts"
import { isCallersBuffer, readGuest, writeGuest } from "./GuestBuffer.ts"
import type { AllocatePage } from "./SecretStore.ts"

/** A message for the AMD-SP: a report about the service's level over 64 bytes, or any other. */
export type FirmwareAsk =
  | { readonly kind: "report"; readonly data: Uint8Array }
  | { readonly kind: "message"; readonly message: FirmwareRequest }

/** What a service's program may do at its level: everything that a handler asks for ends here. */
export interface ServiceAccess {
  /** True when the calling level may itself write all of a range, and every page of it can be touched. */
  readonly isCallersBuffer: (vmpl: number, gpa: number, size: number) => Program<boolean>
  /** Fills `into` from guest memory; false where the guest has taken it away. */
  readonly read: (gpa: number, into: Uint8Array) => Program<boolean>
  /** Stores `from` in guest memory; false where the guest has taken it away. */
  readonly write: (gpa: number, from: Uint8Array) => Program<boolean>
  /** Pages that belong to this level alone. */
  readonly allocate: AllocatePage
  /** Report or reply; null where the firmware refuses, the host will not carry the message, or this level has no key. */
  readonly firmware: (ask: FirmwareAsk) => Program<Uint8Array | null>
}

/** A service at VMPL0: memory as the SVSM tracks it, pages of its heap, messages under its key. */
export const svsmAccess = (state: SvsmState, { apicId }: GuestVmsa): ServiceAccess => ({
  isCallersBuffer: (vmpl, gpa, size) => isCallersBuffer(state, vmpl, gpa, size),
  read: (gpa, into) => readGuest(state, gpa, into),
  write: (gpa, from) => writeGuest(state, gpa, from),
  allocate: () => state.heap.allocate(state.parameters),
  *firmware(ask) {
    const { messages } = state
    if (messages === null) return null
    if (ask.kind === "message") return yield* messages.ask(apicId, ask.message)
    const reply = yield* messages.report(apicId, ask.data, 0)
    return reply?.ok === true ? reply.payload : null
  }
})
