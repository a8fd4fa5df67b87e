import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { PspMemory } from "./Ports.ts"

/** A piece of a range of memory that lies in one frame. */
interface Piece {
  readonly pfn: number
  /** Where it begins in the frame, and in the range. */
  readonly inFrame: number
  readonly inRange: number
  readonly length: number
}

/** A range of system memory, frame by frame. `paddr` in bytes. */
function* pieces(paddr: number, length: number): Generator<Piece> {
  for (let inRange = 0; inRange < length; ) {
    const pfn = Math.floor((paddr + inRange) / PAGE_SIZE)
    const inFrame = (paddr + inRange) % PAGE_SIZE
    const size = Math.min(PAGE_SIZE - inFrame, length - inRange)
    yield { pfn, inFrame, inRange, length: size }
    inRange += size
  }
}

/** Frames that a range of system memory touches. */
export const framesOf = (paddr: number, length: number): ReadonlyArray<number> =>
  [...pieces(paddr, length)].map(({ pfn }) => pfn)

const readRange = (paddr: number, length: number, frame: (pfn: number) => Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (const piece of pieces(paddr, length))
    bytes.set(frame(piece.pfn).subarray(piece.inFrame, piece.inFrame + piece.length), piece.inRange)
  return bytes
}

/** Bytes of system memory as the host sees them. */
export const readPlainRange = (memory: PspMemory, paddr: number, length: number): Uint8Array =>
  readRange(paddr, length, (pfn) => memory.readPlain(pfn))

/** Bytes of system memory as the guest with this ASID sees them. */
export const readEncryptedRange = (memory: PspMemory, paddr: number, length: number, asid: number): Uint8Array =>
  readRange(paddr, length, (pfn) => memory.readEncrypted(pfn, asid))

/** The frame with the piece replaced; what else is in it stays the same for every key. */
const patched = (frame: Uint8Array, { inFrame, inRange, length }: Piece, bytes: Uint8Array): Uint8Array => {
  const copy = frame.slice()
  copy.set(bytes.subarray(inRange, inRange + length), inFrame)
  return copy
}

/** Writes bytes without a guest key. */
export const writePlainRange = (memory: PspMemory, paddr: number, bytes: Uint8Array): void => {
  for (const piece of pieces(paddr, bytes.length))
    memory.writePlain(piece.pfn, patched(memory.readPlain(piece.pfn), piece, bytes))
}

/** Writes bytes under the key of `asid`. */
export const writeEncryptedRange = (memory: PspMemory, paddr: number, bytes: Uint8Array, asid: number): void => {
  for (const piece of pieces(paddr, bytes.length))
    memory.writeEncrypted(piece.pfn, asid, patched(memory.readEncrypted(piece.pfn, asid), piece, bytes))
}
