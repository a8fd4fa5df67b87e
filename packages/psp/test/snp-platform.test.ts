// @section 1.3, 1.7
import { ACCESS, encodeRstEntry, flatLayout, PAGE_2M, PAGE_4K, Rmp, rmpEndFor, segmentedLayout } from "@vmpl-lab/rmp"
import { describe, expect, it } from "vitest"
import { type PageCommand, PageCommands, SnpPlatform } from "../src/index.ts"

const GIB = 2 ** 30
const CORES = [
  { snpEnabled: true, vmHsavePa: 0 },
  { snpEnabled: true, vmHsavePa: 0 }
]
const BASE = 0x10_0000
const memory = { hvFixed: [{ first: 0xa0, count: 2 }], iommu: [{ first: 0x8000, count: 1 }] }
const flat = () => new Rmp({ layout: flatLayout(BASE, rmpEndFor(BASE, GIB)) })

describe("SNP_INIT_EX", () => {
  it("needs SNP and VM_HSAVE_PA = 0 on every core, and an uninitialised platform", () => {
    const platform = new SnpPlatform(flat(), memory)
    expect(platform.snpInit([...CORES, { snpEnabled: false, vmHsavePa: 0 }])).toBe("INVALID_CONFIG")
    expect(platform.snpInit([{ snpEnabled: true, vmHsavePa: 0x1000 }, ...CORES])).toBe("INVALID_CONFIG")
    expect(platform.state).toBe("UNINIT")
    expect(platform.snpInit(CORES)).toBe("SUCCESS")
    expect(platform.snpInit(CORES)).toBe("INVALID_PLATFORM_STATE")
  })

  it("makes the RMP protect itself, fixes what is not the hypervisor's, and leaves it the rest", () => {
    const rmp = flat()
    const [first, last] = [BASE / 0x1000, BASE / 0x1000 + 0x403]
    expect(rmp.checkHost(first, ACCESS.WRITE, PAGE_4K)).toBe(0)
    new SnpPlatform(rmp, memory).snpInit(CORES)
    expect([first, last, first - 1, last + 1].map((pfn) => rmp.stateOf(pfn))).toEqual([
      "Firmware",
      "Firmware",
      "Hypervisor",
      "Hypervisor"
    ])
    expect([0xa0, 0xa1, 0xa2, 0x8000].map((pfn) => rmp.stateOf(pfn))).toEqual([
      "HV-Fixed",
      "HV-Fixed",
      "Hypervisor",
      "Firmware-IOMMU"
    ])
    // No store of the host reaches an entry, not even its own.
    for (const pfn of [first, last]) {
      expect(rmp.checkHost(pfn, ACCESS.WRITE, PAGE_4K)).not.toBe(0)
      expect(rmp.checkHost(pfn, ACCESS.READ, PAGE_4K)).toBe(0)
      expect(rmp.rmpupdate(pfn, false, PAGE_4K, false, 0, 0)).toBe(2)
      expect(rmp.rmpupdate(pfn, true, PAGE_4K, false, 7, 1)).toBe(2)
    }
    expect(rmp.checkHost(first, ACCESS.WRITE, PAGE_2M)).not.toBe(0)
    // HV-Fixed passes for the host but is no page that can be given away.
    expect(rmp.checkHost(0xa0, ACCESS.WRITE, PAGE_4K)).toBe(0)
    expect(rmp.rmpupdate(0xa0, true, PAGE_4K, false, 7, 1)).toBe(2)
  })

  it("the RMP's own pages are Firmware, but no command takes them", () => {
    const rmp = flat()
    new SnpPlatform(rmp).snpInit(CORES)
    const psp = new PageCommands(rmp)
    const pfn = BASE / 0x1000 + 5
    const status = (command: string) => psp.execute({ command, pfn } as PageCommand)
    expect(["GCTX_CREATE", "PAGE_RECLAIM", "PAGE_SET_STATE"].map(status)).toEqual([
      "INVALID_PARAM",
      "INVALID_ADDRESS",
      "INVALID_ADDRESS"
    ])
    expect(psp.execute({ command: "MD_INIT", pfn, contextPfn: pfn })).toBe("INVALID_PARAM")
    expect(rmp.stateOf(pfn)).toBe("Firmware")
  })

  it("protects every part of a segmented RMP that lies in covered memory", () => {
    const segment = encodeRstEntry({ base: 0x200_0000, coveredGib: 1 })
    const rmp = new Rmp({ layout: segmentedLayout(BASE, 0x2401, [segment]) })
    new SnpPlatform(rmp).snpInit(CORES)
    expect([0x100, 0x104, 0x105, 0x2000, 0x23ff, 0x2400].map((pfn) => rmp.stateOf(pfn))).toEqual([
      "Firmware",
      "Firmware",
      "Hypervisor",
      "Firmware",
      "Firmware",
      "Hypervisor"
    ])
  })

  it("clears what the RMP held before", () => {
    const rmp = flat()
    rmp.rmpupdate(0x5000, true, PAGE_4K, false, 7, 1)
    new SnpPlatform(rmp).snpInit(CORES)
    expect(rmp.entry(0x5000)).toMatchObject({ assigned: false, asid: 0, gfn: 0 })
  })
})

describe("SNP_SHUTDOWN_EX", () => {
  it("gives the IOMMUs' pages up only when asked to", () => {
    const rmp = flat()
    const platform = new SnpPlatform(rmp, memory)
    expect(platform.shutdownEx(true)).toBe("SUCCESS")
    expect(rmp.stateOf(0x8000)).toBe("Hypervisor")
    platform.snpInit(CORES)
    expect(platform.shutdownEx(false)).toBe("SUCCESS")
    expect([platform.state, rmp.stateOf(0x8000)]).toEqual(["UNINIT", "Firmware-IOMMU"])
    platform.snpInit(CORES)
    platform.shutdownEx(true)
    expect(rmp.stateOf(0x8000)).toBe("Reclaim")
    expect(rmp.rmpupdate(0x8000, false, PAGE_4K, false, 0, 0)).toBe(0)
  })
})
