// @section 3.3
import { createCipheriv, createDecipheriv } from "node:crypto"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"

/** ASID of the host: its accesses carry no guest key. */
export const HOST_ASID = 0

/** One 4 KiB frame of DRAM: what it decrypts to under the key of `asid`. */
interface Frame {
  asid: number
  bytes: Uint8Array
  view: DataView
}

/** Frames in one chunk of the table of frames: a chunk exists from the first write into it. */
const CHUNK_BITS = 12
const CHUNK = 1 << CHUNK_BITS

/** Number of a frame's chunk. A shift, where it can be: this is behind every access. */
const chunkOf = (pfn: number): number => (pfn < 0x8000_0000 ? pfn >> CHUNK_BITS : Math.floor(pfn / CHUNK))

const ZERO_PAGE = new Uint8Array(PAGE_SIZE)

const frameOf = (asid: number, bytes: Uint8Array): Frame => ({
  asid,
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, PAGE_SIZE)
})

/**
 * DRAM behind the memory controller's encryption engine. A frame holds ciphertext; it is kept as plaintext together
 * with the ASID whose key produced it, and turned into what another key sees only when somebody looks. Cipher:
 * AES-128-XTS with the system physical address as tweak, so equal plaintext at two addresses has unequal ciphertext
 * and a frame copied elsewhere decrypts to garbage.
 *
 * This is the raw device. Software never holds it: guests reach it through Processor, the host through HostMemory,
 * the AMD-SP through its port.
 * @spec APM2 15.34 (keys by ASID)
 */
export class PhysicalMemory {
  readonly pages: number
  /** Grows whenever a frame comes into being or changes its key: while it stays, views from `live` and `write` hold. */
  changes = 0
  readonly #chunks: Array<Array<Frame | undefined> | undefined>
  readonly #keys = new Map<number, Buffer>()

  constructor(pages: number) {
    this.pages = pages
    this.#chunks = new Array(Math.ceil(pages / CHUNK))
  }

  /** Gives an ASID its memory key: 32 bytes (two AES-128 keys). What an earlier key wrote stays its ciphertext. */
  setKey(asid: number, key: Uint8Array): void {
    this.dropKey(asid)
    this.#keys.set(asid, Buffer.from(key))
  }

  /** Forgets an ASID's key; what was written under it stays ciphertext. */
  dropKey(asid: number): void {
    this.#forEach((pfn, frame) => {
      if (frame.asid === asid) this.#put(pfn, this.#as(pfn, frame, HOST_ASID))
    })
    this.#keys.delete(asid)
  }

  /** The frame's bytes as the key of `asid` shows them. Read only: a view may be a temporary one. */
  read(pfn: number, asid: number): DataView {
    const frame = this.#at(pfn)
    if (frame === undefined) return asid === HOST_ASID ? ZERO_VIEW : this.#materialise(pfn, asid).view
    return frame.asid === asid ? frame.view : this.#as(pfn, frame, asid).view
  }

  /** The frame's bytes themselves if the key of `asid` shows them, else null: no temporary view. */
  live(pfn: number, asid: number): DataView | null {
    const frame = this.#at(pfn)
    return frame !== undefined && frame.asid === asid ? frame.view : null
  }

  /** The frame's bytes under the key of `asid`, to be written: from now on the frame is encrypted with that key. */
  write(pfn: number, asid: number): DataView {
    const frame = this.#at(pfn)
    if (frame !== undefined && frame.asid === asid) return frame.view
    return this.#materialise(pfn, asid).view
  }

  /** Replaces the whole frame: no need to know what it held. `bytes` is copied; null writes zeros. */
  replace(pfn: number, asid: number, bytes: Uint8Array | null): void {
    const frame = this.#at(pfn)
    if (frame !== undefined) {
      if (frame.asid !== asid) this.changes++
      frame.asid = asid
      frame.bytes.set(bytes ?? ZERO_PAGE)
    } else this.#put(pfn, frameOf(asid, bytes === null ? new Uint8Array(PAGE_SIZE) : Uint8Array.from(bytes)))
  }

  /** Visits every frame that was ever written, in address order, as (pfn, ASID of its key, plaintext). */
  forEachFrame(visit: (pfn: number, asid: number, bytes: Uint8Array) => void): void {
    this.#forEach((pfn, frame) => visit(pfn, frame.asid, frame.bytes))
  }

  #at(pfn: number): Frame | undefined {
    const chunk = this.#chunks[chunkOf(pfn)]
    return chunk === undefined ? undefined : chunk[pfn & (CHUNK - 1)]
  }

  #put(pfn: number, frame: Frame): void {
    this.changes++
    const index = chunkOf(pfn)
    const chunk = this.#chunks[index]
    if (chunk !== undefined) chunk[pfn & (CHUNK - 1)] = frame
    else {
      const fresh = new Array<Frame | undefined>(CHUNK)
      fresh[pfn & (CHUNK - 1)] = frame
      this.#chunks[index] = fresh
    }
  }

  #forEach(visit: (pfn: number, frame: Frame) => void): void {
    for (const [index, chunk] of this.#chunks.entries())
      chunk?.forEach((frame, at) => {
        if (frame !== undefined) visit(index * CHUNK + at, frame)
      })
  }

  #materialise(pfn: number, asid: number): Frame {
    const old = this.#at(pfn) ?? frameOf(HOST_ASID, new Uint8Array(PAGE_SIZE))
    const frame = this.#as(pfn, old, asid)
    this.#put(pfn, frame)
    return frame
  }

  /** What a frame looks like under another key: encrypt with the writer's, decrypt with the reader's. */
  #as(pfn: number, frame: Frame, asid: number): Frame {
    if (frame.asid === asid) return frame
    const tweak = Buffer.alloc(16)
    tweak.writeBigUInt64LE(BigInt(pfn) * BigInt(PAGE_SIZE))
    const writerKey = this.#keys.get(frame.asid)
    const readerKey = this.#keys.get(asid)
    let bytes: Uint8Array = frame.bytes
    if (writerKey !== undefined) bytes = createCipheriv("aes-128-xts", writerKey, tweak).update(bytes)
    if (readerKey !== undefined) bytes = createDecipheriv("aes-128-xts", readerKey, tweak).update(bytes)
    return frameOf(asid, bytes === frame.bytes ? Uint8Array.from(bytes) : bytes)
  }
}

const ZERO_VIEW = new DataView(ZERO_PAGE.buffer)
