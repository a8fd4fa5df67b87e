import type { CpuidPolicy } from "./CpuidMessage.ts"
import type { GuestContext } from "./GuestContext.ts"
import type { PlatformIdentity } from "./PlatformIdentity.ts"
import { STATUS, type Status } from "./Status.ts"

/** What an answer to a guest's message may look at: the sender, the platform, and other guests. */
export interface MessageScene {
  readonly guest: GuestContext
  /** Frame of the sender's context. */
  readonly gctx: number
  /** Number of the VMPCK that protects the message: who knows it speaks for this VMPL and those after it. */
  readonly vmpck: number
  /** Of the message. */
  readonly version: number
  readonly platform: PlatformIdentity
  readonly smtEnabled: boolean
  readonly cpuidPolicy: CpuidPolicy
  /** The guest whose context is at a system physical address, or the status that refuses the address. */
  readonly contextAt: (address: bigint) => GuestContext | Status
}

/**
 * Answers one request. The payload is followed by zeros, so that fields of a request that is too short read as zero;
 * `size` is what the header says. The answer is the reply's payload, whose first word is a status: a request that the
 * firmware refuses gets a reply like any other, for it is the guest's mistake and not the hypervisor's.
 * @spec-silent requests that are too short: published firmware does not compare sizes
 */
export type MessageAnswer = (scene: MessageScene, payload: Uint8Array, size: number) => Uint8Array

/** An empty reply of `size` bytes that starts with a status. */
export const replyOf = (status: Status, size: number): Uint8Array => {
  const reply = new Uint8Array(size)
  new DataView(reply.buffer).setUint32(0, STATUS[status], true)
  return reply
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Whether the bytes from `start` to before `end` are all zero. */
export const isZero = (bytes: Uint8Array, start: number, end: number): boolean =>
  bytes.subarray(start, end).every((byte) => byte === 0)
