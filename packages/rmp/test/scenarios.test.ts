/**
 * Attacks and page-size stories: what each party tries on whom, and what the RMP answers. H is the hypervisor, G0 and
 * G2 are guest software at VMPL0 and VMPL2 of ASID 1.
 */
import { describe, expect, it } from "vitest"
import { ACCESS, PAGE_2M, PAGE_4K, type PageSize, type Rmp } from "../src/index.ts"
import { BASE, GFN, newRmp, outcome, verdict } from "./support.ts"

const P1 = BASE + 1
const P2 = BASE + 2
const A = GFN
const B = GFN + 8

const assign = (rmp: Rmp, pfn: number, gfn: number, size: PageSize = PAGE_4K, asid = 1): string =>
  outcome(rmp.rmpupdate(pfn, true, size, false, gfn, asid))
const validate = (rmp: Rmp, gfn: number, pfn: number, size: PageSize = PAGE_4K, npt = size): string =>
  outcome(rmp.pvalidate(1, 0, gfn, pfn, npt, size, true))
const touch = (rmp: Rmp, gfn: number, pfn: number, npt: PageSize = PAGE_4K, asid = 1): string =>
  verdict(rmp.checkGuest(asid, 0, 0, ACCESS.READ, true, gfn, pfn, npt))

/** G0 holds A at P1 and B at P2, both validated. */
const twoPages = (): Rmp => {
  const rmp = newRmp()
  assign(rmp, P1, A)
  assign(rmp, P2, B)
  expect([validate(rmp, A, P1), validate(rmp, B, P2)]).toEqual(["SUCCESS", "SUCCESS"])
  return rmp
}

describe("integrity", () => {
  it("I1, I2: H may read ciphertext, but not write it, nor write it back", () => {
    const rmp = twoPages()
    expect(verdict(rmp.checkHost(P1, ACCESS.READ, PAGE_4K))).toBe("ok")
    expect(verdict(rmp.checkHost(P1, ACCESS.WRITE, PAGE_4K))).toBe("#PF RMP")
  })

  it("I3: H maps A to the page validated for B", () => {
    expect(touch(twoPages(), A, P2)).toBe("#NPF RMP")
  })

  it("I4: H moves B's page to A with RMPUPDATE, which unvalidates it", () => {
    const rmp = twoPages()
    expect(assign(rmp, P2, A)).toBe("SUCCESS")
    expect(touch(rmp, A, P2)).toBe("#VC")
  })

  it("I5: of two mappings to one page only the entry's GPA and ASID pass", () => {
    const rmp = twoPages()
    expect([touch(rmp, A, P1), touch(rmp, B, P1), touch(rmp, A, P1, PAGE_4K, 2)]).toEqual([
      "ok",
      "#NPF RMP",
      "#NPF RMP"
    ])
  })
})

describe("double validation", () => {
  it("D1: a guest that validates A twice lets H swap two pages unseen", () => {
    const rmp = newRmp()
    assign(rmp, P1, A)
    expect(validate(rmp, A, P1)).toBe("SUCCESS")
    assign(rmp, P2, A)
    expect(validate(rmp, A, P2)).toBe("SUCCESS")
    expect([touch(rmp, A, P1), touch(rmp, A, P2), touch(rmp, A, P1)]).toEqual(["ok", "ok", "ok"])
  })

  it("D2: only CF tells that the page was valid already", () => {
    expect(validate(twoPages(), A, P1)).toBe("SUCCESS CF")
  })
})

describe("page sizes", () => {
  it("S1: 4K PVALIDATE of a 2M page, PSMASH, again", () => {
    const rmp = newRmp()
    assign(rmp, BASE, A, PAGE_2M)
    expect(validate(rmp, A, BASE, PAGE_4K, PAGE_2M)).toBe("#NPF RMP SIZEM")
    expect(outcome(rmp.psmash(BASE))).toBe("SUCCESS")
    expect(validate(rmp, A, BASE)).toBe("SUCCESS")
    expect([touch(rmp, A, BASE), touch(rmp, A + 1, BASE + 1)]).toEqual(["ok", "#VC"])
  })

  it("S2: 2M PVALIDATE of 4K pages, then one by one", () => {
    const rmp = newRmp()
    assign(rmp, BASE, A)
    expect(validate(rmp, A, BASE, PAGE_2M, PAGE_4K)).toBe("FAIL_SIZEMISMATCH")
    expect(validate(rmp, A, BASE)).toBe("SUCCESS")
  })

  it("S3: a 2M page mapped with 4K faults until PSMASH; RMPUPDATE instead loses the validation", () => {
    const rmp = newRmp()
    assign(rmp, BASE, A, PAGE_2M)
    validate(rmp, A, BASE, PAGE_2M)
    expect([touch(rmp, A + 5, BASE + 5, PAGE_2M), touch(rmp, A + 5, BASE + 5)]).toEqual(["ok", "#NPF RMP"])
    expect(outcome(rmp.psmash(BASE))).toBe("SUCCESS")
    expect([touch(rmp, A + 5, BASE + 5, PAGE_2M), touch(rmp, A + 5, BASE + 5)]).toEqual(["#NPF RMP", "ok"])

    const other = newRmp()
    assign(other, BASE, A, PAGE_2M)
    validate(other, A, BASE, PAGE_2M)
    expect(assign(other, BASE, A)).toBe("FAIL_OVERLAP")
    expect(outcome(other.rmpupdate(BASE, false, PAGE_2M, false, 0, 0))).toBe("SUCCESS")
    assign(other, BASE, A)
    expect(touch(other, A, BASE)).toBe("#VC")
  })

  it("S4: H punches a hole into a 2M guest page", () => {
    const rmp = newRmp()
    assign(rmp, BASE, A, PAGE_2M)
    expect(outcome(rmp.rmpupdate(BASE + 77, false, PAGE_4K, false, 0, 0))).toBe("FAIL_OVERLAP")
  })
})

describe("privilege levels and VMSAs", () => {
  const adjust = (rmp: Rmp, vmpl: number, target: number, mask: number, vmsa = false): string =>
    outcome(rmp.rmpadjust(1, vmpl, A, P1, PAGE_4K, PAGE_4K, target, mask, vmsa))

  it("V1: G2 writes where its mask lacks W", () => {
    const rmp = twoPages()
    adjust(rmp, 0, 2, 1)
    expect(verdict(rmp.checkGuest(1, 2, 0, ACCESS.READ, true, A, P1, PAGE_4K))).toBe("ok")
    expect(verdict(rmp.checkGuest(1, 2, 0, ACCESS.WRITE, true, A, P1, PAGE_4K))).toBe("#NPF RMP VMPL")
  })

  it("V2: G2 grants to itself, upwards, or more than it has", () => {
    const rmp = twoPages()
    adjust(rmp, 0, 2, 1)
    expect([adjust(rmp, 2, 1, 1), adjust(rmp, 2, 2, 1), adjust(rmp, 2, 3, 3), adjust(rmp, 2, 3, 1)]).toEqual([
      "FAIL_PERMISSION",
      "FAIL_PERMISSION",
      "FAIL_PERMISSION",
      "SUCCESS"
    ])
  })

  it("V3: G2 makes a VMSA; the call succeeds, the bit stays clear, VMRUN refuses", () => {
    const rmp = twoPages()
    adjust(rmp, 0, 2, 0xf)
    expect(adjust(rmp, 2, 3, 1, true)).toBe("SUCCESS")
    expect(rmp.checkVmrunVmsa(1, A, P1)).toBe(false)
    expect(adjust(rmp, 2, 1, 1, true)).toBe("FAIL_PERMISSION")
  })

  it("M1: H takes a running VMSA's page away", () => {
    const rmp = twoPages()
    adjust(rmp, 0, 1, 1, true)
    expect(rmp.checkVmrunVmsa(1, A, P1)).toBe(true)
    rmp.markInUse(P1)
    expect(outcome(rmp.rmpupdate(P1, false, PAGE_4K, false, 0, 0))).toBe("FAIL_INUSE")
    rmp.clearInUse(P1)
    expect(outcome(rmp.rmpupdate(P1, false, PAGE_4K, false, 0, 0))).toBe("SUCCESS")
    expect(rmp.checkVmrunVmsa(1, A, P1)).toBe(false)
  })

  it("M2: G0 clears the VMSA bit between runs", () => {
    const rmp = twoPages()
    adjust(rmp, 0, 1, 1, true)
    adjust(rmp, 0, 1, 1, false)
    expect(rmp.checkVmrunVmsa(1, A, P1)).toBe(false)
  })

  it("VMRUN asks for cover, owner, GPA, mutability and the VMSA bit; not for Validated or size", () => {
    const entry = { assigned: true, asid: 1, gfn: A, vmsa: true } as const
    const runs = (fields: object, pfn = P1): boolean => {
      const rmp = newRmp()
      rmp.firmwareSet(P1, { ...entry, ...fields })
      return rmp.checkVmrunVmsa(1, A, pfn)
    }
    expect(runs({})).toBe(true)
    expect([
      runs({}, BASE - 1),
      runs({ asid: 2 }),
      runs({ gfn: B }),
      runs({ immutable: true }),
      runs({ vmsa: false })
    ]).toEqual(Array(5).fill(false))
    const rmp = newRmp()
    assign(rmp, BASE, A, PAGE_2M)
    rmp.firmwareSet(BASE, { vmsa: true })
    expect([rmp.checkVmrunVmsa(1, A + 9, BASE + 9), rmp.checkVmrunVmsa(1, A, BASE + 9)]).toEqual([true, false])
  })
})
