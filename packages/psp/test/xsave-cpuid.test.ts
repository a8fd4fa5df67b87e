import { PAGE_4K } from "@vmpl-lab/rmp"
import { describe, expect, it } from "vitest"
import { PAGE_TYPE, XSAVE_CPUID } from "../src/index.ts"
import { ASID, bytesOf, GCTX, makeMachine } from "./guest-message-support.ts"

const X87_SSE = 3n
const [AVX, KREGS, ZMMHI, HIZMM, MPK] = [1n << 2n, 1n << 5n, 1n << 6n, 1n << 7n, 1n << 9n]
const [CET_U, CET_S] = [1n << 11n, 1n << 12n]
const leaf = (ecxIn: number, xcr0In: bigint, xssIn = 0n) =>
  XSAVE_CPUID({ eaxIn: 0xd, ecxIn, xcr0In, xssIn, eax: 0, ebx: 0xffff, ecx: 5, edx: 6 })

describe("leaf 0xD", () => {
  it.each([
    [X87_SSE, 0x240],
    [X87_SSE | AVX, 0x340],
    [X87_SSE | AVX | KREGS, 0x380],
    [X87_SSE | AVX | KREGS | ZMMHI, 0x580],
    [X87_SSE | AVX | KREGS | ZMMHI | HIZMM, 0x980],
    [X87_SSE | AVX | MPK, 0x988]
  ])("subleaf 0 with XCR0 %i: the standard form ends at %i", (xcr0, ebx) => {
    expect(leaf(0, xcr0)).toMatchObject({ eax: 3, ebx, ecx: 5, edx: 0 })
  })

  it.each([
    [X87_SSE, 0n, 0x240],
    [X87_SSE | AVX, 0n, 0x340],
    [X87_SSE | AVX | MPK, 0n, 0x348],
    [X87_SSE | AVX | KREGS | ZMMHI | HIZMM, 0n, 0x980],
    [X87_SSE, CET_U, 0x250],
    [X87_SSE | AVX, CET_U | CET_S, 0x368]
  ])("subleaf 1 with XCR0 %i and XSS %i: the compacted form has %i bytes", (xcr0, xss, ebx) => {
    expect(leaf(1, xcr0, xss)).toMatchObject({ eax: 0, ebx, ecx: 5, edx: 6 })
  })

  it("other subleaves and leaves are taken as they are", () => {
    const claimed = { eaxIn: 7, ecxIn: 0, xcr0In: 7n, xssIn: 0n, eax: 1, ebx: 2, ecx: 3, edx: 4 }
    expect(XSAVE_CPUID(claimed)).toBe(claimed)
    expect(leaf(2, 7n)).toMatchObject({ eax: 0, ebx: 0xffff, ecx: 5, edx: 6 })
  })

  it("a page that says less is handed back in clear with the right size, and is launched then", () => {
    const machine = makeMachine({ isFinished: false, firmware: { cpuidPolicy: XSAVE_CPUID } })
    const { rmp, memory, firmware } = machine
    const page = (ebx: number) => bytesOf(4096, { 0: 1, 16: 0xd, 24: 7n, 40: 7, 44: ebx, 48: 0x340 })
    rmp.rmpupdate(30, true, PAGE_4K, true, 0x900, ASID)
    memory.writePlain(30, page(0x240))
    const update = () => firmware.launchUpdate({ gctx: GCTX, pfn: 30, pageSize: PAGE_4K, pageType: PAGE_TYPE.CPUID })
    expect(update()).toBe("INVALID_PARAM")
    expect(memory.readPlain(30)).toEqual(page(0x340))
    expect(update()).toBe("SUCCESS")
    expect(memory.readEncrypted(30, ASID)).toEqual(page(0x340))
  })
})
