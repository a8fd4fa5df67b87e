import { PAGE_4K, PAGES_PER_2M, Rmp } from "@vmpl-lab/rmp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { AsidTable, POLICY, SEV_POLICY, SevFirmware, SnpFirmware, type Status } from "../src/index.ts"
import { KeyedMemory } from "./support.ts"

const es = (asid: number, isActive = false) => ({ asid, isActive, encryptedState: true })
const plain = (asid: number, isActive = false) => ({ asid, isActive, encryptedState: false })

describe("what ACTIVATE refuses", () => {
  const table = new AsidTable({ maxAsid: 8, minSevAsid: 5 })
  table.allocate(1, false)
  table.allocate(2, true)
  table.release(2)
  it.each<readonly [string, Parameters<AsidTable["refusal"]>[0], Status | null]>([
    ["ASID 0", es(0), "INVALID_ASID"],
    ["above the highest", plain(9), "INVALID_ASID"],
    ["no integer", es(1.5), "INVALID_ASID"],
    ["taken", es(1), "ASID_OWNED"],
    ["taken, before active", es(1, true), "ASID_OWNED"],
    ["active, before dirty", es(2, true), "ACTIVE"],
    ["dirty, before the range", plain(2), "DFFLUSH_REQUIRED"],
    ["SEV-ES among the ASIDs of SEV", es(5), "INVALID_ASID"],
    ["SEV among those of SEV-ES", plain(4), "INVALID_ASID"],
    ["SEV-ES", es(4), null],
    ["SEV", plain(5), null]
  ])("%s", (_name, activation, refusal) => {
    expect(table.refusal(activation)).toBe(refusal)
  })
})

describe("DF_FLUSH", () => {
  it("finds every ASID dirty after initialisation", () => {
    const table = new AsidTable({ maxAsid: 2, cores: 2, dirty: true })
    expect(table.refusal(es(1))).toBe("DFFLUSH_REQUIRED")
    expect(table.dfFlush()).toBe("WBINVD_REQUIRED")
    for (const core of [0, 1]) table.wbinvdDone(core)
    expect(table.dfFlush()).toBe("SUCCESS")
    expect([1, 2].map((asid) => table.stateOf(asid))).toEqual(["clean", "clean"])
  })

  it("has nothing to do for a guest that never ran", () => {
    const table = new AsidTable()
    table.allocate(1, false)
    table.release(1)
    expect(table.stateOf(1)).toBe("clean")
    expect(table.dfFlush()).toBe("SUCCESS")
  })

  it("keeps what one CCX has written back, though it is refused for another", () => {
    const table = new AsidTable({ cores: 4, coresPerCcx: 2 })
    table.allocate(1, true)
    table.release(1)
    for (const core of [0, 1, 2]) table.wbinvdDone(core)
    expect(table.dfFlush()).toBe("WBINVD_REQUIRED")
    expect(table.stateOf(1)).toBe("dirty")
    table.wbinvdDone(3)
    expect(table.dfFlush()).toBe("SUCCESS")
    expect(table.stateOf(1)).toBe("clean")
  })

  it("needs another WBINVD after each guest that leaves", () => {
    const table = new AsidTable()
    for (const asid of [1, 2]) table.allocate(asid, true)
    table.release(1)
    table.wbinvdDone(0)
    table.release(2)
    expect(table.dfFlush()).toBe("WBINVD_REQUIRED")
    expect(table.stateOf(1)).toBe("dirty")
  })

  it("works with as many CCXs as there are bits, and no more", () => {
    const table = new AsidTable({ cores: 64, coresPerCcx: 2, dirty: true })
    for (let core = 0; core < 64; core++) table.wbinvdDone(core)
    expect(table.dfFlush()).toBe("SUCCESS")
    expect(table.stateOf(1)).toBe("clean")
    expect(() => new AsidTable({ cores: 65, coresPerCcx: 2 })).toThrow(RangeError)
    const many = new AsidTable({ cores: 4_096, dirty: true })
    for (let core = 0; core < 4_096; core++) many.wbinvdDone(core)
    expect(many.dfFlush()).toBe("SUCCESS")
    expect(() => new AsidTable({ cores: 0 })).toThrow(RangeError)
    expect(() => table.wbinvdDone(64)).toThrow(RangeError)
  })
})

it("guests of both APIs take their ASIDs from one table", () => {
  const asids = new AsidTable({ maxAsid: 8, minSevAsid: 5 })
  const rmp = new Rmp({ pages: PAGES_PER_2M })
  const memory = new KeyedMemory()
  const snp = new SnpFirmware(rmp, memory, { seed: 1, asids })
  const sev = new SevFirmware(memory, { seed: 1, asids, rmp })
  rmp.rmpupdate(1, true, PAGE_4K, true, 0, 0)
  snp.gctxCreate(1)
  snp.launchStart({ gctx: 1, policy: POLICY.SMT | POLICY.RESERVED_MUST_BE_ONE })
  const { handle } = sev.launchStart({ policy: SEV_POLICY.ES })
  expect(sev.activate(handle, 1)).toBe("SUCCESS")
  expect(snp.activate(1, 1)).toBe("ASID_OWNED")
  expect(snp.activate(1, 2)).toBe("SUCCESS")
  snp.launchFinish({ gctx: 1 })
  snp.decommission(1)
  sev.deactivate(handle)
  expect(sev.activate(handle, 2)).toBe("DFFLUSH_REQUIRED")
  sev.wbinvdDone(0)
  expect(snp.dfFlush()).toBe("SUCCESS")
  expect(sev.activate(handle, 2)).toBe("SUCCESS")
})

/** One deed on the table: an ASID or a core. */
type Deed = readonly ["allocate" | "use" | "release" | "wbinvd" | "flush", number]
const CORES = 4
const deeds = fc.array(
  fc.tuple(fc.constantFrom<Deed[0]>("allocate", "use", "release", "wbinvd", "wbinvd", "flush"), fc.nat(3)),
  { maxLength: 100, size: "max" }
)

it("no cache holds lines of an ASID's earlier guest when ACTIVATE takes it", () => {
  const seen = { reused: 0, refused: 0 }
  fc.assert(
    fc.property(deeds, (sequence) => {
      const table = new AsidTable({ cores: CORES, coresPerCcx: 2 })
      /** Per core the ASIDs whose lines it may hold: all cores may have run all guests. */
      const caches = Array.from({ length: CORES }, () => new Set<number>())
      const everUsed = new Set<number>()
      for (const [action, pick] of sequence) {
        const asid = pick + 1
        const state = table.stateOf(asid)
        if (action === "wbinvd") {
          caches[pick]!.clear()
          table.wbinvdDone(pick)
        } else if (action === "flush") {
          table.dfFlush()
        } else if (action === "allocate") {
          if (table.refusal(es(asid)) !== null) seen.refused++
          else {
            for (const cache of caches) expect(cache.has(asid)).toBe(false)
            if (everUsed.has(asid)) seen.reused++
            table.allocate(asid, false)
          }
        } else if (action === "use" && state === "allocated") {
          table.use(asid)
          everUsed.add(asid)
        } else if (action === "release" && (state === "allocated" || state === "in use")) {
          if (state === "in use") for (const cache of caches) cache.add(asid)
          table.release(asid)
        }
      }
    }),
    { seed: 3, numRuns: 300 }
  )
  expect(seen.reused).toBeGreaterThan(0)
  expect(seen.refused).toBeGreaterThan(0)
})
