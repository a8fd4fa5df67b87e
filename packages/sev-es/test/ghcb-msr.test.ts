import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  GHCB_MSR,
  getU64,
  hi32,
  lo32,
  msrGfn,
  msrInfo,
  msrWithGfnHi,
  msrWithGfnLo,
  PSC_OP,
  pscGfn,
  pscHi,
  pscOp,
  setU64,
  sevInfoHi,
  sevInfoLo,
  TERMINATE,
  terminationLo,
  toNumber,
  u64
} from "../src/index.ts"

/** The MSR as one number, put together apart from the code under test. */
const msr = (lo: number, hi: number): bigint => (BigInt(hi) << 32n) | BigInt(lo)

const gfn40 = fc.integer({ min: 0, max: 2 ** 40 - 1 })
const gfn52 = fc.integer({ min: 0, max: 2 ** 52 - 1 })
const code = fc.constantFrom(...Object.values(GHCB_MSR))
const RUNS = { seed: 20260812, numRuns: 1000 }

describe("known values of the GHCB MSR", () => {
  it("SEV information: versions 1 to 2, C-bit 51", () => {
    expect(msr(sevInfoLo(51), sevInfoHi(2, 1))).toBe(0x0002_0001_3300_0001n)
    expect(msr(sevInfoLo(0xff), sevInfoHi(0xffff, 1))).toBe(0xffff_0001_ff00_0001n)
  })

  it("GHCB registration of the page at 0x7f_f123_4000", () => {
    const lo = msrWithGfnLo(GHCB_MSR.REGISTER_GPA_REQUEST, 0x7f_f1234)
    expect(msr(lo, msrWithGfnHi(0x7f_f1234))).toBe(0x7f_f123_4012n)
    expect(msrInfo(lo)).toBe(0x012)
  })

  it("page state change: operation in [55:52], frame in [51:12]", () => {
    const gfn = 0xab_cdef_0123
    const lo = msrWithGfnLo(GHCB_MSR.PSC_REQUEST, gfn)
    expect(msr(lo, pscHi(PSC_OP.PRIVATE, gfn))).toBe(0x001a_bcde_f012_3014n)
    expect(msr(lo, pscHi(PSC_OP.SHARED, gfn))).toBe(0x002a_bcde_f012_3014n)
  })

  it("termination: reason set in [15:12], reason in [23:16]", () => {
    const { GENERAL, NO_SVSM, CA_REMAP } = TERMINATE
    expect(terminationLo(GENERAL.set, GENERAL.reason)).toBe(0x100)
    expect(terminationLo(NO_SVSM.set, NO_SVSM.reason)).toBe(0x07_1100)
    expect(terminationLo(CA_REMAP.set, CA_REMAP.reason)).toBe(0x0b_1100)
    expect(terminationLo(0xf, 0xff)).toBe(0xff_f100)
  })
})

describe("the GHCB MSR protocol", () => {
  it("carries every frame number and code there and back", () => {
    fc.assert(
      fc.property(code, gfn52, (info, gfn) => {
        const lo = msrWithGfnLo(info, gfn)
        const hi = msrWithGfnHi(gfn)
        expect(msr(lo, hi)).toBe((BigInt(gfn) << 12n) | BigInt(info))
        expect([msrInfo(lo), msrGfn(lo, hi)]).toEqual([info, gfn])
      }),
      RUNS
    )
  })

  it("carries every page state change there and back", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 15 }), gfn40, (op, gfn) => {
        const lo = msrWithGfnLo(GHCB_MSR.PSC_REQUEST, gfn)
        const hi = pscHi(op, gfn)
        expect(msr(lo, hi)).toBe((BigInt(op) << 52n) | (BigInt(gfn) << 12n) | 0x014n)
        expect([pscOp(hi), pscGfn(lo, hi)]).toEqual([op, gfn])
      }),
      RUNS
    )
  })

  it("reads the operation of a page state change apart from the reserved bits above it", () => {
    expect(pscOp(0xfff2_0000)).toBe(0xf)
    expect(pscOp(0xff20_0000)).toBe(2)
    expect(pscGfn(0, 0xffff_ffff)).toBe(0xf_ffff * 2 ** 20)
  })
})

describe("a 64-bit register in halves", () => {
  const exact = fc.maxSafeNat()
  const word = fc.integer({ min: 0, max: 0xffff_ffff })

  it("keeps every exact integer there and back", () => {
    fc.assert(
      fc.property(exact, (value) => {
        const { lo, hi } = u64(value)
        expect(msr(lo, hi)).toBe(BigInt(value))
        expect(toNumber(lo, hi)).toBe(value)
        expect([lo32(value), hi32(value)]).toEqual([lo, hi])
        const view = new DataView(new ArrayBuffer(24))
        setU64(view, 8, value)
        expect(view.getBigUint64(8, true)).toBe(BigInt(value))
        expect(getU64(view, 8)).toBe(value)
        expect([view.getBigUint64(0), view.getBigUint64(16)]).toEqual([0n, 0n])
      }),
      RUNS
    )
  })

  it("takes a lower half that bitwise code left negative", () => {
    fc.assert(
      fc.property(word, fc.integer({ min: 0, max: 0x1f_ffff }), (lo, hi) => {
        expect(toNumber(lo | 0, hi)).toBe(toNumber(lo, hi))
      }),
      RUNS
    )
  })

  it("splits the edges exactly", () => {
    expect(u64(0xffff_ffff)).toEqual({ lo: 0xffff_ffff, hi: 0 })
    expect(u64(0x1_0000_0000)).toEqual({ lo: 0, hi: 1 })
    expect(u64(Number.MAX_SAFE_INTEGER)).toEqual({ lo: 0xffff_ffff, hi: 0x1f_ffff })
  })
})
