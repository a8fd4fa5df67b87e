// @section 3.3
import { createCipheriv, createDecipheriv } from "node:crypto"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { assert } from "@vmpl-lab/sim"

/** ASID of the host: its accesses carry no guest key. */
export const HOST_ASID = 0

/**
 * One 4 KiB frame of DRAM: what it decrypts to under the key of `asid`. A frame that was cleared and not written since
 * holds no bytes of its own; its `asid` is the complement, so that no access takes it for one that does.
 */
interface Frame {
  asid: number
  bytes: Uint8Array
  view: DataView
  /** The first of its bytes, once somebody has copied as many: a window on them takes longer to make than to copy. */
  head: Uint8Array | null
}

/** Frames in one chunk of the table of frames: a chunk exists from the first write into it. */
const CHUNK_BITS = 9
const CHUNK = 1 << CHUNK_BITS

/** Number of a frame's chunk. A shift, where it can be: this is behind every access. */
const chunkOf = (pfn: number): number => (pfn < 0x8000_0000 ? pfn >> CHUNK_BITS : Math.floor(pfn / CHUNK))

const ZERO_PAGE = new Uint8Array(PAGE_SIZE)

const frameOf = (asid: number, bytes: Uint8Array): Frame => ({
  asid,
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, PAGE_SIZE),
  head: null
})

const headOf = (frame: Frame, length: number): Uint8Array => {
  if (frame.head?.length !== length) frame.head = frame.bytes.subarray(0, length)
  return frame.head
}

/** The ASID whose key wrote a frame. */
const writerOf = ({ asid }: Frame): number => (asid < 0 ? ~asid : asid)

const isCleared = ({ asid }: Frame): boolean => asid < 0

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
  /** By ASID: a chunk of cleared frames, which stands for any number of them until one of its frames is written. */
  readonly #cleared = new Map<number, Array<Frame | undefined>>()

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
      if (writerOf(frame) === asid) this.#put(pfn, this.#as(pfn, frame, HOST_ASID))
    })
    this.#keys.delete(asid)
  }

  /** The frame's bytes as the key of `asid` shows them. Read only: a view may be a temporary one. */
  read(pfn: number, asid: number): DataView {
    const frame = this.#at(pfn)
    if (frame === undefined) return asid === HOST_ASID ? ZERO_VIEW : this.#materialise(pfn, asid).view
    if (frame.asid === asid) return frame.view
    return frame.asid === ~asid ? ZERO_VIEW : this.#as(pfn, frame, asid).view
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

  /** Fills `into` with the first bytes of a frame, as `read` shows them. */
  readHead(pfn: number, asid: number, into: Uint8Array): void {
    const frame = this.#at(pfn)
    if (frame !== undefined && frame.asid === asid) into.set(headOf(frame, into.length))
    else into.set(bytesIn(this.read(pfn, asid), into.length))
  }

  /** Stores all of `from` at the beginning of a frame, as through `write`. */
  writeHead(pfn: number, asid: number, from: Uint8Array): void {
    const frame = this.#at(pfn)
    if (frame !== undefined && frame.asid === asid) headOf(frame, from.length).set(from)
    else bytesIn(this.write(pfn, asid), from.length).set(from)
  }

  /** Replaces the whole frame: no need to know what it held. `bytes` is copied; null writes zeros. */
  replace(pfn: number, asid: number, bytes: Uint8Array | null): void {
    const frame = this.#at(pfn)
    if (frame !== undefined && !isCleared(frame)) {
      if (frame.asid !== asid) this.changes++
      frame.asid = asid
      frame.bytes.set(bytes ?? ZERO_PAGE)
    } else this.#put(pfn, bytes === null ? this.#clearedChunk(asid)[0]! : frameOf(asid, Uint8Array.from(bytes)))
  }

  /** Writes zeros to a whole 2 MiB region under the key of `asid`. `pfn` is its first frame. */
  clearRegion(pfn: number, asid: number): void {
    assert(pfn % CHUNK === 0, "a 2 MiB region begins at a multiple of 2 MiB")
    this.changes++
    this.#chunks[chunkOf(pfn)] = this.#clearedChunk(asid)
  }

  /** Visits every frame that was ever written, in address order, as (pfn, ASID of its key, plaintext). */
  forEachFrame(visit: (pfn: number, asid: number, bytes: Uint8Array) => void): void {
    this.#forEach((pfn, frame) => visit(pfn, writerOf(frame), frame.bytes))
  }

  /** Feeds a digest with the contents of every frame that was ever written; cleared ones by their number alone. */
  digestInto(update: (data: Uint8Array | string) => void): void {
    for (const [index, chunk] of this.#chunks.entries()) {
      const first = chunk?.[0]
      if (first !== undefined && this.#isShared(chunk)) {
        update(`${index * CHUNK}+${CHUNK}:${writerOf(first)};`)
        continue
      }
      chunk?.forEach((frame, at) => {
        if (frame === undefined) return
        update(`${index * CHUNK + at}:${frame.asid};`)
        if (!isCleared(frame)) update(frame.bytes)
      })
    }
  }

  #clearedChunk(asid: number): Array<Frame | undefined> {
    let chunk = this.#cleared.get(asid)
    if (chunk === undefined) {
      chunk = new Array(CHUNK).fill({ asid: ~asid, bytes: ZERO_PAGE, view: ZERO_VIEW, head: null })
      this.#cleared.set(asid, chunk)
    }
    return chunk
  }

  #isShared(chunk: Array<Frame | undefined> | undefined): boolean {
    const first = chunk?.[0]
    return first !== undefined && isCleared(first) && this.#cleared.get(writerOf(first)) === chunk
  }

  #at(pfn: number): Frame | undefined {
    const chunk = this.#chunks[chunkOf(pfn)]
    return chunk === undefined ? undefined : chunk[pfn & (CHUNK - 1)]
  }

  #put(pfn: number, frame: Frame): void {
    this.changes++
    const index = chunkOf(pfn)
    const chunk = this.#chunks[index]
    if (chunk !== undefined) {
      const own = this.#isShared(chunk) ? chunk.slice() : chunk
      own[pfn & (CHUNK - 1)] = frame
      this.#chunks[index] = own
    } else {
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
    const seen = this.#as(pfn, old, asid)
    const frame = seen === old ? frameOf(asid, Uint8Array.from(old.bytes)) : seen
    this.#put(pfn, frame)
    return frame
  }

  /** What a frame looks like under another key: encrypt with the writer's, decrypt with the reader's. */
  #as(pfn: number, frame: Frame, asid: number): Frame {
    const writer = writerOf(frame)
    if (writer === asid) return frame
    const tweak = Buffer.alloc(16)
    tweak.writeBigUInt64LE(BigInt(pfn) * BigInt(PAGE_SIZE))
    const writerKey = this.#keys.get(writer)
    const readerKey = this.#keys.get(asid)
    let bytes: Uint8Array = frame.bytes
    if (writerKey !== undefined) bytes = createCipheriv("aes-128-xts", writerKey, tweak).update(bytes)
    if (readerKey !== undefined) bytes = createDecipheriv("aes-128-xts", readerKey, tweak).update(bytes)
    return frameOf(asid, bytes === frame.bytes ? Uint8Array.from(bytes) : bytes)
  }
}

const ZERO_VIEW = new DataView(ZERO_PAGE.buffer)

const bytesIn = ({ buffer, byteOffset }: DataView, length: number): Uint8Array =>
  new Uint8Array(buffer, byteOffset, length)
