import { createHash } from "node:crypto"
import { PAGE_TYPE } from "@vmpl-lab/psp"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { IgvmBuilder, sealIgvm } from "../../../test/support/igvmBuilder.ts"
import { checkForKvm, FirmwareError, igvmPlan, measureSnp, parseIgvm } from "../src/vmm/index.ts"

const PAGE = 4096
const filled = (value: number, size = PAGE): Uint8Array => new Uint8Array(size).fill(value)
const vmsa = (): Uint8Array => {
  const bytes = filled(0)
  bytes[0x158] = 0x31
  return bytes
}
/** Zeros but for the mask of platforms, which is the file's only one. */
const bodyWithMask = (size: number, at: number): Uint8Array => {
  const body = filled(0, size)
  body[at] = 1
  return body
}
const planOf = (file: Uint8Array) => igvmPlan(parseIgvm(file, "guest.igvm"))
const plain = () => new IgvmBuilder().platform().policy(0x3_0000n).page(0x1000, filled(1))
const refusal = (file: Uint8Array): string => {
  try {
    planOf(file)
  } catch (error) {
    expect(error).toBeInstanceOf(FirmwareError)
    return (error as Error).message
  }
  return "taken"
}

/** One step of the launch digest, from the written layout alone. */
const step = (digest: Uint8Array, type: number, gpa: number, contents: Uint8Array | null): Uint8Array => {
  const info = Buffer.alloc(0x70)
  info.set(digest)
  if (contents !== null) info.set(createHash("sha384").update(contents).digest(), 0x30)
  info.writeUInt16LE(0x70, 0x60)
  info[0x62] = type
  info.writeBigUInt64LE(BigInt(gpa), 0x68)
  return createHash("sha384").update(info).digest()
}

describe("an IGVM file", () => {
  it("is launched in the order of its directives", () => {
    const file = plain()
      .page(0x2000, null)
      .page(0x3000, filled(3), { flags: 2 })
      .page(0x4000, null, { type: 1 })
      .page(0x5000, filled(5), { type: 2 })
      .page(0x6000, filled(6), { type: 3 })
      .page(0x7000, filled(7), { flags: 4 })
      .area(4, 2 * PAGE)
      .insert(0x8000, 4)
      .page(0x20_0000, filled(9, 512 * PAGE), { flags: 1 })
      .vmsa(vmsa())
      .build()
    const { pages, policy, idBlock } = planOf(file)
    const large = Array.from({ length: 512 }, (_, i) => [0x20_0000 + i * PAGE, PAGE_TYPE.NORMAL])
    expect(pages.map(({ gpa, type }) => [gpa, type])).toEqual([
      [0x1000, PAGE_TYPE.NORMAL],
      [0x2000, PAGE_TYPE.NORMAL],
      [0x3000, PAGE_TYPE.UNMEASURED],
      [0x4000, PAGE_TYPE.SECRETS],
      [0x5000, PAGE_TYPE.CPUID],
      [0x6000, PAGE_TYPE.CPUID],
      [0x8000, PAGE_TYPE.UNMEASURED],
      [0x9000, PAGE_TYPE.UNMEASURED],
      ...large,
      [0xffff_ffff_f000, PAGE_TYPE.VMSA]
    ])
    expect(policy).toBe(0x3_0000n)
    expect(idBlock).toBeNull()
    let digest: Uint8Array = filled(0, 48)
    for (const { gpa, type, contents } of pages) {
      const measured = type === PAGE_TYPE.NORMAL || type === PAGE_TYPE.VMSA ? contents : null
      digest = step(digest, type, gpa, measured)
    }
    expect(Buffer.from(measureSnp(pages)).toString("hex")).toBe(Buffer.from(digest).toString("hex"))
  })

  it("is read in version 2 too, and for SNP alone", () => {
    const builder = plain().page(0x2000, filled(2), { mask: 2 }).header(0x8000_0399, filled(1, 5))
    builder.version = 2
    expect(planOf(builder.build()).pages.map(({ gpa }) => gpa)).toEqual([0x1000])
    const other = new IgvmBuilder()
      .platform(2, 3)
      .platform(4)
      .page(1 << 12, filled(1), { mask: 6 })
    expect(planOf(other.build()).pages).toHaveLength(1)
  })

  it("gives an ID block in AMD's form", () => {
    const key = filled(0x77, 144)
    const file = plain()
      .idBlock(filled(9, 48), { 56: filled(1, 16), 92: Uint8Array.of(7), 248: Uint8Array.of(2), 256: key })
      .build()
    const { block, auth, authKeyEn } = planOf(file).idBlock!
    expect([...block.subarray(0, 0x40)]).toEqual([...filled(9, 48), ...filled(1, 16)])
    expect([block[0x50], block[0x54], block[0x5a]]).toEqual([1, 7, 3])
    expect([auth[0], auth[4], auth[0x240]]).toEqual([1, 0, 2])
    expect([...auth.subarray(0x244, 0x244 + 145)]).toEqual([...key, 0])
    expect(authKeyEn).toBe(false)
  })
})

describe("what SNP or the format does not allow", () => {
  const raw = (change: (file: Buffer) => void, builder = plain()): Buffer => {
    const file = builder.build()
    change(file)
    return sealIgvm(file)
  }
  const body = (size: number): Uint8Array => Uint8Array.of(1, ...filled(0, size - 1))
  it.each<readonly [string, () => Uint8Array, RegExp]>([
    ["nothing", () => filled(0, 0), /size is 0, expected an IGVM file/],
    ["a short file", () => plain().build().subarray(0, 23), /size is 23/],
    ["a cut file", () => plain().build().subarray(0, 4000), /bytes 0x10 to 0x13: file size is \d+, expected 4000/],
    ["a longer file", () => Buffer.concat([plain().build(), filled(0)]), /bytes 0x10 to 0x13: file size/],
    ["another magic", () => raw((file) => file.write("IGVN")), /bytes 0x0 to 0x3: magic is/],
    ["version 3", () => raw((file) => file.writeUInt32LE(3, 4)), /bytes 0x4 to 0x7: format version is 3/],
    ["headers off 8", () => raw((file) => file.writeUInt32LE(28, 8)), /bytes 0x8 to 0xb: variable headers at 0x1c/],
    ["no headers", () => raw((file) => file.writeUInt32LE(0, 12)), /bytes 0xc to 0xf: variable headers have 0 bytes/],
    ["a wrong checksum", () => plain().build().fill(1, 20, 21), /bytes 0x14 to 0x17: checksum is .*, expected/],
    ["an unknown header", () => plain().header(0x399, body(8)).build(), /header type 0x399 is unknown/],
    ["a header of another size", () => plain().header(0x302, body(16)).build(), /PAGE_DATA has 16 bytes, expected 24/],
    [
      "a header beyond the end",
      () => raw((file) => file.writeUInt32LE(0x7000, 28)),
      /length is 0x7000, expected at most/
    ],
    ["the policy after a page", () => plain().policy(1n).build(), /GUEST_POLICY comes too late/],
    ["no SNP", () => new IgvmBuilder().platform(1, 3).page(0, filled(1)).build(), /0 platforms are SEV-SNP/],
    ["SNP twice", () => new IgvmBuilder().platform(1).platform(2).build(), /2 platforms are SEV-SNP/],
    ["two bits", () => new IgvmBuilder().platform(3).build(), /mask of SEV-SNP is 0x3, expected one bit/],
    ["platform version 2", () => new IgvmBuilder().platform(1, 2, 2).build(), /platform version is 2, expected 1/],
    [
      "a relocation",
      () => new IgvmBuilder().platform().header(0x102, body(48)).build(),
      /header 1, RELOCATABLE_REGION, bytes 0x30 to 0x33: is for SEV-SNP too/
    ],
    [
      "page tables to move",
      () => new IgvmBuilder().platform().header(0x103, body(32)).build(),
      /PAGE_TABLE_RELOCATION_REGION/
    ],
    [
      "a policy of CCA",
      () => new IgvmBuilder().platform().header(0x106, body(32)).build(),
      /CCA_POLICY, .*: is for SEV-SNP too/
    ],
    ["a measurement of VBS", () => plain().header(0x311, body(864)).build(), /VBS_MEASUREMENT, .*: is for SEV-SNP too/],
    ["flags beyond", () => plain().page(0, null, { flags: 8 }).build(), /flags are 0x8/],
    ["a data type beyond", () => plain().page(0, null, { type: 4 }).build(), /data type is 4, expected 0 to 3/],
    [
      "2 MiB of CPUID",
      () => plain().page(0, null, { type: 2, flags: 1 }).build(),
      /2 MiB of data type 2, expected 4 KiB/
    ],
    ["shared secrets", () => plain().page(0, null, { type: 1, flags: 4 }).build(), /shared page of data type 1/],
    ["secrets with contents", () => plain().page(0, filled(1), { type: 1 }).build(), /secrets page with contents/],
    [
      "a misaligned page",
      () => plain().page(0x10, null).build(),
      /header 3, PAGE_DATA, bytes 0x70 to 0x77: gPA is 0x10, expected a multiple of 4096/
    ],
    [
      "a misaligned large page",
      () => plain().page(0x1000, null, { flags: 1 }).build(),
      /expected a multiple of 2097152/
    ],
    [
      "a page above 52 bits",
      () =>
        plain()
          .page(2 ** 52, null)
          .build(),
      /below 2\^52/
    ],
    [
      "contents beyond the end",
      () => plain().page(0x2000, filled(1, 8)).build(),
      /contents are bytes .*, expected them within/
    ],
    ["an area that is not there", () => plain().insert(0x2000, 1).build(), /parameter area 1 is not there/],
    ["an area twice", () => plain().area(1, PAGE).area(1, PAGE).build(), /parameter area 1 is there twice/],
    ["an empty area", () => plain().area(1, 0).build(), /parameter area of 0 bytes/],
    ["an area of no whole pages", () => plain().area(1, 8).build(), /PARAMETER_AREA, .*: parameter area of 8 bytes/],
    [
      "an area inserted twice",
      () => plain().area(1, PAGE).insert(0x2000, 1).insert(0x3000, 1).build(),
      /header 5, PARAMETER_INSERT, .*: parameter area 1 has been inserted/
    ],
    [
      "a parameter after its area's insertion",
      () => plain().area(1, PAGE).insert(0x2000, 1).parameter(0x307, 1, 0).build(),
      /VP_COUNT, .*: parameter area 1 has been inserted/
    ],
    ["a parameter without an area", () => plain().parameter(0x30c, 3, 0).build(), /parameter area 3 is not there/],
    [
      "a parameter beyond its area",
      () => plain().area(1, PAGE).parameter(0x309, 1, PAGE).build(),
      /MADT, .*: 1 bytes at offset 4096 of the parameter area, expected them within 4096/
    ],
    ["a page twice", () => plain().page(0x1000, null).build(), /header 3, .*: gPA 0x1000 has been given a page before/],
    [
      "a page that is shared too",
      () => plain().page(0x1000, null, { flags: 4 }).build(),
      /gPA 0x1000 has been given a page before/
    ],
    [
      "an inserted page that is there",
      () => plain().area(1, PAGE).insert(0x1000, 1).build(),
      /PARAMETER_INSERT, .*: gPA 0x1000 has been given a page before/
    ],
    ["two policies", () => new IgvmBuilder().platform().policy(1n).policy(1n).build(), /a second GUEST_POLICY/],
    [
      "more pages than 1 GiB",
      () => {
        const builder = new IgvmBuilder().platform()
        for (let i = 0; i <= 512; i++) builder.page(i * 512 * PAGE, null, { flags: 1 })
        return builder.build()
      },
      /more than 262144 pages, expected at most 1 GiB/
    ],
    ["a VP context out of turn", () => plain().vmsa(vmsa(), { index: 1 }).build(), /VP index is 1, expected 0/],
    ["a VP context without contents", () => plain().vmsa(null).build(), /VP_CONTEXT, .*: no contents, expected a VMSA/],
    [
      "required memory of no pages",
      () => plain().required(0x1000, 0).build(),
      /REQUIRED_MEMORY, .*: 0 bytes, expected/
    ],
    ["required memory of half a page", () => plain().required(0x1000, 2048).build(), /2048 bytes, expected a multiple/],
    ["required memory off a page", () => plain().required(0x1800, PAGE).build(), /gPA is 0x1800, expected a multiple/],
    ["required memory with flags", () => plain().required(0, PAGE, 2).build(), /flags are 0x2, expected bit 0 at most/],
    ["an error range off a page", () => plain().errors(0x10, PAGE).build(), /ERROR_RANGE, .*: gPA is 0x10/],
    [
      "an error range of half a page",
      () => plain().errors(0x2000, 100).build(),
      /ERROR_RANGE, .*: 100 bytes, expected/
    ],
    ["an error range on a page", () => plain().errors(0x1000, PAGE).build(), /ERROR_RANGE, .*: gPA 0x1000 has been/],
    [
      "an author's key that is half enabled",
      () =>
        plain()
          .idBlock(filled(1, 48), { 4: Uint8Array.of(2) })
          .build(),
      /SNP_ID_BLOCK, .*: author key enabled is 2, expected 0 or 1/
    ],
    [
      "an author's key that is not enabled",
      () =>
        plain()
          .idBlock(filled(1, 48), { 552: Uint8Array.of(2) })
          .build(),
      /SNP_ID_BLOCK, .*: an author's key that is not enabled/
    ],
    [
      "a reserved word in a key",
      () =>
        plain()
          .idBlock(filled(1, 48), { 252: Uint8Array.of(2) })
          .build(),
      /SNP_ID_BLOCK, .*: reserved bytes are not zero/
    ],
    ["two ID blocks", () => plain().idBlock(filled(1, 48)).idBlock(filled(1, 48)).build(), /second SNP_ID_BLOCK/],
    ["nothing to launch", () => new IgvmBuilder().platform().build(), /nothing to launch/]
  ])("%s", (_, file, message) => {
    const line = refusal(file())
    expect(line).toMatch(message)
    expect(line).toMatch(/^guest\.igvm: [^\n]*$/)
  })

  it.each<readonly [string, number, Uint8Array, ReadonlyArray<readonly [start: number, end: number]>]>([
    ["GUEST_POLICY", 0x101, Uint8Array.of(0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0), [[12, 16]]],
    ["PAGE_DATA", 0x302, bodyWithMask(24, 8), [[22, 24]]],
    ["VP_CONTEXT", 0x304, bodyWithMask(20, 8), [[18, 20]]],
    ["REQUIRED_MEMORY", 0x305, bodyWithMask(24, 8), [[20, 24]]],
    [
      "SNP_ID_BLOCK",
      0x30b,
      bodyWithMask(0x2b8, 0),
      [
        [5, 8],
        [0xfc, 0x100],
        [0x224, 0x228]
      ]
    ]
  ])("reserved bytes of %s are refused one by one, by name and range", (name, type, body, ranges) => {
    for (const [start, end] of ranges) {
      for (let at = start; at < end; at++) {
        const wrong = Uint8Array.from(body)
        wrong[at] = 0x80
        const line = refusal(new IgvmBuilder().platform().header(type, wrong).build())
        // Fixed header, SUPPORTED_PLATFORM, and this header's type and length.
        const [first, last] = [56 + start, 56 + end - 1].map((byte) => `0x${byte.toString(16)}`)
        const where = `guest.igvm: header 1, ${name}, bytes ${first} to ${last}`
        expect(line).toBe(`${where}: reserved bytes are not zero, expected zeros`)
      }
    }
  })

  it("KVM's rules: one VMSA, last, at its address, CR0 as it starts it", () => {
    const why = (builder: IgvmBuilder): string => {
      try {
        checkForKvm("guest.igvm", planOf(builder.build()))
        return "taken"
      } catch (error) {
        return (error as Error).message
      }
    }
    expect(why(plain().vmsa(vmsa()))).toBe("taken")
    expect(why(plain())).toMatch(/0 VMSAs, expected one/)
    expect(why(plain().vmsa(vmsa()).vmsa(vmsa(), { index: 1 }))).toMatch(/2 VMSAs, expected one/)
    expect(why(plain().vmsa(vmsa(), { gpa: 0x5000 }))).toMatch(/VMSA at gPA 0x5000/)
    expect(why(plain().vmsa(vmsa()).page(0x2000, null))).toMatch(/pages follow the VMSA/)
    expect(why(plain().vmsa(filled(0)))).toMatch(/CR0 of the VMSA is 0x0/)
  })

  it("never ends in anything but a plan or one line, whatever the bytes", () => {
    const good = plain().area(1, PAGE).insert(0x9000, 1).idBlock(filled(1, 48)).vmsa(vmsa()).build()
    const edits = fc.array(fc.tuple(fc.nat(1200), fc.nat(255)), { minLength: 1, maxLength: 6 })
    fc.assert(
      fc.property(edits, fc.boolean(), fc.nat(good.length), (changes, sealed, cut) => {
        const file = Buffer.from(good.subarray(0, cut % 7 === 0 ? cut : good.length))
        for (const [at, byte] of changes) if (at < file.length) file[at] = byte
        if (sealed && file.length > 24) sealIgvm(file)
        expect(refusal(file)).not.toContain("\n")
      }),
      { numRuns: 400, seed: 7 }
    )
  })
})
