import { PAGE_4K } from "@vmpl-lab/rmp"
import { describe, expect, it } from "vitest"
import { PAGE_TYPE, type PlatformIdentityOptions } from "../src/index.ts"
import { ASID, bytesOf, GCTX, makeMachine } from "./guest-message-support.ts"

const MITIGATIONS = 0x1122_3344_5566_7788n
const reportOf = (identity: PlatformIdentityOptions, fms = 0xa10f10) =>
  Buffer.from(makeMachine({ firmware: { fms, identity } }).ask(5, bytesOf(0x60, {})).payload.subarray(0x20))

describe("versions of the attestation report", () => {
  it.each([
    [2, [0, 0, 0], 0n, 1n],
    [3, [0x19, 0x11, 0], 0n, 0x21n],
    [5, [0x19, 0x11, 0], MITIGATIONS, 0x21n]
  ] as const)("version %i", (reportVersion, cpuid, mitigations, platformInfo) => {
    const report = reportOf({ reportVersion, mitigationVector: MITIGATIONS, aliasCheckComplete: true })
    expect(report.readUInt32LE(0)).toBe(reportVersion)
    expect([...report.subarray(0x188, 0x18b)]).toEqual(cpuid)
    expect([report.readBigUInt64LE(0x1f8), report.readBigUInt64LE(0x200)]).toEqual([mitigations, mitigations])
    expect(report.readBigUInt64LE(0x40)).toBe(platformInfo)
  })

  it.each([
    [0xa00f11, [0x19, 0x01, 1]],
    [0xb00f21, [0x1a, 0x02, 1]]
  ])("names the processor 0x%x", (fms, expected) => {
    expect([...reportOf({ reportVersion: 3 }, fms).subarray(0x188, 0x18b)]).toEqual(expected)
  })
})

describe("CPUID pages at launch", () => {
  const launchCpuid = (page: Uint8Array) => {
    const claimedEcx = 0xff
    const cpuidPolicy = ({ eax, ebx, ecx, edx }: { eax: number; ebx: number; ecx: number; edx: number }) => ({
      eax,
      ebx,
      ecx: ecx & ~claimedEcx,
      edx
    })
    const machine = makeMachine({ isFinished: false, firmware: { cpuidPolicy } })
    machine.rmp.rmpupdate(9, true, PAGE_4K, true, 0x801, ASID)
    machine.memory.writePlain(9, page)
    const run = () => machine.firmware.launchUpdate({ gctx: GCTX, pfn: 9, pageSize: 0, pageType: PAGE_TYPE.CPUID })
    return { ...machine, run }
  }
  const row = (leaf: number, ecx: number) => ({ 16: leaf, 48: ecx })

  it("hands values that are not acceptable back in clear with those that are, and takes them then", () => {
    const page = bytesOf(4096, { 0: 1, ...row(1, 0x1ff) })
    const { run, memory, guest } = launchCpuid(page)
    const before = guest.digest.value
    expect(run()).toBe("INVALID_PARAM")
    expect(guest.digest.value).toEqual(before)
    expect([...memory.readPlain(9)]).toEqual([...bytesOf(4096, { 0: 1, ...row(1, 0x100) })])
    expect(run()).toBe("SUCCESS")
    expect(guest.digest.value).not.toEqual(before)
  })

  it("leaves a page of the wrong form as it was", () => {
    for (const rows of [
      { 0: 65, ...row(1, 0x1ff) },
      { 0: 1, 4: 1, ...row(1, 0x1ff) }
    ]) {
      const page = bytesOf(4096, rows)
      const { run, memory } = launchCpuid(page)
      expect(run()).toBe("INVALID_PARAM")
      expect([...memory.readPlain(9)]).toEqual([...page])
    }
  })
})
