import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { HOST_ASID, PhysicalMemory } from "../src/index.ts"

const REGION = 512
const ASIDS = [HOST_ASID, 1, 2]

const memoryWithKeys = (): PhysicalMemory => {
  const memory = new PhysicalMemory(2 * REGION)
  for (const asid of [1, 2])
    memory.setKey(
      asid,
      new Uint8Array(32).map((_, i) => asid * 40 + i)
    )
  return memory
}

const pages = fc.constantFrom(0, 1, REGION - 1, REGION, REGION + 7)
const step = fc.record({
  what: fc.constantFrom("region", "zero", "write", "drop"),
  pfn: pages,
  asid: fc.constantFrom(...ASIDS),
  value: fc.integer({ min: 0, max: 255 })
})

const bytesOf = (memory: PhysicalMemory, pfn: number, asid: number): string => {
  const view = memory.read(pfn, asid)
  return Buffer.from(view.buffer, view.byteOffset, PAGE_SIZE).toString("base64")
}

describe("cleared memory", () => {
  it("reads as pages do that were filled with zeros one by one, under every key", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const memory = memoryWithKeys()
        const plain = memoryWithKeys()
        for (const { what, pfn, asid, value } of steps) {
          if (what === "region") {
            const first = pfn - (pfn % REGION)
            memory.clearRegion(first, asid)
            for (let i = 0; i < REGION; i++) plain.replace(first + i, asid, new Uint8Array(PAGE_SIZE))
          } else if (what === "zero") {
            memory.replace(pfn, asid, null)
            plain.replace(pfn, asid, new Uint8Array(PAGE_SIZE))
          } else if (what === "write") {
            for (const one of [memory, plain]) one.write(pfn, asid).setUint8(value, value)
          } else for (const one of [memory, plain]) one.dropKey(asid)
        }
        for (const pfn of [0, 1, 2, REGION - 1, REGION, REGION + 7])
          for (const asid of ASIDS) expect(bytesOf(memory, pfn, asid)).toBe(bytesOf(plain, pfn, asid))
      }),
      { numRuns: 60, seed: 5 }
    )
  })

  it("of one region is not that of another once it is written", () => {
    const memory = memoryWithKeys()
    memory.clearRegion(0, 1)
    memory.clearRegion(REGION, 1)
    memory.write(3, 1).setUint8(0, 0xaa)
    expect([memory.read(3, 1).getUint8(0), memory.read(REGION + 3, 1).getUint8(0)]).toEqual([0xaa, 0])
    expect(memory.read(4, 1).getUint8(0)).toBe(0)
  })

  it("tells its digest by contents: what was written differs from what was cleared", () => {
    const digest = (change: (memory: PhysicalMemory) => void): string => {
      const memory = memoryWithKeys()
      change(memory)
      const parts: Array<string> = []
      memory.digestInto((data) => parts.push(typeof data === "string" ? data : Buffer.from(data).toString("hex")))
      return parts.join("")
    }
    const all = [
      digest((memory) => memory.clearRegion(0, 1)),
      digest((memory) => memory.clearRegion(0, 2)),
      digest((memory) => memory.clearRegion(REGION, 1)),
      digest((memory) => {
        memory.clearRegion(0, 1)
        memory.write(9, 1).setUint8(0, 1)
      })
    ]
    expect(new Set(all).size).toBe(all.length)
  })
})
