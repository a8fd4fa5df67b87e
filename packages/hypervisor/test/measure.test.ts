import { createHash } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import { PAGE_TYPE } from "@vmpl-lab/psp"
import { guidBytes, guidText, INITIAL_VMSA_GPA, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  cpuSignature,
  FIRMWARE_END,
  FirmwareError,
  type FirmwareImage,
  firmwarePages,
  HASH_TABLE_SIZE,
  initialVmsa,
  kernelHashPage,
  kernelHashTable,
  type LaunchPage,
  type LaunchPlanInput,
  launchPlan,
  measureSev,
  measureSevEs,
  measureSnp,
  parseFirmware,
  RESET_EIP,
  SECTION_TYPE,
  syntheticFirmware,
  VCPU_SIGNATURE,
  VMM_TYPES
} from "../src/vmm/index.ts"

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const sha256 = (...parts: ReadonlyArray<Uint8Array | string>): string => {
  const digest = createHash("sha256")
  for (const part of parts) digest.update(part)
  return digest.digest("hex")
}

const image = parseFirmware(syntheticFirmware(), "synthetic")
const withKernelPage: FirmwareImage = {
  ...image,
  sections: [...image.sections, { gpa: 0x90_0000, size: PAGE_SIZE, type: SECTION_TYPE.KERNEL_HASHES }],
  hashTable: { gpa: 0x90_0c00, size: 0x400 }
}
const hashes = kernelHashTable({ kernel: new Uint8Array([1, 2, 3]), append: "quiet" })
const input: LaunchPlanInput = { image, vmmType: "QEMU", vcpus: 1, signature: 0x80_0f12, sevFeatures: 1 }
const typesOf = (pages: ReadonlyArray<LaunchPage>, gpa: number): ReadonlyArray<number> =>
  pages.filter((page) => page.gpa === gpa).map((page) => page.type)

describe("CPU signatures", () => {
  it.each([
    [14, 1, 2, 0xe12],
    [15, 1, 2, 0xf12],
    [23, 1, 2, 0x80_0f12],
    [23, 49, 0, 0x83_0f10],
    [25, 1, 1, 0xa0_0f11],
    [25, 17, 0, 0xa1_0f10],
    [26, 0, 0, 0xb0_0f00]
  ])("family %i model %i stepping %i", (family, model, stepping, expected) => {
    expect(cpuSignature(family, model, stepping)).toBe(expected)
  })

  it("are the same for all versions of a model", () => {
    expect(Object.keys(VCPU_SIGNATURE)).toHaveLength(16)
    for (const [type, signature] of Object.entries(VCPU_SIGNATURE)) {
      const base = type.replace(/-(v\d|IBPB)$/, "") as keyof typeof VCPU_SIGNATURE
      expect(signature).toBe(VCPU_SIGNATURE[base])
    }
  })
})

describe("initial VMSA", () => {
  it("of QEMU's boot processor is the known page", () => {
    const page = initialVmsa({
      vmmType: "QEMU",
      eip: RESET_EIP,
      signature: VCPU_SIGNATURE["EPYC-v4"],
      sevFeatures: 1,
      bsp: true
    })
    expect(createHash("sha384").update(page).digest("hex")).toBe(
      "77920c4c629ff47e90c0e174fc1ad0eb6fa664f88cd4739488058a8c6cb1a77b3856f55378e9518d0da99452d51c553a"
    )
  })

  it("splits the entry point into CS base and RIP", () => {
    const page = initialVmsa({ vmmType: "QEMU", eip: 0x80_b004, signature: 0, sevFeatures: 1, bsp: false })
    const view = new DataView(page.buffer)
    expect(view.getBigUint64(VMSA.cs + 8, true)).toBe(0x80_0000n)
    expect(view.getBigUint64(VMSA.rip, true)).toBe(0xb004n)
  })

  it("differs between monitors, and on EC2 between BSP and AP", () => {
    const of = (vmmType: (typeof VMM_TYPES)[number], bsp: boolean): string =>
      hexOf(initialVmsa({ vmmType, eip: RESET_EIP, signature: 0, sevFeatures: 1, bsp }))
    expect(new Set(VMM_TYPES.map((vmmType) => of(vmmType, true))).size).toBe(3)
    expect(VMM_TYPES.filter((vmmType) => of(vmmType, true) !== of(vmmType, false))).toEqual(["ec2"])
  })

  it("keeps SEV_FEATURES above bit 31", () => {
    const page = initialVmsa({ vmmType: "QEMU", eip: 0, signature: 0, sevFeatures: 2 ** 40 + 1, bsp: true })
    expect(new DataView(page.buffer).getBigUint64(VMSA.sev_features, true)).toBe(0x100_0000_0001n)
  })
})

describe("kernel hashes", () => {
  it("stand in the order command line, initrd, kernel, each behind GUID and length", () => {
    const table = kernelHashTable({ kernel: new Uint8Array([1]), initrd: new Uint8Array([2]), append: "a b" })
    const view = new DataView(table.buffer)
    expect(table).toHaveLength(HASH_TABLE_SIZE)
    expect(guidText(table, 0)).toBe("9438d606-4f22-4cc9-b479-a793d411fd21")
    expect(view.getUint16(16, true)).toBe(168)
    const entry = (index: number) => {
      const offset = 18 + index * 50
      return [guidText(table, offset), view.getUint16(offset + 16, true), hexOf(table.slice(offset + 18, offset + 50))]
    }
    expect(entry(0)).toEqual(["97d02dd8-bd20-4c94-aa78-e7714d36ab2a", 50, sha256("a b\0")])
    expect(entry(1)).toEqual(["44baf731-3a2f-4bd7-9af1-41e29169781d", 50, sha256(new Uint8Array([2]))])
    expect(entry(2)).toEqual(["4de79437-abd2-427f-b835-d5b172d2045b", 50, sha256(new Uint8Array([1]))])
    expect(hexOf(table.slice(168))).toBe("0000000000000000")
  })

  it("of absent initrd and command line are those of nothing and of one NUL", () => {
    const kernel = new Uint8Array([1])
    expect(kernelHashTable({ kernel })).toEqual(kernelHashTable({ kernel, initrd: new Uint8Array(0), append: "" }))
    expect(hexOf(kernelHashTable({ kernel }))).toContain(sha256("\0"))
  })

  it("GUIDs round-trip", () => {
    const text = "96b582de-1fb2-45f7-baea-a366c55a082d"
    expect(guidText(guidBytes(text), 0)).toBe(text)
    expect(hexOf(guidBytes(text))).toBe("de82b596b21ff745baeaa366c55a082d")
  })
})

describe("launch plan", () => {
  it("starts with the firmware up to 4 GiB and ends with one VMSA per vCPU, the BSP's first", () => {
    const plan = launchPlan({ ...input, vcpus: 3 })
    const own = firmwarePages(image)
    expect(plan.slice(0, own.length)).toEqual(own)
    expect(own.at(-1)?.gpa).toBe(FIRMWARE_END - PAGE_SIZE)
    const vmsas = plan.slice(-3)
    expect(vmsas.map(({ gpa, type }) => [gpa, type])).toEqual(Array(3).fill([INITIAL_VMSA_GPA, PAGE_TYPE.VMSA]))
    const rips = vmsas.map(({ contents }) => new DataView(contents!.buffer).getUint32(VMSA.rip, true))
    expect(rips).toEqual([0xfff0, 0xb004, 0xb004])
    expect(typesOf(plan, INITIAL_VMSA_GPA)).toHaveLength(3)
  })

  it("launches the sections page by page", () => {
    const plan = launchPlan(input)
    expect(typesOf(plan, 0x80_0000)).toEqual([PAGE_TYPE.ZERO])
    expect(typesOf(plan, 0x80_8000)).toEqual([PAGE_TYPE.ZERO])
    expect(typesOf(plan, 0x80_9000)).toEqual([])
    expect(typesOf(plan, 0x80_d000)).toEqual([PAGE_TYPE.SECRETS])
    expect(typesOf(plan, 0x80_e000)).toEqual([PAGE_TYPE.CPUID])
    expect(typesOf(plan, 0x80_f000)).toEqual([PAGE_TYPE.ZERO])
    expect(plan).toHaveLength(16 + 9 + 3 + 1 + 1 + 1 + 16 + 1)
  })

  it("follows EC2's order and GCE's page type", () => {
    const ec2 = launchPlan({ ...input, vmmType: "ec2" })
    expect(ec2.at(-2)).toEqual({ gpa: 0x80_e000, type: PAGE_TYPE.CPUID, contents: null })
    expect(ec2).toHaveLength(launchPlan(input).length)
    const gce = launchPlan({ ...input, vmmType: "gce" })
    expect(typesOf(gce, 0x80_0000)).toEqual([PAGE_TYPE.UNMEASURED])
    expect(typesOf(gce, 0x80_f000)).toEqual([PAGE_TYPE.ZERO])
  })

  it("puts the kernel hashes at their place in an otherwise zero page", () => {
    const page = (kernelHashes: Uint8Array | null): LaunchPage | undefined =>
      launchPlan({ ...input, image: withKernelPage, kernelHashes }).find(({ gpa }) => gpa === 0x90_0000)
    expect(page(null)).toEqual({ gpa: 0x90_0000, type: PAGE_TYPE.ZERO, contents: null })
    expect(page(hashes)).toEqual({ gpa: 0x90_0000, type: PAGE_TYPE.NORMAL, contents: kernelHashPage(hashes, 0xc00) })
  })

  it("refuses a kernel without a place for its hashes, and APs without an entry point", () => {
    const plan = (change: Partial<LaunchPlanInput>) => () => launchPlan({ ...input, ...change })
    expect(plan({ kernelHashes: hashes })).toThrow(FirmwareError)
    expect(plan({ kernelHashes: hashes, image: { ...withKernelPage, hashTable: null } })).toThrow("hash table entry")
    expect(plan({ image: { ...image, apEip: null } })).not.toThrow()
    expect(plan({ image: { ...image, apEip: null }, vcpus: 2 })).toThrow("no SEV-ES reset block")
    for (const vcpus of [0, -1, 1.5, Number.NaN]) expect(plan({ vcpus })).toThrow(RangeError)
  })
})

describe("measurement", () => {
  it("of the synthetic image stays what it was", () => {
    expect(hexOf(measureSnp(launchPlan(input)))).toBe(
      "aecf6914359d613d77d95dfc0e3d2534a4d666a5cdb266cc2d90754c8f22fe78322667b5e31f72ede0f516d10e7f5e46"
    )
  })

  it("depends on everything that the guest could be deceived about", () => {
    const all = [
      input,
      { ...input, vcpus: 2 },
      { ...input, sevFeatures: 0x21 },
      { ...input, signature: VCPU_SIGNATURE["EPYC-Milan"] },
      { ...input, vmmType: "ec2" as const },
      { ...input, vmmType: "gce" as const },
      { ...input, image: withKernelPage },
      { ...input, image: withKernelPage, kernelHashes: hashes }
    ].map((variant) => hexOf(measureSnp(launchPlan(variant))))
    expect(new Set(all).size).toBe(all.length)
  })

  it("of SEV is SHA-256 of firmware and hash table; SEV-ES appends VMSAs without features", () => {
    const vmsa = (eip: number, bsp: boolean): Uint8Array =>
      initialVmsa({ vmmType: "QEMU", eip, signature: 0x80_0f12, sevFeatures: 0, bsp })
    const bytes = withKernelPage.bytes
    expect(hexOf(measureSev({ image }))).toBe(sha256(bytes))
    expect(hexOf(measureSev({ image: withKernelPage, kernelHashes: hashes }))).toBe(sha256(bytes, hashes))
    expect(
      hexOf(
        measureSevEs({
          image: withKernelPage,
          kernelHashes: hashes,
          vmmType: "QEMU",
          vcpus: 2,
          signature: 0x80_0f12
        })
      )
    ).toBe(sha256(bytes, hashes, vmsa(RESET_EIP, true), vmsa(0x80_b004, false)))
    expect(() => measureSev({ image, kernelHashes: hashes })).toThrow(FirmwareError)
  })
})

const OVMF = "/usr/share/ovmf/OVMF.fd"
const OVMF_SHA256 = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773"

describe("Debian's OVMF", () => {
  // The digest belongs to one build of the package, so another build is no failure.
  const isKnownBuild = existsSync(OVMF) && sha256(readFileSync(OVMF)) === OVMF_SHA256
  const test = isKnownBuild ? it : it.skip
  test(`has its known digest (needs ${OVMF} of Debian's package ovmf, SHA-256 ${OVMF_SHA256})`, () => {
    const firmware = parseFirmware(new Uint8Array(readFileSync(OVMF)), OVMF)
    const plan = launchPlan({ ...input, image: firmware, signature: VCPU_SIGNATURE["EPYC-v4"] })
    expect(hexOf(measureSnp(plan))).toBe(
      "11570979c77a0adb515761a702527c8b9e11554e730552621d950988613a3a75c6ff1703f540bd22a9beede8fe7a97e3"
    )
  })
})
