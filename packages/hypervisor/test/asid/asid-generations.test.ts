import { TLB_CONTROL } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { AsidGenerations, type AsidVcpu, newAsidVcpu, type TlbControl } from "../../src/index.ts"

const { DO_NOTHING, FLUSH_ALL_ASID, FLUSH_ASID } = TLB_CONTROL
/** ASIDs 3, 4 and 5 are for ordinary guests. */
const make = (flushByAsid = true) => new AsidGenerations({ cores: 2, asids: 6, maxSevAsid: 2, flushByAsid })

describe("ASIDs of ordinary guests", () => {
  it("begin above those of encrypted guests, with a flush of all", () => {
    const asids = make()
    expect(asids.cpu(0)).toEqual({ asidGeneration: 1, nextAsid: 6, minAsid: 3, maxAsid: 5 })
    expect(asids.preSvmRun(0, newAsidVcpu())).toEqual({ asid: 3, flush: FLUSH_ALL_ASID })
    expect(asids.cpu(0)).toMatchObject({ asidGeneration: 2, nextAsid: 4 })
    expect(asids.cpu(1)).toMatchObject({ asidGeneration: 1 })
  })

  it("stay with a vCPU that stays on its core", () => {
    const asids = make()
    const [a, b] = [newAsidVcpu(), newAsidVcpu()]
    asids.preSvmRun(0, a)
    expect(asids.preSvmRun(0, b)).toEqual({ asid: 4, flush: DO_NOTHING })
    expect(asids.preSvmRun(0, a)).toEqual({ asid: 3, flush: DO_NOTHING })
    expect(asids.preSvmRun(0, b)).toEqual({ asid: 4, flush: DO_NOTHING })
  })

  it("are given anew to a vCPU that changes cores, even when it comes back", () => {
    const asids = make()
    const vcpu = newAsidVcpu()
    expect(asids.preSvmRun(0, vcpu).asid).toBe(3)
    expect(asids.preSvmRun(1, vcpu)).toEqual({ asid: 3, flush: FLUSH_ALL_ASID })
    expect(asids.preSvmRun(0, vcpu)).toEqual({ asid: 4, flush: DO_NOTHING })
  })

  it("begin a new generation when they are used up, in which everybody needs another one", () => {
    const asids = make()
    const vcpus = [1, 2, 3, 4].map(newAsidVcpu)
    expect(vcpus.map((vcpu) => asids.preSvmRun(0, vcpu))).toEqual([
      { asid: 3, flush: FLUSH_ALL_ASID },
      { asid: 4, flush: DO_NOTHING },
      { asid: 5, flush: DO_NOTHING },
      { asid: 3, flush: FLUSH_ALL_ASID }
    ])
    expect(asids.cpu(0).asidGeneration).toBe(3)
    expect(asids.preSvmRun(0, vcpus[1]!)).toEqual({ asid: 4, flush: DO_NOTHING })
    expect(asids.preSvmRun(0, vcpus[3]!)).toEqual({ asid: 3, flush: DO_NOTHING })
  })

  it.each<readonly [string, boolean, { asid: number; flush: TlbControl }]>([
    ["FlushByAsid: the ASID stays and is flushed once", true, { asid: 3, flush: FLUSH_ASID }],
    ["without it: another ASID, nothing is flushed", false, { asid: 4, flush: DO_NOTHING }]
  ])("flush of one guest, %s", (_name, flushByAsid, expected) => {
    const asids = make(flushByAsid)
    const vcpu = newAsidVcpu()
    asids.preSvmRun(0, vcpu)
    asids.flushTlb(vcpu)
    expect(asids.preSvmRun(0, vcpu)).toEqual(expected)
    expect(asids.preSvmRun(0, vcpu)).toEqual({ ...expected, flush: DO_NOTHING })
  })

  it.each([
    { cores: 0, asids: 6, maxSevAsid: 2 },
    { cores: 1, asids: 3, maxSevAsid: 2 },
    { cores: 1, asids: 6, maxSevAsid: -1 }
  ])("refuses a machine that leaves none: %j", (options) => {
    expect(() => new AsidGenerations({ ...options, flushByAsid: true })).toThrow(RangeError)
  })

  it("knows its cores", () => {
    expect(() => make().preSvmRun(2, newAsidVcpu())).toThrow(RangeError)
  })
})

/** Translations of one core, by ASID: whose they are and since which flush of that vCPU. */
class Tlb {
  readonly entries = new Map<number, Set<string>>()
  flush(control: TlbControl, asid: number): void {
    if (control === FLUSH_ALL_ASID) this.entries.clear()
    else if (control !== DO_NOTHING) this.entries.delete(asid)
  }
  use(asid: number, owner: string): ReadonlyArray<string> {
    const entries = this.entries.get(asid) ?? new Set()
    entries.add(owner)
    this.entries.set(asid, entries)
    return [...entries]
  }
}

const CORES = 3
const VCPUS = 6
type Step = readonly [action: "run" | "flush", vcpu: number, core: number]
const steps = fc.array(
  fc.tuple(fc.constantFrom<Step[0]>("run", "run", "run", "flush"), fc.nat(VCPUS - 1), fc.nat(CORES - 1)),
  { maxLength: 120, size: "max" }
)

describe.each([true, false])("with FlushByAsid %s, whatever runs where", (flushByAsid) => {
  it("a vCPU finds no translation of another one, and none from before its last flush", () => {
    let wraps = 0
    fc.assert(
      fc.property(steps, (sequence) => {
        const asids = new AsidGenerations({ cores: CORES, asids: 8, maxSevAsid: 4, flushByAsid })
        const tlbs = Array.from({ length: CORES }, () => new Tlb())
        const vcpus: ReadonlyArray<AsidVcpu> = Array.from({ length: VCPUS }, newAsidVcpu)
        const epochs = new Array<number>(VCPUS).fill(0)
        for (const [action, vcpu, core] of sequence) {
          if (action === "flush") {
            asids.flushTlb(vcpus[vcpu]!)
            epochs[vcpu]!++
            continue
          }
          const { asid, flush } = asids.preSvmRun(core, vcpus[vcpu]!)
          expect(asid).toBeGreaterThanOrEqual(5)
          expect(asid).toBeLessThanOrEqual(7)
          tlbs[core]!.flush(flush, asid)
          const owner = `${vcpu}.${epochs[vcpu]}`
          expect(tlbs[core]!.use(asid, owner)).toEqual([owner])
          if (asids.cpu(core).asidGeneration > 2) wraps++
        }
      }),
      { seed: 7, numRuns: 150 }
    )
    expect(wraps).toBeGreaterThan(0)
  })
})
