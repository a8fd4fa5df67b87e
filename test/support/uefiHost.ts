import { EFI_STATUS, efiStatusOf, MM_HEADER, PROTOCOL, SVSM_RESULT, UEFI_MM_CALL } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { CallRegisters, ScriptedHost } from "./scriptedHost.ts"

/** Where the test guest has its messages: up to 256 KiB of validated RAM, and more behind it. */
export const BUFFER = 0x10_0000
/** What EDK2's firmware has. */
export const BUFFER_SIZE = 0x1_0000

/** Stores bytes in the guest's memory. */
export const put = (host: ScriptedHost, gpa: number, bytes: Uint8Array): void => {
  for (let at = 0; at < bytes.length; ) {
    const view = host.poke(gpa + at)
    const part = bytes.subarray(at, at + view.byteLength)
    new Uint8Array(view.buffer, view.byteOffset, part.length).set(part)
    at += part.length
  }
}

/** Reads bytes of the guest's memory. */
export const take = (host: ScriptedHost, gpa: number, size: number): Uint8Array => {
  const bytes = new Uint8Array(size)
  for (let at = 0; at < size; ) {
    const view = host.peek(gpa + at)
    const length = Math.min(size - at, PAGE_SIZE - ((gpa + at) % PAGE_SIZE))
    bytes.set(new Uint8Array(view.buffer, view.byteOffset, length), at)
    at += length
  }
  return bytes
}

/** One request with its message in the guest's buffer. @returns the call's result, and the message after it */
export const request = (
  host: ScriptedHost,
  message: Uint8Array,
  registers: CallRegisters = {}
): { readonly result: number; readonly message: Uint8Array } => {
  const rcx = typeof registers.rcx === "number" ? registers.rcx : BUFFER
  put(host, rcx, message)
  const { result } = host.call(PROTOCOL.UEFI_MM, UEFI_MM_CALL.REQUEST, { rcx, rdx: BUFFER_SIZE, ...registers })
  return { result, message: take(host, rcx, message.length) }
}

/** Name of a result code. */
export const resultName = (result: number): string => {
  const named = Object.entries(SVSM_RESULT).find(([name, value]) => value === result && name !== "FAIL_BASE")
  return named?.[0] ?? `0x${result.toString(16)}`
}

/** Name of a status. */
export const statusName = (status: number): string =>
  Object.entries(EFI_STATUS).find(([, value]) => value === status)?.[0] ?? `status ${status}`

/** The status that is `offset` bytes behind the message's header. */
export const statusAt = (message: Uint8Array, offset: number): string =>
  statusName(efiStatusOf(new DataView(message.buffer, message.byteOffset, message.byteLength), MM_HEADER.SIZE + offset))
