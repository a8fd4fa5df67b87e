// @section 1.1, 1.6
import { createHash } from "node:crypto"
import { describe, expect, it } from "vitest"
import { FIRMWARE_TAG, PAGE_2M, PAGE_4K, Rmp, type RmpEntry, SWITCH_IDS } from "../src/index.ts"
import { BASE, GFN, give, newRmp } from "./support.ts"

const P = BASE
const firmware = { assigned: true, immutable: true }

describe("page states", () => {
  it.each<readonly [string, Partial<RmpEntry>]>([
    ["Hypervisor", {}],
    ["Hypervisor", { gfn: 5 }],
    ["HV-Fixed", { immutable: true }],
    ["Firmware", firmware],
    ["Firmware-IOMMU", { ...firmware, gfn: 1 }],
    ["Firmware-IOMMU", { ...firmware, gfn: FIRMWARE_TAG.IOMMU + 1 }],
    ["Reclaim", { assigned: true }],
    ["Context", { ...firmware, vmsa: true }],
    ["Metadata", { ...firmware, gfn: 0x1234 }],
    ["Metadata", { ...firmware, gfn: FIRMWARE_TAG.METADATA }],
    ["Pre-Guest", { ...firmware, asid: 1 }],
    ["Pre-Swap", { ...firmware, asid: 1, validated: true }],
    ["Guest-Invalid", { assigned: true, asid: 1 }],
    ["Guest-Valid", { assigned: true, asid: 1, validated: true }],
    ["Invalid", { validated: true }],
    ["Invalid", { asid: 1 }],
    ["Invalid", { assigned: true, validated: true }],
    ["Invalid", { ...firmware, validated: true }]
  ])("%s: %o", (state, fields) => {
    const rmp = newRmp()
    rmp.firmwareSet(P + 3, fields)
    expect(rmp.stateOf(P + 3)).toBe(state)
  })

  it("is Default where the RMP does not cover", () => {
    expect([newRmp().stateOf(BASE - 1), newRmp().stateOf(BASE + 1024)]).toEqual(["Default", "Default"])
    expect(newRmp().entry(BASE - 1)).toMatchObject({ assigned: false, asid: 0 })
  })

  it("follows the first page of a 2M page", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { size: PAGE_2M })
    expect([rmp.stateOf(P + 1), rmp.stateOf(P + 511), rmp.stateOf(P + 512)]).toEqual([
      "Guest-Valid",
      "Guest-Valid",
      "Hypervisor"
    ])
  })

  it("RMPUPDATE and PVALIDATE make the transitions of the manual", () => {
    const rmp = newRmp()
    const steps: ReadonlyArray<readonly [() => number, string]> = [
      [() => rmp.rmpupdate(P, 1, PAGE_4K, 0, GFN, 1), "Guest-Invalid"],
      [() => rmp.pvalidate(1, 0, GFN, P, PAGE_4K, PAGE_4K, 1), "Guest-Valid"],
      [() => rmp.pvalidate(1, 0, GFN, P, PAGE_4K, PAGE_4K, 0), "Guest-Invalid"],
      [() => rmp.pvalidate(1, 0, GFN, P, PAGE_4K, PAGE_4K, 1), "Guest-Valid"],
      [() => rmp.rmpupdate(P, 0, PAGE_4K, 0, 0, 0), "Hypervisor"],
      [() => rmp.rmpupdate(P, 1, PAGE_4K, 0, 0, 0), "Reclaim"],
      [() => rmp.rmpupdate(P, 0, PAGE_4K, 0, 0, 0), "Hypervisor"],
      [() => rmp.rmpupdate(P, 1, PAGE_4K, 1, 0, 0), "Firmware"]
    ]
    for (const [step, state] of steps) {
      expect(step()).toBe(0)
      expect(rmp.stateOf(P)).toBe(state)
    }
    const pre = [newRmp(), newRmp()] as const
    pre[0].rmpupdate(P, 1, PAGE_4K, 1, GFN, 1)
    give(pre[1], P, GFN)
    pre[1].rmpupdate(P, 1, PAGE_4K, 1, GFN, 1)
    expect([pre[0].stateOf(P), pre[1].stateOf(P)]).toEqual(["Pre-Guest", "Pre-Swap"])
  })
})

describe("the table", () => {
  it("covers whole 2M regions", () => {
    for (const pages of [100, -512, 512.5, 2 ** 30 + 512]) expect(() => new Rmp({ pages })).toThrow(RangeError)
    for (const basePfn of [1, -512, 2 ** 40]) expect(() => new Rmp({ pages: 512, basePfn })).toThrow(RangeError)
    const rmp = new Rmp({ pages: 512, basePfn: 2 ** 40 - 512 })
    expect(rmp.rmpupdate(2 ** 40 - 1, 1, PAGE_4K, 0, 2 ** 40 - 1, 1)).toBe(0)
    expect(rmp.entry(2 ** 40 - 1).gfn).toBe(2 ** 40 - 1)
    expect([rmp.coveredPages, rmp.basePfn, rmp.isCovered(0), rmp.isCovered(2 ** 40 - 1)]).toEqual([
      512,
      2 ** 40 - 512,
      false,
      true
    ])
  })

  it("spells out all switches", () => {
    const { switches } = newRmp({ U3: "alternative" })
    expect(Object.keys(switches)).toEqual(Array.from({ length: 18 }, (_, index) => `U${index + 1}`))
    expect(SWITCH_IDS.filter((id) => switches[id] !== "default")).toEqual(["U3"])
  })

  it("firmware cannot write what is not covered, nor a misaligned 2M entry", () => {
    expect(() => newRmp().firmwareSet(BASE - 1, {})).toThrow(RangeError)
    expect(() => newRmp().firmwareSet(P + 1, { size: PAGE_2M })).toThrow(RangeError)
  })

  it("firmware keeps the region's counts: Immutable, 2M and in-use pages alike", () => {
    const rmp = newRmp()
    give(rmp, P, GFN, { immutable: true })
    give(rmp, P, GFN, { immutable: true, inUse: true })
    rmp.firmwareSet(P, { assigned: false, immutable: false, asid: 0 })
    expect(rmp.checkHost(P, 1, PAGE_2M)).toBe(0)
    expect(rmp.rmpupdate(P, 1, PAGE_2M, 0, 0, 1)).toBe(3)
    rmp.firmwareSet(P, { inUse: false })
    expect(rmp.rmpupdate(P, 1, PAGE_2M, 0, 0, 1)).toBe(0)
  })

  it("marking twice counts once", () => {
    const rmp = newRmp()
    rmp.markInUse(P + 1)
    rmp.markInUse(P + 1)
    rmp.markInUse(BASE - 1)
    expect([rmp.isInUse(P + 1), rmp.isInUse(P), rmp.isInUse(BASE - 1)]).toEqual([true, false, false])
    rmp.clearInUse(P + 1)
    rmp.clearInUse(P + 1)
    expect(rmp.rmpupdate(P, 1, PAGE_2M, 0, 0, 1)).toBe(0)
  })
})

describe("state digest", () => {
  const digest = (rmp: Rmp): string => {
    const hash = createHash("sha256")
    rmp.digestInto((bytes) => hash.update(bytes))
    return hash.digest("hex")
  }

  it("is equal for equal tables, however they came about", () => {
    const rmp = newRmp()
    const fresh = digest(rmp)
    rmp.firmwareSet(P + 600, { assigned: true, asid: 1, gfn: GFN })
    rmp.markInUse(P)
    expect(digest(rmp)).not.toBe(fresh)
    rmp.clearInUse(P)
    rmp.firmwareSet(P + 600, { assigned: false, asid: 0, gfn: 0 })
    expect(digest(rmp)).toBe(fresh)
  })

  it("sees every field, the place and the coverage", () => {
    const changes: ReadonlyArray<Partial<RmpEntry>> = [
      {},
      { assigned: true },
      { immutable: true },
      { gfn: 1 },
      { gfn: 2 ** 32 },
      { asid: 1 },
      { validated: true },
      { vmsa: true },
      { inUse: true },
      { perms: [0, 0, 0, 1] },
      { size: PAGE_2M }
    ]
    const all = changes.map((fields) => {
      const rmp = newRmp()
      rmp.firmwareSet(P, fields)
      return digest(rmp)
    })
    for (const page of [1, 512]) {
      const rmp = newRmp()
      rmp.firmwareSet(P + page, { assigned: true })
      all.push(digest(rmp))
    }
    all.push(digest(new Rmp({ pages: 1024 })), digest(new Rmp({ pages: 512, basePfn: BASE })))
    expect(new Set(all).size).toBe(all.length)
  })

  it("passes over regions that hold nothing", () => {
    const rmp = new Rmp({ pages: 2 ** 20 })
    rmp.firmwareSet(5, { assigned: true })
    let bytes = 0
    rmp.digestInto((part) => {
      bytes += part.length
    })
    expect(bytes).toBeLessThan(10_000)
  })
})
