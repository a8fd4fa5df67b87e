import { createCipheriv } from "node:crypto"
import { FAULT, PAGE_4K, Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { HOST_ASID, HostMemory, PhysicalMemory } from "../src/index.ts"

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i * 7 + 1)
const OTHER_KEY = Uint8Array.from({ length: 32 }, (_, i) => 255 - i * 5)
const PAGES = 512

const newMemory = (): PhysicalMemory => {
  const memory = new PhysicalMemory(PAGES)
  memory.setKey(1, KEY)
  memory.setKey(2, OTHER_KEY)
  return memory
}

const bytesOf = (view: DataView): Uint8Array => Uint8Array.from(new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE))
const seen = (memory: PhysicalMemory, pfn: number, asid: number): Uint8Array => bytesOf(memory.read(pfn, asid))
const fill = (seed: number): Uint8Array => Uint8Array.from({ length: PAGE_SIZE }, (_, i) => (i * 31 + seed) & 0xff)
const put = (memory: PhysicalMemory, pfn: number, asid: number, bytes: Uint8Array): void => {
  const view = memory.write(pfn, asid)
  new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
}
const PLAIN = fill(3)
const ZEROS = new Uint8Array(PAGE_SIZE)

/** AES-128 of single blocks: the building stone of XTS, used here without it. */
const aes = (key: Uint8Array, block: Uint8Array): Uint8Array =>
  Uint8Array.from(createCipheriv("aes-128-ecb", key, null).setAutoPadding(false).update(block))
const xor = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((byte, i) => byte ^ b[i]!)
/** Times alpha in GF(2^128), little-endian, as XTS steps from block to block. */
const timesAlpha = (t: Uint8Array): Uint8Array => {
  const out = t.map((byte, i) => ((byte << 1) & 0xff) | (i > 0 ? t[i - 1]! >>> 7 : 0))
  if ((t[15]! & 0x80) !== 0) out[0]! ^= 0x87
  return out
}

describe("encrypted memory", () => {
  it("reads back under the key that wrote it, as ciphertext under every other", () => {
    const memory = newMemory()
    put(memory, 5, 1, PLAIN)
    expect(seen(memory, 5, 1)).toEqual(PLAIN)
    const host = seen(memory, 5, HOST_ASID)
    const other = seen(memory, 5, 2)
    expect(host).not.toEqual(PLAIN)
    expect(other).not.toEqual(PLAIN)
    expect(other).not.toEqual(host)
    // Looking changes nothing.
    expect(seen(memory, 5, 1)).toEqual(PLAIN)
    expect(seen(memory, 5, HOST_ASID)).toEqual(host)
  })

  it("is AES-128-XTS with the system physical address as tweak", () => {
    const memory = newMemory()
    const pfn = 0x123
    put(memory, pfn, 1, PLAIN)
    const address = new Uint8Array(16)
    new DataView(address.buffer).setUint32(0, pfn * 4096, true)
    const cipher = seen(memory, pfn, HOST_ASID)
    let tweak = aes(KEY.subarray(16), address)
    for (let at = 0; at < PAGE_SIZE; at += 16) {
      const block = PLAIN.subarray(at, at + 16)
      expect(cipher.subarray(at, at + 16)).toEqual(xor(aes(KEY.subarray(0, 16), xor(block, tweak)), tweak))
      tweak = timesAlpha(tweak)
    }
  })

  it("gives unequal ciphertext for equal plaintext in two frames", () => {
    const memory = newMemory()
    put(memory, 5, 1, PLAIN)
    put(memory, 6, 1, PLAIN)
    expect(seen(memory, 5, HOST_ASID)).not.toEqual(seen(memory, 6, HOST_ASID))
  })

  it("decrypts ciphertext that was copied back to its frame, and to garbage in another", () => {
    const memory = newMemory()
    put(memory, 5, 1, PLAIN)
    const cipher = seen(memory, 5, HOST_ASID)
    put(memory, 5, 1, ZEROS)
    expect(seen(memory, 5, 1)).toEqual(ZEROS)
    put(memory, 5, HOST_ASID, cipher)
    put(memory, 6, HOST_ASID, cipher)
    expect(seen(memory, 5, 1)).toEqual(PLAIN)
    expect(seen(memory, 6, 1)).not.toEqual(PLAIN)
    expect(seen(memory, 6, HOST_ASID)).toEqual(cipher)
  })

  it("lets a store under another key spoil what it does not cover", () => {
    const memory = newMemory()
    put(memory, 5, 1, PLAIN)
    memory.write(5, HOST_ASID).setUint8(100, 0xff)
    const after = seen(memory, 5, 1)
    // Sixteen bytes are one block: the rest of the page decrypts as before.
    expect(after.subarray(0, 96)).toEqual(PLAIN.subarray(0, 96))
    expect(after.subarray(112)).toEqual(PLAIN.subarray(112))
    expect(after.subarray(96, 112)).not.toEqual(PLAIN.subarray(96, 112))
  })

  it("is zero to the host before anybody wrote, and garbage to a guest", () => {
    const memory = newMemory()
    expect(seen(memory, 9, HOST_ASID)).toEqual(ZEROS)
    expect(seen(memory, 9, 1)).not.toEqual(ZEROS)
    expect(seen(memory, 9, HOST_ASID)).toEqual(ZEROS)
  })

  it("replaces and clears whole frames, and keeps its own copy", () => {
    const memory = newMemory()
    const source = Uint8Array.from(PLAIN)
    memory.replace(5, 1, source)
    memory.replace(6, 1, null)
    source[0]! ^= 1
    expect(seen(memory, 5, 1)).toEqual(PLAIN)
    expect(seen(memory, 6, 1)).toEqual(ZEROS)
    memory.replace(5, 2, null)
    expect(seen(memory, 5, 2)).toEqual(ZEROS)
    expect(seen(memory, 5, 1)).not.toEqual(PLAIN)
    memory.replace(5, HOST_ASID, PLAIN)
    expect(seen(memory, 5, HOST_ASID)).toEqual(PLAIN)
  })

  it("forgets a key: its frames stay ciphertext, for a later key of the ASID too", () => {
    const memory = newMemory()
    put(memory, 5, 1, PLAIN)
    put(memory, 6, 2, PLAIN)
    const cipher = seen(memory, 5, HOST_ASID)
    memory.dropKey(1)
    expect(seen(memory, 5, HOST_ASID)).toEqual(cipher)
    expect(seen(memory, 5, 1)).toEqual(cipher)
    expect(seen(memory, 6, 2)).toEqual(PLAIN)
    memory.setKey(1, OTHER_KEY)
    expect(seen(memory, 5, 1)).not.toEqual(PLAIN)
    expect(seen(memory, 5, HOST_ASID)).toEqual(cipher)
    memory.setKey(1, KEY)
    expect(seen(memory, 5, 1)).toEqual(PLAIN)
  })

  it("gives a frame of an ASID's old key to the new one as ciphertext", () => {
    const memory = newMemory()
    put(memory, 5, 1, PLAIN)
    const cipher = seen(memory, 5, HOST_ASID)
    memory.setKey(1, OTHER_KEY)
    expect(seen(memory, 5, HOST_ASID)).toEqual(cipher)
    expect(seen(memory, 5, 1)).not.toEqual(PLAIN)
  })

  it("visits the frames that were written, in order, with the owner of the key", () => {
    const memory = newMemory()
    put(memory, 7, 2, PLAIN)
    put(memory, 3, 1, ZEROS)
    put(memory, 5, HOST_ASID, PLAIN)
    const visited: Array<string> = []
    memory.forEachFrame((pfn, asid, bytes) => visited.push(`${pfn}:${asid}:${bytes[1]}`))
    expect(visited).toEqual([`3:1:0`, `5:0:${PLAIN[1]}`, `7:2:${PLAIN[1]}`])
  })

  it("agrees with a model of plain ciphertext under random accesses", () => {
    const pfn = fc.integer({ min: 0, max: 2 })
    const asid = fc.constantFrom(HOST_ASID, 1, 2)
    const access = fc.record({
      do: fc.constantFrom("write", "write", "read", "replace", "zero", "drop"),
      pfn,
      asid,
      at: fc.integer({ min: 0, max: 4095 }),
      value: fc.nat(255)
    })
    // The model keeps ciphertext only, and asks a fresh memory with one frame to translate it.
    const translate = (page: number, from: number, to: number, bytes: Uint8Array, keys: PhysicalMemory) => {
      keys.replace(page, from, bytes)
      return seen(keys, page, to)
    }
    fc.assert(
      fc.property(fc.array(access, { maxLength: 40 }), (accesses) => {
        const memory = newMemory()
        const keys = newMemory()
        const dram: Array<Uint8Array> = [ZEROS, ZEROS, ZEROS]
        for (const step of accesses) {
          const plain = translate(step.pfn, HOST_ASID, step.asid, dram[step.pfn]!, keys)
          if (step.do === "read") expect(memory.read(step.pfn, step.asid).getUint8(step.at)).toBe(plain[step.at])
          else if (step.do === "drop") {
            if (step.asid !== HOST_ASID) memory.dropKey(step.asid)
            if (step.asid !== HOST_ASID) keys.dropKey(step.asid)
          } else {
            if (step.do === "write") {
              plain[step.at] = step.value
              memory.write(step.pfn, step.asid).setUint8(step.at, step.value)
            } else {
              plain.set(step.do === "zero" ? ZEROS : fill(step.value))
              memory.replace(step.pfn, step.asid, step.do === "zero" ? null : fill(step.value))
            }
            dram[step.pfn] = translate(step.pfn, step.asid, HOST_ASID, plain, keys)
          }
          for (const [page, bytes] of dram.entries()) expect(seen(memory, page, HOST_ASID)).toEqual(bytes)
        }
      }),
      { seed: 20260831, numRuns: 60 }
    )
  })
})

describe("memory of a big machine", () => {
  const TIB = 2 ** 28

  it("takes room for what is written only, at either end", () => {
    const before = process.memoryUsage()
    const memory = new PhysicalMemory(TIB)
    memory.setKey(1, KEY)
    for (const pfn of [0, 4095, 4096, TIB - 1]) put(memory, pfn, 1, fill(pfn))
    const after = process.memoryUsage()
    expect(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers).toBeLessThan(16 * 2 ** 20)
    for (const pfn of [0, 4095, 4096, TIB - 1]) expect(seen(memory, pfn, 1)).toEqual(fill(pfn))
    expect(seen(memory, 8191, HOST_ASID)).toEqual(ZEROS)
    const visited: Array<number> = []
    memory.forEachFrame((pfn) => visited.push(pfn))
    expect(visited).toEqual([0, 4095, 4096, TIB - 1])
    memory.dropKey(1)
    for (const pfn of [0, 4095, 4096, TIB - 1]) expect(seen(memory, pfn, 1)).not.toEqual(fill(pfn))
  })
})

describe("the host's view of memory", () => {
  const setUp = () => {
    const memory = newMemory()
    const rmp = new Rmp({ pages: PAGES })
    const host = new HostMemory(memory, rmp)
    put(memory, 5, 1, PLAIN)
    rmp.rmpupdate(5, true, PAGE_4K, false, 0x80, 1)
    return { memory, rmp, host }
  }

  it.each([
    ["write8", (host: HostMemory) => host.write8(5 * PAGE_SIZE + 17, 0xff)],
    ["write32", (host: HostMemory) => host.write32(5 * PAGE_SIZE + 16, 0xffff_ffff)],
    ["write64", (host: HostMemory) => host.write64(5 * PAGE_SIZE + 16, 1, 2)],
    ["writePage", (host: HostMemory) => host.writePage(5, null)]
  ] as const)("%s to a guest's page takes #PF with the RMP bit and leaves the bytes", (_, store) => {
    const { memory, rmp, host } = setUp()
    const cipher = host.readPage(5)
    expect(store(host)).toBe(FAULT.PF | FAULT.RMP)
    expect(host.readPage(5)).toEqual(cipher)
    expect(seen(memory, 5, 1)).toEqual(PLAIN)
    // The same store passes once the page is the hypervisor's again.
    rmp.rmpupdate(5, false, PAGE_4K, false, 0, 0)
    expect(store(host)).toBe(FAULT.NONE)
    expect(host.readPage(5)).not.toEqual(cipher)
  })

  it("reads a guest's page without a fault: as ciphertext, whatever the width", () => {
    const { host } = setUp()
    const cipher = host.readPage(5)
    expect(cipher).not.toEqual(PLAIN)
    const view = new DataView(cipher.buffer)
    const at = 5 * PAGE_SIZE
    expect(host.read8(at + 3)).toBe(view.getUint8(3))
    expect(host.read16(at + 4)).toBe(view.getUint16(4, true))
    expect(host.read32(at + 8)).toBe(view.getUint32(8, true))
  })

  it("stores and loads its own pages little-endian, and gives copies of pages", () => {
    const { host } = setUp()
    const at = 6 * PAGE_SIZE
    expect(host.write64(at + 8, 0x89ab_cdef, 0x0012_3456)).toBe(FAULT.NONE)
    expect(host.read64(at + 8)).toBe(0x12_3456_89ab_cdef)
    expect([host.read8(at + 8), host.read16(at + 8), host.read32(at + 12)]).toEqual([0xef, 0xcdef, 0x12_3456])
    host.write32(at + 16, -1)
    host.write8(at + 17, 0x1_23)
    expect(host.read32(at + 16)).toBe(0xffff_23ff)
    const copy = host.readPage(6)
    copy[8] = 0
    expect(host.read8(at + 8)).toBe(0xef)
    host.writePage(6, PLAIN)
    expect(host.readPage(6)).toEqual(PLAIN)
    host.writePage(6, null)
    expect(host.readPage(6)).toEqual(ZEROS)
  })
})

describe("the head of a frame", () => {
  const LENGTHS = [0x670, 16]
  const start = (view: DataView, length: number): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, length)
  /** Heads on one memory, views on another: the same bytes, keys and changes. */
  const step = fc.record({
    kind: fc.constantFrom("read", "write", "replace", "clear", "drop"),
    pfn: fc.integer({ min: 0, max: 2 }),
    asid: fc.integer({ min: HOST_ASID, max: 2 }),
    length: fc.constantFrom(...LENGTHS),
    seed: fc.nat(255)
  })

  it("is copied as through a view, whoever wrote the frame and whatever became of it", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const [heads, views] = [newMemory(), newMemory()]
        for (const { kind, pfn, asid, length, seed } of steps) {
          const bytes = fill(seed)
          if (kind === "read") {
            const into = new Uint8Array(length)
            heads.readHead(pfn, asid, into)
            expect(into).toEqual(start(views.read(pfn, asid), length))
          } else if (kind === "write") {
            heads.writeHead(pfn, asid, bytes.subarray(0, length))
            start(views.write(pfn, asid), length).set(bytes.subarray(0, length))
          } else {
            for (const memory of [heads, views]) {
              if (kind === "replace") memory.replace(pfn, asid, seed % 2 === 0 ? bytes : null)
              else if (kind === "clear") memory.clearRegion(0, asid)
              else memory.setKey(2, fill(seed).subarray(0, 32))
            }
          }
          expect(heads.changes).toBe(views.changes)
        }
        for (const pfn of [0, 1, 2])
          for (const asid of [HOST_ASID, 1, 2]) expect(seen(heads, pfn, asid)).toEqual(seen(views, pfn, asid))
      }),
      { numRuns: 60 }
    )
  })
})
