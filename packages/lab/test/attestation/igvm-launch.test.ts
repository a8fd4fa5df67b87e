import { createHash } from "node:crypto"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { cpuidPage, FirmwareError, igvmPlan, measureSnp, parseIgvm, syntheticFirmware } from "@vmpl-lab/hypervisor"
import { PAGE_TYPE, policedCpuid, publicKeyBytes, publicKeyOf, XSAVE_CPUID } from "@vmpl-lab/psp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { IgvmBuilder, sealIgvm } from "../../../../test/support/igvmBuilder.ts"
import { parseReport } from "../../src/attestation/Report.ts"
import { builtInFirmware } from "../../src/Compare.ts"
import { DEFAULT_SCENARIO } from "../../src/DefaultScenario.ts"
import { igvmImage } from "../../src/IgvmImage.ts"
import { igvmLaunch } from "../../src/IgvmLaunch.ts"
import { Machine } from "../../src/Machine.ts"
import { type LaunchNeeds, type SvsmLaunch, svsmLaunch } from "../../src/SvsmLaunch.ts"
import { attestWith, profile } from "./fixture.ts"

const PAGE = 4096
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const ID_KEY = 0x1234_5678n
const AUTHOR_KEY = 0x8765_4321n
const owner = {
  familyId: new Uint8Array(16).fill(0xfa),
  imageId: new Uint8Array(16).fill(0x1a),
  svn: 9,
  idKey: ID_KEY,
  authorKey: AUTHOR_KEY
}
const imageOf = (vcpus: number, needs: Partial<LaunchNeeds> = {}, withOwner = false) =>
  igvmImage("out.igvm", svsmLaunch(builtInFirmware(), vcpus, needs), 0x3_0000n, withOwner ? owner : undefined)
const fileOf = (bytes: Uint8Array) => parseIgvm(bytes, "guest.igvm")

/** Boots what is launched, with as many calls, to its end. */
const boot = (svsm: SvsmLaunch, vcpus: number, strategy = STRATEGIES[0]!) => {
  const scenario = { ...DEFAULT_SCENARIO, vcpus, calls: 20, boots: 1 }
  const machine = new Machine({ strategy, scenario, profile, seed: 1, calls: true, svsm })
  while (machine.stepMany(50_000));
  return machine
}

describe("a guest that is launched from an IGVM file", () => {
  it.each(STRATEGIES.map((strategy) => [`${strategy.key}/${strategy.variant}`, strategy] as const))(
    "boots its SVSM and makes its calls under %s, with the digest that is measured",
    (_, strategy) => {
      const { bytes, digest } = imageOf(4)
      const machine = boot(igvmLaunch(fileOf(bytes), 4), 4, strategy)
      expect(machine.failure()).toBeNull()
      expect(machine.log.callsMade).toBe(80)
      expect(machine.launchDigest).toBe(hex(digest))
      expect(machine.launchDigest).toBe(hex(measureSnp(igvmPlan(fileOf(bytes)).pages)))
    }
  )

  it("has as many vCPUs as the VMM says in the parameter area, up to the room there is", () => {
    const file = fileOf(imageOf(4).bytes)
    for (const vcpus of [1, 3]) {
      const svsm = igvmLaunch(file, vcpus)
      expect(svsm.parameters.vcpus).toBe(vcpus)
      expect(boot(svsm, vcpus).failure()).toBeNull()
    }
    expect(() => igvmLaunch(file, 600)).toThrow(/guest\.igvm: (RAM ends at|no parameters of 600 vCPUs)/)
  })

  it("boots from anybody's file with that SVSM: version 2, pages in another order, and shared pages", () => {
    const { plan, memorySlots } = svsmLaunch(builtInFirmware(), 1)
    const builder = new IgvmBuilder().platform(4, 3).platform(2).policy(0x3_0000n, 2)
    builder.version = 2
    for (const { gfn, pages } of memorySlots) builder.required(gfn * PAGE, pages * PAGE, 0, 2)
    builder.page(0x10_0000, new Uint8Array(PAGE).fill(0x77), { flags: 4, mask: 2 }).errors(0x10_1000, PAGE, 2)
    builder.page(0x10_2000, new Uint8Array(PAGE).fill(1), { mask: 4 })
    const vmsa = Uint8Array.from(plan.at(-1)!.contents!)
    vmsa[0x158] = 0x31
    const dataType: { readonly [type: number]: number } = { [PAGE_TYPE.SECRETS]: 1, [PAGE_TYPE.CPUID]: 3 }
    for (const { gpa, type, contents } of [...plan.slice(0, -1)].reverse()) {
      const flags = type === PAGE_TYPE.UNMEASURED ? 2 : 0
      builder.page(gpa, contents, { type: dataType[type] ?? 0, flags, mask: 2 })
    }
    const file = fileOf(builder.vmsa(vmsa, { mask: 6 }).build())
    const svsm = igvmLaunch(file, 1)
    const machine = boot(svsm, 1)
    expect(machine.failure()).toBeNull()
    expect(machine.launchDigest).toBe(hex(measureSnp(igvmPlan(file).pages)))
    for (const gfn of [0x100, 0x101]) expect(machine.vmm.owner.isShared(gfn)).toBe(true)
    expect(machine.vmm.owner.isShared(0x102)).toBe(false)
    const page = machine.kvm.hardware.host.readPage(machine.vmm.memory.sharedFrame(0x100))
    expect(page.every((byte) => byte === 0x77)).toBe(true)
  })

  it("uses the file's policy and ID block at LAUNCH_START and LAUNCH_FINISH, and reports say so", () => {
    const { bytes, digest } = imageOf(1, {}, true)
    const outcome = attestWith({ igvm: fileOf(bytes), vmpl: 2 })
    expect(outcome.measurement).toEqual(digest)
    const report = parseReport(outcome.report, "report")
    const sha384 = (key: bigint): string =>
      createHash("sha384")
        .update(publicKeyBytes(publicKeyOf(key)))
        .digest("hex")
    expect({
      measurement: hex(report.measurement),
      policy: report.policy,
      svn: report.guestSvn,
      family: hex(report.familyId),
      image: hex(report.imageId),
      id: hex(report.idKeyDigest),
      author: hex(report.authorKeyDigest),
      authorKeyEn: report.authorKeyEn
    }).toEqual({
      measurement: hex(digest),
      policy: 0x3_0000n,
      svn: 9,
      family: hex(owner.familyId),
      image: hex(owner.imageId),
      id: sha384(ID_KEY),
      author: sha384(AUTHOR_KEY),
      authorKeyEn: true
    })
  })

  it("does not start where the ID block is another guest's, or the policy one that the firmware refuses", () => {
    const { bytes } = imageOf(1, {}, true)
    const changed = (change: (file: Buffer) => void) => {
      const file = Buffer.from(bytes)
      change(file)
      return boot(igvmLaunch(fileOf(sealIgvm(file)), 1), 1).failure()
    }
    // The block's header is the last one: LD is at 8 of its body, the key's signature at 0x68.
    const body = 24 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(12, true) - 0x2b8
    expect(changed(() => {})).toBeNull()
    expect(changed((file) => file.writeUInt8(file[body + 8]! ^ 1, body + 8))).toBe("LAUNCH_FINISH: BAD_MEASUREMENT")
    expect(changed((file) => file.writeUInt8(file[body + 0x68]! ^ 1, body + 0x68))).toBe("LAUNCH_FINISH: BAD_SIGNATURE")
    // GUEST_POLICY is the second header; the block is for the policy that the file says.
    const policy = 24 + 24 + 8
    expect(changed((file) => file.writeUInt8(0x0b, policy + 2))).toBe("LAUNCH_FINISH: BAD_SIGNATURE")
    expect(changed((file) => file.writeUInt8(0x01, policy + 2))).toBe("LAUNCH_START: POLICY_FAILURE")
  })
})

it("a CPUID page of the file whose values the firmware does not take is launched with those that it takes", () => {
  const { plan, memorySlots } = svsmLaunch(builtInFirmware(), 1)
  const page = Buffer.from(cpuidPage())
  const rows = Array.from({ length: page.readUInt32LE(0) }, (_, i) => 16 + 48 * i)
  const xsave = rows.find((at) => page.readUInt32LE(at) === 0xd && page.readUInt32LE(at + 4) === 0)!
  const honest = page.readUInt32LE(xsave + 28)
  page.writeUInt32LE(64, xsave + 28)
  const withPage = plan.map((one) => (one.type === PAGE_TYPE.CPUID ? { ...one, contents: page } : one))
  const { bytes } = igvmImage("out.igvm", { ...svsmLaunch(builtInFirmware(), 1), plan: withPage, memorySlots })
  const file = fileOf(bytes)
  const machine = boot(igvmLaunch(file, 1), 1)
  expect(machine.failure()).toBeNull()
  expect(machine.launchDigest).toBe(hex(measureSnp(igvmPlan(file).pages)))
  const gfn = plan.find(({ type }) => type === PAGE_TYPE.CPUID)!.gpa / PAGE
  const pfn = machine.vmm.memory.privateFrame(gfn)
  const { asid } = machine.vmm.owner
  const seen = machine.hardware.memory.read(pfn, asid)
  expect([seen.getUint32(xsave, true), seen.getUint32(xsave + 28, true)]).toEqual([0xd, honest])
  expect(policedCpuid(XSAVE_CPUID, cpuidPage()).areAccepted).toBe(true)
})

describe("a file that does not fit", () => {
  const refused =
    (bytes: Uint8Array, needs: Partial<LaunchNeeds> = {}, vcpus = 1) =>
    () =>
      igvmLaunch(fileOf(bytes), vcpus, needs)
  it.each<readonly [string, () => unknown, RegExp]>([
    ["another level", refused(imageOf(1).bytes, { guestVmpl: 1 }), /made for guest level 2, expected 1 as/],
    [
      "another behaviour",
      refused(imageOf(1).bytes, { behaviour: "coconut" }),
      /behaviour specification, expected coconut/
    ],
    ["calls in parts", refused(imageOf(1).bytes, { entriesPerCall: 8 }), /entries per call 0, expected 8/],
    ["more memory", refused(imageOf(1).bytes, { highRam: 2 ** 21 }), /RAM above 4 GiB 0, expected 2097152/],
    ["too many vCPUs", refused(imageOf(1).bytes, {}, 512), /expected/],
    [
      "another SVSM",
      refused(
        new IgvmBuilder()
          .platform()
          .required(0, PAGE)
          .page(0, null)
          .vmsa(new Uint8Array(PAGE).fill(0x31, 0x158, 0x159))
          .build()
      ),
      /no page has the image of vmpl-lab's own SVSM/
    ]
  ])("%s", (_, make, message) => {
    expect(make).toThrow(message)
    expect(make).toThrow(/^guest\.igvm: [^\n]*$/)
  })

  it("names places that the parameters have, but not the file", () => {
    const { bytes } = imageOf(1)
    const parameters = Buffer.from(bytes).indexOf(Buffer.from("VSVM", "latin1"))
    const changed = (word: number) => {
      const file = Buffer.from(bytes)
      file.writeUInt32LE(0x1000, parameters + 8 + 8 * word)
      return refused(file)
    }
    expect(changed(1)).toThrow(/its parameters have the SVSM at gPA 0x1000, expected 0x/)
    expect(changed(6)).toThrow(/its parameters have the secrets page at gPA 0x1000, expected one there/)
    expect(changed(7)).toThrow(/its parameters have the CPUID page at gPA 0x1000, expected one there/)
  })

  it("names pages outside of the memory that it requires, and an entry that is not the SVSM's", () => {
    const { bytes } = imageOf(1)
    const file = Buffer.from(bytes)
    // The first REQUIRED_MEMORY: all RAM with the SVSM in it; its size is at 12 of its body.
    const required = 24 + 24 + 24 + 8
    expect(file.readUInt32LE(required - 8)).toBe(0x305)
    file.writeUInt32LE(0x100_0000, required + 12)
    expect(refused(sealIgvm(file))).toThrow(/has a page but no REQUIRED_MEMORY/)
    const other = Buffer.from(bytes)
    const vmsa = other.length - PAGE
    other.writeUInt8(other[vmsa + 0x178]! ^ 0x30, vmsa + 0x178)
    expect(refused(other)).toThrow(/the VMSA starts at 0x\w+, expected 0x\w+10/)
  })
})

it("whatever the bytes, a file is one line of refusal, or a guest that comes to an end or stops with a reason", () => {
  const good = Buffer.from(imageOf(1).bytes)
  const parameters = good.indexOf(Buffer.from("VSVM", "latin1"))
  expect(parameters).toBeGreaterThan(0)
  const at = fc.oneof(
    fc.nat(0xe00),
    fc.nat(300).map((offset) => parameters + offset)
  )
  const edits = fc.array(fc.tuple(at, fc.nat(255)), { minLength: 1, maxLength: 4 })
  let booted = 0
  fc.assert(
    fc.property(edits, (changes) => {
      const file = Buffer.from(good)
      for (const [offset, byte] of changes) file[offset] = byte
      try {
        const svsm = igvmLaunch(fileOf(sealIgvm(file)), 1)
        const scenario = { ...DEFAULT_SCENARIO, vcpus: 1, calls: 3, boots: 1 }
        const machine = new Machine({ strategy: STRATEGIES[0]!, scenario, profile, seed: 1, calls: true, svsm })
        for (let i = 0; i < 20 && machine.stepMany(5_000); i++);
        booted++
      } catch (error) {
        expect(error).toBeInstanceOf(FirmwareError)
        expect((error as Error).message).not.toContain("\n")
      }
    }),
    { numRuns: 80, seed: 12 }
  )
  expect(booted).toBeGreaterThan(5)
}, 60_000)

it("an image is the same bytes each time, and no bigger than what is not zero", () => {
  expect(imageOf(2, {}, true).bytes).toEqual(imageOf(2, {}, true).bytes)
  expect(imageOf(2).bytes.length).toBeLessThan(syntheticFirmware().length)
})
