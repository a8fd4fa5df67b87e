// @ghcb 0x7b
import { EXIT, encodeIoio, SHARED_BUFFER_SIZE, u64 } from "@vmpl-lab/sev-es"
import { OP, type Program } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import type { Outcome } from "./Exchange.ts"
import { copyBytes, sharedBuffer } from "./SharedMemory.ts"

const plain = (port: number, size: number, isIn: boolean) => ({
  info1: u64(encodeIoio({ port, size, in: isIn, string: false, rep: false }))
})

/** The lower `size` bytes of a register. */
const lower = (value: number, size: number): number => (size === 4 ? value >>> 0 : value & (2 ** (8 * size) - 1))

/** IN of 1, 2 or 4 bytes, event 0x7b: of RAX just the bytes that the instruction writes. */
export function* ghcbIn(ghcb: Ghcb, port: number, size: number): Program<Outcome<number>> {
  const reply = yield* ghcb.request(EXIT.IOIO, plain(port, size, true), ["rax"])
  return reply.ok ? { ok: true, value: lower(reply.value.rax.lo, size) } : reply
}

/** OUT of 1, 2 or 4 bytes, event 0x7b: of RAX just the bytes that the instruction reads. */
export function* ghcbOut(ghcb: Ghcb, port: number, size: number, value: number): Program<Outcome<null>> {
  const reply = yield* ghcb.request(EXIT.IOIO, { ...plain(port, size, false), rax: u64(lower(value, size)) })
  return reply.ok ? { ok: true, value: null } : reply
}

/** REP INS or REP OUTS, as far as its direction does not matter. */
export interface StringIo {
  readonly port: number
  /** Bytes of an element. */
  readonly size: number
  /** Elements. */
  readonly count: number
  /** Where they are in the guest's own memory, and whether that is private. */
  readonly address: number
  readonly cbit: boolean
}

/** A scratch area of shared memory outside of the GHCB page. */
export interface ScratchArea {
  readonly gpa: number
  /** Bytes, at most SCRATCH_AREA_LIMIT. */
  readonly length: number
}

/**
 * REP INS or REP OUTS, event 0x7b: as many elements at a time as the scratch area holds, by default the shared buffer.
 * What an earlier chunk did stays done when a later one fails, as with an interrupted instruction.
 */
export function* ghcbStringIo(
  ghcb: Ghcb,
  isIn: boolean,
  io: StringIo,
  area: ScratchArea = { gpa: sharedBuffer(ghcb.gpa), length: SHARED_BUFFER_SIZE }
): Program<Outcome<null>> {
  const { port, size, count, address, cbit } = io
  const perChunk = Math.floor(area.length / size)
  const info1 = u64(encodeIoio({ port, size, in: isIn, string: true, rep: true }))
  for (let first = 0; first < count; first += perChunk) {
    const elements = Math.min(perChunk, count - first)
    const bytes = new Uint8Array(elements * size)
    const at = address + first * size
    // The guest's own memory may fault: it is touched while nobody holds the GHCB.
    if (!isIn) yield* copyBytes(OP.READ_BYTES, at, bytes, cbit)
    const reply = yield* ghcb.holding(function* () {
      if (!isIn) yield* copyBytes(OP.WRITE_BYTES, area.gpa, bytes, false)
      const answer = yield* ghcb.exchange(EXIT.IOIO, { info1, info2: u64(elements), scratch: area.gpa })
      if (isIn && answer.ok) yield* copyBytes(OP.READ_BYTES, area.gpa, bytes, false)
      return answer
    })
    if (!reply.ok) return reply
    if (isIn) yield* copyBytes(OP.WRITE_BYTES, at, bytes, cbit)
  }
  return { ok: true, value: null }
}
