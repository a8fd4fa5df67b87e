// @section 3.1, 3.2
import { describe, expect, it } from "vitest"
import { ACCESS, NOT_MAPPED, PAGE_2M, PAGE_4K, type PageSize, PERMISSION, type RmpEntry } from "../src/index.ts"
import { BASE, GFN, give, newRmp, verdict } from "./support.ts"

const P = BASE
const KINDS = { read: 0, write: 1, fetch: 2, ptRead: 3, ptWrite: 4 } as const

interface Access {
  asid?: number
  vmpl?: number
  cpl?: number
  kind?: number
  cbit?: boolean
  gfn?: number
  pfn?: number
  npt?: PageSize
}

const access = (entry: Partial<RmpEntry>, a: Access, u14: "default" | "alternative" = "default"): string => {
  const rmp = newRmp({ U14: u14 })
  give(rmp, P, GFN, entry)
  return verdict(
    rmp.checkGuest(
      a.asid ?? 1,
      a.vmpl ?? 0,
      a.cpl ?? 0,
      a.kind ?? 0,
      a.cbit ?? true,
      a.gfn ?? GFN,
      a.pfn ?? P,
      a.npt ?? PAGE_4K
    )
  )
}

describe("a host's or a non-SNP guest's access", () => {
  it.each([
    ["read", "ok"],
    ["write", "fault"],
    ["fetch", "ok"],
    ["ptRead", "fault"],
    ["ptWrite", "fault"]
  ] as const)("%s of an assigned page: %s", (kind, expected) => {
    const rmp = newRmp()
    give(rmp, P, GFN)
    expect(verdict(rmp.checkHost(P, KINDS[kind], PAGE_4K))).toBe(expected === "ok" ? "ok" : "#PF RMP")
    expect(verdict(rmp.checkNonSnpGuest(P, KINDS[kind], PAGE_4K))).toBe(expected === "ok" ? "ok" : "#NPF RMP")
  })

  it("of 2M asks for all 512 pages", () => {
    const rmp = newRmp()
    give(rmp, P + 511, GFN)
    expect(verdict(rmp.checkHost(P, KINDS.write, PAGE_4K))).toBe("ok")
    expect(verdict(rmp.checkHost(P, KINDS.write, PAGE_2M))).toBe("#PF RMP")
    expect(verdict(rmp.checkHost(P + 512, KINDS.write, PAGE_2M))).toBe("ok")
    rmp.firmwareSet(P + 511, { assigned: false })
    expect(verdict(rmp.checkHost(P, KINDS.write, PAGE_2M))).toBe("ok")
  })

  it("passes where nothing is assigned: not covered or HV-Fixed, but not Reclaim", () => {
    const rmp = newRmp()
    rmp.firmwareSet(P, { immutable: true })
    rmp.firmwareSet(P + 1, { assigned: true })
    expect(verdict(rmp.checkHost(BASE - 1, KINDS.write, PAGE_4K))).toBe("ok")
    expect(verdict(rmp.checkHost(BASE + 1024, KINDS.write, PAGE_2M))).toBe("ok")
    expect(verdict(rmp.checkHost(P, KINDS.write, PAGE_4K))).toBe("ok")
    expect(verdict(rmp.checkHost(P + 1, KINDS.write, PAGE_4K))).toBe("#PF RMP")
  })

  it("faults inside a 2M guest page", () => {
    const rmp = newRmp()
    rmp.rmpupdate(P, 1, PAGE_2M, 0, GFN, 1)
    expect(verdict(rmp.checkHost(P + 300, KINDS.write, PAGE_4K))).toBe("#PF RMP")
    expect(rmp.checkHypervisorOwned(P + 300)).toBe(false)
    expect(rmp.checkHypervisorOwned(P + 512)).toBe(true)
  })
})

describe("an SNP guest's access", () => {
  it.each(Object.entries(KINDS))("%s: C=0 frees data accesses only", (name, kind) => {
    const isData = name === "read" || name === "write"
    const foreign = access({ asid: 2 }, { kind, cbit: false })
    expect(foreign).toBe(name === "read" ? "ok" : "#NPF RMP")
    const shared = access({ assigned: false, asid: 0 }, { kind, cbit: false })
    expect(shared).toBe(isData ? "ok" : "#NPF RMP")
  })

  it("C=0 write under a 2M mapping asks for all 512 pages", () => {
    const rmp = newRmp()
    give(rmp, P + 511, GFN)
    expect(verdict(rmp.checkGuest(1, 0, 0, KINDS.write, false, 0, P, PAGE_4K))).toBe("ok")
    expect(verdict(rmp.checkGuest(1, 0, 0, KINDS.write, false, 0, P, PAGE_2M))).toBe("#NPF RMP")
  })

  // Adjacent checks fail together: NPF must win over #VC, #VC over the VMPL check.
  it.each([
    ["not mapped", { asid: 2 }, { pfn: NOT_MAPPED }, "#NPF"],
    ["Covered", {}, { pfn: BASE + 1024 }, "#NPF RMP"],
    ["Covered, below", {}, { pfn: BASE - 1 }, "#NPF RMP"],
    ["Guest-Owned before Validated", { asid: 2, validated: false }, {}, "#NPF RMP"],
    ["unassigned", { assigned: false, validated: false }, {}, "#NPF RMP"],
    ["Reverse-Map before Validated", { gfn: GFN + 1, validated: false }, {}, "#NPF RMP"],
    ["Reverse-Map, high half", { gfn: GFN - 2 ** 32, validated: false }, {}, "#NPF RMP"],
    ["Mutable before Validated", { immutable: true, validated: false }, {}, "#NPF RMP"],
    ["Page-Size before Validated", { size: PAGE_2M, validated: false }, {}, "#NPF RMP"],
    ["Page-Size before Validated, 2M on 4K", { validated: false }, { npt: PAGE_2M }, "#NPF RMP"],
    ["Validated before VMPL", { validated: false }, { vmpl: 1 }, "#VC"],
    ["VMPL", {}, { vmpl: 1 }, "#NPF RMP VMPL"],
    ["Page-Size before VMPL", {}, { vmpl: 1, npt: PAGE_2M }, "#NPF RMP"],
    ["all pass", {}, {}, "ok"]
  ] as const)("%s", (_why, entry, a, expected) => {
    for (const kind of Object.values(KINDS)) expect(access(entry, { ...a, kind })).toBe(expected)
  })

  it("needs the permission bit of its kind, at each VMPL", () => {
    const { READ, WRITE, EXECUTE_USER, EXECUTE_SUPERVISOR } = PERMISSION
    const needs: ReadonlyArray<readonly [number, number, number]> = [
      [KINDS.read, 0, READ],
      [KINDS.write, 0, READ | WRITE],
      [KINDS.fetch, 3, EXECUTE_USER],
      [KINDS.fetch, 0, EXECUTE_SUPERVISOR],
      [KINDS.fetch, 2, EXECUTE_SUPERVISOR],
      [KINDS.ptRead, 0, READ],
      [KINDS.ptWrite, 0, READ | WRITE]
    ]
    for (const [kind, cpl, need] of needs)
      for (let vmpl = 0; vmpl < 4; vmpl++)
        for (let mask = 0; mask < 32; mask++) {
          const perms = [0, 1, 2, 3].map((level) => (level === vmpl ? mask : ~mask & 0x1f))
          const entry = { perms: perms as unknown as RmpEntry["perms"] }
          expect(access(entry, { kind, cpl, vmpl })).toBe((mask & need) === need ? "ok" : "#NPF RMP VMPL")
        }
  })

  it("U14: under Write without Read, reads pass and writes still fault", () => {
    const entry = { perms: [PERMISSION.WRITE, 0, 0, 0] } as const
    expect(access(entry, { kind: KINDS.read }, "alternative")).toBe("ok")
    expect(access(entry, { kind: KINDS.write }, "alternative")).toBe("#NPF RMP VMPL")
    expect(access(entry, { kind: KINDS.ptRead }, "alternative")).toBe("#NPF RMP VMPL")
    expect(access(entry, { vmpl: 1 }, "alternative")).toBe("#NPF RMP VMPL")
  })

  it("shadow stacks need SSS with VmplSSS on, and any VMPL fault then reports the mask's SSS bit", () => {
    const sss = { perms: [PERMISSION.SHADOW_STACK, PERMISSION.ALL, 0, 0] } as const
    expect(access(sss, { kind: ACCESS.SHADOW_STACK | ACCESS.VMPL_SSS })).toBe("ok")
    expect(access(sss, { kind: ACCESS.SHADOW_STACK })).toBe("#NPF RMP VMPL")
    expect(access(sss, { vmpl: 1, kind: ACCESS.SHADOW_STACK | ACCESS.VMPL_SSS })).toBe("#NPF RMP VMPL")
    expect(access(sss, { vmpl: 1, kind: ACCESS.SHADOW_STACK })).toBe("ok")
    expect(access(sss, { kind: ACCESS.READ | ACCESS.VMPL_SSS })).toBe("#NPF RMP VMPL SSS")
    expect(access(sss, { kind: ACCESS.READ })).toBe("#NPF RMP VMPL")
  })

  it("finds every page of a 2M page under a 2M mapping, and its GPA", () => {
    const gfn = 2 ** 34 - 256
    const rmp = newRmp()
    give(rmp, P + 512, gfn, { size: PAGE_2M })
    const at = (page: number, number: number): string =>
      verdict(rmp.checkGuest(1, 0, 0, KINDS.write, true, number, P + 512 + page, PAGE_2M))
    for (let page = 0; page < 512; page++) {
      expect(at(page, gfn + page)).toBe("ok")
      expect(at(page, gfn + ((page + 1) % 512))).toBe("#NPF RMP")
    }
  })

  it("is not fooled by the inner entries of a 2M page, or by a GFN below their offset", () => {
    const rmp = newRmp()
    rmp.rmpupdate(P, 1, PAGE_2M, 0, 0xffff_ffff, 1)
    rmp.firmwareSet(P, { validated: true })
    expect(verdict(rmp.checkGuest(1, 0, 0, 0, true, 0, P + 1, PAGE_2M))).toBe("#NPF RMP")
    expect(verdict(rmp.checkGuest(1, 0, 0, 0, true, 0, P + 1, PAGE_4K))).toBe("#NPF RMP")
    expect(rmp.checkVmrunVmsa(1, 0, P + 1)).toBe(false)
  })
})
