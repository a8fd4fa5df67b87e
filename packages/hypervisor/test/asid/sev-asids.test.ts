import type { Status } from "@vmpl-lab/psp"
import { TLB_CONTROL } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ERRNO, LastVmcb, SevAsids, type SevAsidsOptions, type SevKind } from "../../src/index.ts"

const KINDS: ReadonlyArray<SevKind> = ["sev", "sev-es", "snp"]

const make = (options: Partial<SevAsidsOptions> = {}) => {
  const log: Array<string> = []
  let status: Status = "SUCCESS"
  const asids = new SevAsids({
    capabilities: { guests: 6, minSevNoEsAsid: 4 },
    flush: {
      wbinvdOnAllCpus: () => log.push("WBINVD"),
      dfFlush: () => {
        log.push("DF_FLUSH")
        return status
      }
    },
    ...options
  })
  return { asids, log, answer: (next: Status) => (status = next) }
}

describe("ranges of ASIDs", () => {
  it.each<readonly [string, number, number | undefined, readonly [number, number, number, number, number, number]]>([
    ["shared by SEV-ES and SNP", 4, undefined, [4, 6, 1, 3, 1, 3]],
    ["split to hide ciphertext", 4, 2, [4, 6, 3, 3, 1, 2]],
    ["all to SNP", 4, 3, [4, 6, 4, 3, 1, 3]],
    ["the split ends where SEV begins", 4, 100, [4, 6, 4, 3, 1, 3]],
    ["SEV-ES unavailable", 1, undefined, [1, 6, 1, 0, 1, 0]],
    ["none for SEV", 7, undefined, [7, 6, 1, 6, 1, 6]]
  ])("%s", (_name, minSevNoEsAsid, ciphertextHidingAsids, [sevMin, sevMax, esMin, esMax, snpMin, snpMax]) => {
    const { asids } = make({
      capabilities: { guests: 6, minSevNoEsAsid },
      ...(ciphertextHidingAsids === undefined ? {} : { ciphertextHidingAsids })
    })
    expect(KINDS.map((kind) => asids.range(kind))).toEqual([
      { min: sevMin, max: sevMax },
      { min: esMin, max: esMax },
      { min: snpMin, max: snpMax }
    ])
    for (const kind of KINDS) {
      const { min, max } = asids.range(kind)
      expect(asids.allocate(kind)).toBeOneOf(min > max ? [ERRNO.ENOTTY] : [min, min + 1])
    }
  })
})

describe("allocation", () => {
  it("takes the lowest free one and does not flush for an ASID that never was used", () => {
    const { asids, log } = make()
    expect([1, 2, 3].map(() => asids.allocate("snp"))).toEqual([1, 2, 3])
    expect(asids.allocate("sev-es")).toBe(ERRNO.EBUSY)
    expect(asids.allocate("sev")).toBe(4)
    expect(log).toEqual([])
  })

  it("reclaims freed ones when no other is left: WBINVD, then DF_FLUSH", () => {
    const { asids, log } = make()
    for (const _ of [1, 2, 3]) asids.allocate("snp")
    asids.free(2)
    asids.free(3)
    expect(asids.isReclaimable(2)).toBe(true)
    expect(asids.allocate("sev")).toBe(4)
    expect(log).toEqual([])
    expect(asids.allocate("snp")).toBe(2)
    expect(log).toEqual(["WBINVD", "DF_FLUSH"])
    expect(asids.isReclaimable(3)).toBe(false)
    expect(asids.allocate("snp")).toBe(3)
    expect(log).toHaveLength(2)
  })

  it("does not flush when only ASIDs of another kind wait, but then flushes for all kinds", () => {
    const { asids, log } = make()
    for (const _ of [1, 2, 3]) asids.allocate("snp")
    for (const _ of [1, 2, 3]) asids.allocate("sev")
    asids.free(4)
    expect(asids.allocate("snp")).toBe(ERRNO.EBUSY)
    expect(log).toEqual([])
    asids.free(1)
    expect(asids.allocate("snp")).toBe(1)
    expect(asids.isReclaimable(4)).toBe(false)
  })

  it("gives none when the firmware refuses the flush", () => {
    const { asids, answer } = make()
    for (const _ of [1, 2, 3]) asids.allocate("snp")
    asids.free(1)
    answer("WBINVD_REQUIRED")
    expect(asids.allocate("snp")).toBe(ERRNO.EBUSY)
    expect(asids.isReclaimable(1)).toBe(true)
    answer("SUCCESS")
    expect(asids.allocate("snp")).toBe(1)
  })

  it("keeps an ASID until the last VM object of its guest is gone", () => {
    const freed: Array<number> = []
    const { asids } = make({ freed: (asid) => freed.push(asid) })
    const asid = asids.allocate("snp")
    asids.share(asid)
    asids.share(asid)
    expect(asids.references(asid)).toBe(3)
    asids.free(asid)
    asids.free(asid)
    expect([asids.references(asid), asids.isReclaimable(asid), freed]).toEqual([1, false, []])
    asids.free(asid)
    expect([asids.references(asid), asids.isReclaimable(asid), freed]).toEqual([0, true, [asid]])
    expect(() => asids.free(asid)).toThrow("no guest has ASID")
    expect(() => asids.share(asid)).toThrow("no guest has ASID")
  })
})

describe("the last VMCB of an ASID", () => {
  const { DO_NOTHING, FLUSH_ASID } = TLB_CONTROL
  type Run = readonly [core: number, asid: number, vmcb: number, lastCore: number, flush: number]
  it.each<readonly [string, ReadonlyArray<Run>]>([
    [
      "the same one on the same core",
      [
        [0, 1, 10, -1, FLUSH_ASID],
        [0, 1, 10, 0, DO_NOTHING]
      ]
    ],
    [
      "another one of the ASID, and back",
      [
        [0, 1, 10, -1, FLUSH_ASID],
        [0, 1, 11, -1, FLUSH_ASID],
        [0, 1, 10, 0, FLUSH_ASID]
      ]
    ],
    [
      "one of another ASID between",
      [
        [0, 1, 10, -1, FLUSH_ASID],
        [0, 2, 20, -1, FLUSH_ASID],
        [0, 1, 10, 0, DO_NOTHING]
      ]
    ],
    [
      "the vCPU was elsewhere",
      [
        [0, 1, 10, -1, FLUSH_ASID],
        [1, 1, 10, 0, FLUSH_ASID],
        [0, 1, 10, 1, FLUSH_ASID]
      ]
    ],
    [
      "each on its own core",
      [
        [0, 1, 10, -1, FLUSH_ASID],
        [1, 1, 11, -1, FLUSH_ASID],
        [0, 1, 10, 0, DO_NOTHING]
      ]
    ]
  ])("%s", (_name, runs) => {
    const last = new LastVmcb(2)
    for (const [core, asid, vmcb, lastCore, flush] of runs)
      expect(last.preSevRun(core, asid, vmcb, lastCore)).toBe(flush)
  })

  it("is forgotten when the ASID is freed, on every core", () => {
    const last = new LastVmcb(2)
    last.preSevRun(0, 1, 10, -1)
    last.preSevRun(0, 2, 20, -1)
    last.forget(1)
    expect(last.preSevRun(0, 1, 10, 0)).toBe(FLUSH_ASID)
    expect(last.preSevRun(0, 2, 20, 0)).toBe(DO_NOTHING)
    expect(() => last.preSevRun(2, 1, 10, 0)).toThrow(RangeError)
  })
})

/** One random deed of a host: a number picks among the guests that live. */
type Deed = readonly [action: "allocate" | "share" | "free" | "run", pick: number, kind: SevKind]
const deeds = fc.array(
  fc.tuple(
    fc.constantFrom<Deed[0]>("allocate", "allocate", "share", "free", "free", "run", "run", "run"),
    fc.nat(1000),
    fc.constantFrom(...KINDS)
  ),
  { maxLength: 150, size: "max" }
)

interface Guest {
  readonly id: number
  readonly asid: number
  objects: number
  /** Core of the last run per vCPU; two vCPUs with a VMCB each. */
  readonly lastCores: [number, number]
}

describe("whatever guests come and go", () => {
  it("no two have one ASID, none gets one with another's lines in a cache, or translations in a TLB", () => {
    const seen = { reuse: 0, busy: 0, flushed: 0 }
    fc.assert(
      fc.property(deeds, fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }), (sequence, split) => {
        const guests: Array<Guest> = []
        const lastVmcb = new LastVmcb(2)
        /** ASIDs whose cache lines may be of an earlier guest. */
        const dirty = new Set<number>()
        let wbinvd = false
        /** Per core and ASID the vCPU whose translations are there. */
        const tlb = new Map<string, number>()
        const { asids } = make({
          ...(split === undefined ? {} : { ciphertextHidingAsids: split }),
          flush: {
            wbinvdOnAllCpus: () => {
              wbinvd = true
            },
            dfFlush: () => {
              if (!wbinvd) return "WBINVD_REQUIRED"
              dirty.clear()
              seen.flushed++
              return "SUCCESS"
            }
          },
          freed: (asid) => {
            dirty.add(asid)
            wbinvd = false
            lastVmcb.forget(asid)
          }
        })
        let created = 0
        const everUsed = new Set<number>()
        for (const [action, pick, kind] of sequence) {
          if (action === "allocate") {
            const asid = asids.allocate(kind)
            const { min, max } = asids.range(kind)
            if (asid < 0) {
              seen.busy++
              // Refused only where the whole range is taken by guests that live.
              for (let taken = min; taken <= max; taken++) expect(asids.references(taken)).toBeGreaterThan(0)
              continue
            }
            expect(asid >= min && asid <= max).toBe(true)
            expect(guests.map((guest) => guest.asid)).not.toContain(asid)
            expect(dirty.has(asid)).toBe(false)
            if (everUsed.has(asid)) seen.reuse++
            everUsed.add(asid)
            guests.push({ id: created++, asid, objects: 1, lastCores: [-1, -1] })
            continue
          }
          const guest = guests[pick % Math.max(1, guests.length)]
          if (guest === undefined) continue
          if (action === "share") {
            asids.share(guest.asid)
            guest.objects++
          } else if (action === "free") {
            asids.free(guest.asid)
            if (--guest.objects === 0) guests.splice(guests.indexOf(guest), 1)
          } else {
            const [vcpu, core] = [pick & 1, (pick >> 1) & 1]
            // The next guest of an ASID has its VMCBs in the same pages.
            const vmcb = guest.asid * 2 + vcpu
            const owner = guest.id * 2 + vcpu
            const flush = lastVmcb.preSevRun(core, guest.asid, vmcb, guest.lastCores[vcpu]!)
            guest.lastCores[vcpu as 0 | 1] = core
            const key = `${core}:${guest.asid}`
            if (flush === TLB_CONTROL.FLUSH_ASID) tlb.delete(key)
            expect(tlb.get(key) ?? owner).toBe(owner)
            tlb.set(key, owner)
          }
          for (const { asid, objects } of guests) expect(asids.references(asid)).toBe(objects)
        }
      }),
      { seed: 11, numRuns: 200 }
    )
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(0)
  })
})
