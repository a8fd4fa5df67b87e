import { LaunchDigest, PAGE_TYPE } from "@vmpl-lab/psp"
import { describe, expect, it } from "vitest"
import { IgvmBuilder } from "../../../test/support/igvmBuilder.ts"
import { igvmPlan, measureSnp, parseIgvm, writeIgvm } from "../src/vmm/index.ts"

const PAGE = 4096
const TYPE = { count: 0x307, madt: 0x309, map: 0x30c, commandLine: 0x30e, environment: 0x313 }
const environment = {
  vcpus: 300,
  memory: [
    { gfn: 0, pages: 0x8000 },
    { gfn: 0xffff0, pages: 16 }
  ],
  commandLine: "a=1"
}
const plain = () => new IgvmBuilder().platform().policy(0x3_0000n)
const read = (builder: IgvmBuilder) => parseIgvm(builder.build(), "guest.igvm")

/** One area of two pages, full of 0xee, with one parameter; what the guest then finds there. */
const written = (type: number, offset = 16): Buffer => {
  const file = plain()
    .area(1, 2 * PAGE, new Uint8Array(2 * PAGE).fill(0xee))
    .parameter(type, 1, offset)
  const { pages } = igvmPlan(read(file.insert(0x5000, 1)), { environment })
  expect(pages.map(({ gpa, type }) => [gpa, type])).toEqual([
    [0x5000, PAGE_TYPE.UNMEASURED],
    [0x6000, PAGE_TYPE.UNMEASURED]
  ])
  const area = Buffer.concat(pages.map(({ contents }) => contents!))
  expect(area.subarray(0, offset).every((byte) => byte === 0xee)).toBe(true)
  return area.subarray(offset)
}

describe("what the VMM writes into parameter areas", () => {
  it("VP_COUNT: the number of vCPUs, and nothing behind it", () => {
    const bytes = written(TYPE.count)
    expect([bytes.readUInt32LE(0), bytes[4]]).toEqual([300, 0xee])
  })

  it("MEMORY_MAP: sorted entries of pages, the last one empty", () => {
    const bytes = written(TYPE.map)
    const entries = [0, 24, 48].map((at) => [bytes.readBigUInt64LE(at), bytes.readBigUInt64LE(at + 8)])
    expect(entries).toEqual([
      [0n, 0x8000n],
      [0xffff0n, 16n],
      [0n, 0n]
    ])
    expect([bytes.readUInt16LE(16), bytes.readUInt16LE(18), bytes[72]]).toEqual([0, 0, 0xee])
  })

  it("MADT: a table whose bytes add up to zero, with every vCPU once, by APIC or x2APIC", () => {
    const bytes = written(TYPE.madt)
    const length = bytes.readUInt32LE(4)
    expect(bytes.toString("latin1", 0, 4)).toBe("APIC")
    expect(bytes.subarray(0, length).reduce((sum, byte) => sum + byte, 0) % 256).toBe(0)
    expect(bytes[length]).toBe(0xee)
    const found: Array<number> = []
    for (let at = 44; at < length; at += bytes[at + 1]!) {
      const isX2apic = bytes[at] === 9
      expect(bytes[at + 1]).toBe(isX2apic ? 16 : 8)
      expect(bytes.readUInt32LE(at + (isX2apic ? 8 : 4))).toBe(1)
      found.push(isX2apic ? bytes.readUInt32LE(at + 4) : bytes[at + 3]!)
    }
    expect(found).toEqual(Array.from({ length: 300 }, (_, id) => id))
    expect(bytes[44 + 255 * 8]).toBe(9)
  })

  it("COMMAND_LINE ends with a zero byte, ENVIRONMENT_INFO says that memory is private", () => {
    expect(written(TYPE.commandLine).toString("latin1", 0, 5)).toBe("a=1\u0000\u00ee")
    expect(written(TYPE.environment).readUInt32LE(0)).toBe(0)
  })

  it("what does not fit is refused, and so is what this VMM has nothing for, unless the header is optional", () => {
    const plan = (type: number, offset: number) => () =>
      igvmPlan(read(plain().area(1, PAGE).parameter(type, 1, offset).insert(0x5000, 1)), { environment })
    expect(plan(TYPE.count, PAGE - 4)).not.toThrow()
    expect(plan(TYPE.count, PAGE - 3)).toThrow(/header 3, VP_COUNT, .*: 4 bytes at offset 4093 of the parameter area/)
    expect(plan(TYPE.map, PAGE - 71)).toThrow(/MEMORY_MAP, .*: 72 bytes at offset 4025/)
    for (const type of [0x308, 0x30a, 0x30f, 0x310, 0x312]) {
      expect(plan(type, 0)).toThrow(/header 3, \w+, bytes 0x60 to 0x63: a parameter that this VMM has nothing for/)
      expect(plan((type | 0x8000_0000) >>> 0, 0)).not.toThrow()
    }
  })

  it("none of it is measured", () => {
    const file = read(plain().area(1, PAGE).parameter(TYPE.count, 1, 0).insert(0x5000, 1))
    expect(measureSnp(igvmPlan(file, { environment }).pages)).toEqual(measureSnp(igvmPlan(file).pages))
  })
})

describe("what tools do in two ways", () => {
  const file = read(
    plain()
      .page(0x1000, null)
      .area(1, 2 * PAGE)
      .insert(0x5000, 1)
  )
  const digestOf = (steps: ReadonlyArray<readonly [type: number, gpa: number]>): Uint8Array => {
    const digest = new LaunchDigest()
    for (const [type, gpa] of steps) digest.update(type, gpa, type === PAGE_TYPE.NORMAL ? new Uint8Array(PAGE) : null)
    return digest.value
  }
  const { NORMAL, ZERO, UNMEASURED } = PAGE_TYPE
  const inserts = [
    [UNMEASURED, 0x5000],
    [UNMEASURED, 0x6000]
  ] as const
  it.each([
    { choices: {}, steps: [[NORMAL, 0x1000], ...inserts] as const },
    { choices: { nativeZero: true }, steps: [[ZERO, 0x1000], ...inserts] as const },
    { choices: { onePageInserts: true }, steps: [[NORMAL, 0x1000], inserts[0]] as const }
  ])("$choices", ({ choices, steps }) => {
    expect(measureSnp(igvmPlan(file, choices).pages)).toEqual(digestOf(steps))
  })
})

it("shared pages and error ranges are the host's to fill, required memory is told", () => {
  const file = plain()
    .required(0, 0x10_0000)
    .page(0x1000, null)
    .page(0x2000, new Uint8Array(PAGE).fill(7), { flags: 4 })
    .errors(0x3000, 2 * PAGE)
    .required(0x20_0000, PAGE, 1, 2)
  const { pages, shared, required } = igvmPlan(read(file))
  expect(pages.map(({ gpa }) => gpa)).toEqual([0x1000])
  expect(shared.map(({ gpa, contents }) => [gpa, contents?.[0] ?? null])).toEqual([
    [0x2000, 7],
    [0x3000, null],
    [0x4000, null]
  ])
  expect(required).toEqual([{ gpa: 0, size: 0x10_0000 }])
})

describe("a file that is written here", () => {
  const filled = (value: number): Uint8Array => new Uint8Array(PAGE).fill(value)
  const pages = [
    { gpa: 0x1000, type: PAGE_TYPE.NORMAL, contents: filled(1) },
    { gpa: 0x2000, type: PAGE_TYPE.NORMAL, contents: filled(0) },
    { gpa: 0x3000, type: PAGE_TYPE.SECRETS, contents: null },
    { gpa: 0x4000, type: PAGE_TYPE.CPUID, contents: null },
    { gpa: 0x5000, type: PAGE_TYPE.UNMEASURED, contents: filled(5) },
    { gpa: 0xffff_ffff_f000, type: PAGE_TYPE.VMSA, contents: filled(6) }
  ]
  const idBlock = {
    block: new Uint8Array(0x60).fill(9).fill(0, 0x58),
    auth: new Uint8Array(PAGE).fill(1, 0x40, 0xd0).fill(2, 0x680, 0x710),
    authKeyEn: true
  }
  const bytes = writeIgvm("out.igvm", {
    policy: 0x3_0000n,
    pages,
    parameters: new Map([[0x5000, [{ name: "VP_COUNT", offset: 8 }]]]),
    required: [{ gpa: 0, size: 2 ** 33 }],
    idBlock
  })
  it("is read back as what it was made of", () => {
    const plan = igvmPlan(parseIgvm(bytes, "out.igvm"))
    expect(plan.pages).toEqual(pages)
    expect(plan.policy).toBe(0x3_0000n)
    expect(plan.required.reduce((sum, { size }) => sum + size, 0)).toBe(2 ** 33)
    expect(Buffer.from(plan.idBlock!.auth)).toEqual(Buffer.from(idBlock.auth))
    expect(plan.idBlock!.block.subarray(0, 0x58)).toEqual(idBlock.block.subarray(0, 0x58))
    expect(new DataView(plan.idBlock!.block.buffer).getBigUint64(0x58, true)).toBe(0x3_0000n)
    expect(plan.idBlock!.authKeyEn).toBe(true)
    const filledIn = igvmPlan(parseIgvm(bytes, "out.igvm"), { environment }).pages[4]!.contents!
    expect([filledIn[7], filledIn[8], filledIn[9], filledIn[12]]).toEqual([5, 44, 1, 5])
  })

  it("has no form for page types beyond", () => {
    const zero = [{ gpa: 0x1000, type: 9, contents: null }]
    const make = () => writeIgvm("out.igvm", { policy: 0n, pages: zero, parameters: new Map(), required: [] })
    expect(make).toThrow("out.igvm: page type 9 at gPA 0x1000, expected one that IGVM has")
  })
})
