import { setU64, toNumber, VMSA } from "@vmpl-lab/sev-es"
import { type Program, read, readBytes, readRegister, write, writeBytes, xchg8 } from "@vmpl-lab/vmpl"
import { type LevelContext, ringLevel } from "./programs/LowerLevels.ts"
import { type CallArguments, NOT_SERVED, SVSM_RESULT, type SvsmCaller } from "./SvsmCall.ts"

/**
 * A call to a service at a level between the SVSM's and the caller's, in a page that both can write: what the SVSM
 * finds in the caller's VMSA, which nobody but VMPL0 can read. This project's own convention.
 */
export const LEVEL_CALL = {
  /** As call_pending of a calling area. */
  pending: 0x00,
  /** The caller has no more calls: the level need not be run again. */
  end: 0x01,
  call: 0x04,
  protocol: 0x08,
  rcx: 0x10,
  rdx: 0x18,
  r8: 0x20,
  result: 0x28,
  SIZE: 0x30
} as const

/** What a call leaves in its registers, each exact below 2^53. */
export interface CallReplies {
  readonly rcx: number
  readonly rdx: number
  readonly r8: number
}

/** Somebody who can be called: the SVSM, or a service at another level. */
export interface ServiceCaller {
  readonly call: (protocol: number, call: number, values: CallArguments) => Program<number>
  /** After a call. */
  readonly replies: () => Program<CallReplies>
}

const number = ({ lo, hi }: { readonly lo: number; readonly hi: number }): number => toNumber(lo, hi)

/** The SVSM: replies are in the caller's registers. */
export const svsmService = (svsm: SvsmCaller): ServiceCaller => ({
  call: (protocol, call, values) => svsm.call(protocol, call, values),
  *replies() {
    const rcx = number(yield readRegister(VMSA.rcx))
    const rdx = number(yield readRegister(VMSA.rdx))
    return { rcx, rdx, r8: number(yield readRegister(VMSA.r8)) }
  }
})

/** A service at another level of the same vCPU: replies are in the page. */
export const levelService = (area: number, context: LevelContext, vmpl: number): ServiceCaller => ({
  *call(protocol, call, values) {
    for (;;) {
      const result = yield* callOnce(area, context, vmpl, requestBytes(protocol, call, values))
      if (result !== SVSM_RESULT.INCOMPLETE && result !== SVSM_RESULT.BUSY) return result
    }
  },
  *replies() {
    const rcx = number(yield read(area + LEVEL_CALL.rcx, 8))
    const rdx = number(yield read(area + LEVEL_CALL.rdx, 8))
    return { rcx, rdx, r8: number(yield read(area + LEVEL_CALL.r8, 8)) }
  }
})

const requestBytes = (protocol: number, call: number, { rcx = 0, rdx = 0, r8 = 0 }: CallArguments): Uint8Array => {
  const bytes = new Uint8Array(LEVEL_CALL.SIZE)
  const view = new DataView(bytes.buffer)
  view.setUint32(LEVEL_CALL.call, call, true)
  view.setUint32(LEVEL_CALL.protocol, protocol, true)
  setU64(view, LEVEL_CALL.rcx, rcx)
  setU64(view, LEVEL_CALL.rdx, rdx)
  setU64(view, LEVEL_CALL.r8, r8)
  return bytes
}

/** Written, rung, and looked at whether it was served, as with the SVSM. */
function* callOnce(area: number, context: LevelContext, vmpl: number, bytes: Uint8Array): Program<number> {
  yield writeBytes(area, bytes)
  yield write(area + LEVEL_CALL.pending, 1, 1)
  yield* ringLevel(context, vmpl)
  if ((yield xchg8(area + LEVEL_CALL.pending, 0)).lo !== 0) return NOT_SERVED
  return (yield read(area + LEVEL_CALL.result, 4)).lo
}

/** A call as a service's level reads it, once, before it looks at anything. */
export interface LevelRequest {
  readonly isPending: boolean
  readonly isEnd: boolean
  readonly protocol: number
  readonly call: number
  /** Registers as lower and upper words: RCX, RDX, R8. */
  readonly words: ReadonlyArray<number>
}

export function* readLevelRequest(area: number): Program<LevelRequest> {
  const bytes = new Uint8Array(LEVEL_CALL.SIZE)
  yield readBytes(area, bytes)
  const view = new DataView(bytes.buffer)
  return {
    isPending: bytes[LEVEL_CALL.pending] === 1,
    isEnd: bytes[LEVEL_CALL.end] === 1,
    protocol: view.getUint32(LEVEL_CALL.protocol, true),
    call: view.getUint32(LEVEL_CALL.call, true),
    words: Array.from({ length: 6 }, (_, i) => view.getUint32(LEVEL_CALL.rcx + 4 * i, true))
  }
}

/** The answer; the caller sees it once it is run again. */
export function* writeLevelReply(area: number, words: ReadonlyArray<number>, result: number): Program {
  const bytes = new Uint8Array(LEVEL_CALL.SIZE - LEVEL_CALL.rcx)
  const view = new DataView(bytes.buffer)
  for (const [i, word] of words.entries()) view.setUint32(4 * i, word, true)
  view.setUint32(LEVEL_CALL.result - LEVEL_CALL.rcx, result >>> 0, true)
  yield writeBytes(area + LEVEL_CALL.rcx, bytes)
  yield write(area + LEVEL_CALL.pending, 1, 0)
}
