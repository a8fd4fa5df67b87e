import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { GuestMemory, HostFrames } from "../../src/index.ts"

describe("the host's page allocator", () => {
  it("never hands out a frame twice, nor one that starts 2 MiB where that was asked", () => {
    let skipped = 0
    const action = fc.constantFrom("any", "not-2m", "free")
    fc.assert(
      fc.property(fc.array(fc.tuple(action, fc.nat()), { maxLength: 300 }), (actions) => {
        // Starts right before a 2 MiB boundary, with three more given back already.
        const frames = new HostFrames(2046, 4096)
        for (const pfn of [512, 700, 1024, 1536]) frames.free(pfn)
        const held: Array<number> = []
        for (const [what, index] of actions) {
          if (what === "free") {
            if (held.length > 0) frames.free(held.splice(index % held.length, 1)[0]!)
            continue
          }
          const pfn = what === "any" ? frames.allocate() : frames.allocateNot2mAligned()
          if (what === "not-2m") expect(pfn % 512).not.toBe(0)
          else if (pfn % 512 === 0) skipped++
          expect(held).not.toContain(pfn)
          expect(pfn).toBeGreaterThanOrEqual(512)
          held.push(pfn)
        }
      }),
      { seed: 1, numRuns: 300 }
    )
    expect(skipped).toBeGreaterThan(0)
  })

  it("uses every frame before it gives up", () => {
    const frames = new HostFrames(512, 516)
    expect([frames.allocateNot2mAligned(), frames.allocate(), frames.allocate(), frames.allocate()].sort()).toEqual([
      512, 513, 514, 515
    ])
    expect(() => frames.allocate()).toThrow(/in use/)
  })
})

describe("guest memory", () => {
  it("backs only guest frames that are 2 MiB aligned with such system frames", () => {
    const memory = new GuestMemory(new HostFrames(0, 4096))
    for (let gfn = 0; gfn < 1030; gfn++) {
      for (const pfn of [memory.privateFrame(gfn), memory.sharedFrame(gfn)]) {
        if (gfn % 512 !== 0) expect(pfn % 512).not.toBe(0)
      }
    }
  })

  it("keeps private and shared backing apart and stable, and forgets what is freed", () => {
    const memory = new GuestMemory(new HostFrames(0x100, 0x200))
    expect(memory.privateFrameIfPresent(7)).toBe(-1)
    const [mine, shared] = [memory.privateFrame(7), memory.sharedFrame(7)]
    expect(mine).not.toBe(shared)
    expect([memory.privateFrame(7), memory.sharedFrame(7), memory.privateFrameIfPresent(7)]).toEqual([
      mine,
      shared,
      mine
    ])
    memory.freePrivate(7)
    expect(memory.privateFrameIfPresent(7)).toBe(-1)
    expect(memory.sharedFrame(7)).toBe(shared)
    memory.freePrivate(7)
    expect(memory.privateFrame(8)).toBe(mine)
  })
})
