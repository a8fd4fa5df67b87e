import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { LAUNCH_DIGEST_SIZE, LaunchDigest, PAGE_TYPE } from "../src/index.ts"

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** LD after a single step from zero, recomputed by an independent program from the written layout. */
const ONE_STEP: ReadonlyArray<readonly [keyof typeof PAGE_TYPE, number, Uint8Array | null, string]> = [
  [
    "ZERO",
    0x0,
    null,
    "70c0ecaab9608f14ebf8ac6f0f07bcd8728f4e2ab30382b539b4de4de904ca9f8ebdf4b2cd3cd84dd996bd55dd794676"
  ],
  [
    "UNMEASURED",
    0x1000,
    null,
    "81475a112c0223cebe1ccb31a0aa2567772871200b33515a3cbbd5ed6a68a8e630902dd83469ea6553554bfb67111fad"
  ],
  [
    "SECRETS",
    0x80_d000,
    null,
    "e82e99caf82a32c31ec5070eef9e2135866d8f7de60d756814f3bd8c989c1e826622e0a97dad026c6d9d81818780e6a2"
  ],
  [
    "CPUID",
    0x80_e000,
    null,
    "c9e46442d2b4ddb823fa6b4a907930de7e93901180c5a3126ba234193059a0a51a21ba82f05d2fe0f3136f22b1b1a8e4"
  ],
  [
    "NORMAL",
    0x1000,
    new Uint8Array(PAGE_SIZE),
    "e6e4d78904d9d6b33c0cbfd121998fd2d11744dae606b3aee35e2a45d6869b60b35c63928a9232bef72d6be386f48ec6"
  ]
]

const ldOf = (step: (digest: LaunchDigest) => void): string => {
  const digest = new LaunchDigest()
  step(digest)
  return hexOf(digest.value)
}

describe("LaunchDigest", () => {
  it("starts as 48 zero bytes", () => {
    expect(new LaunchDigest().value).toEqual(new Uint8Array(LAUNCH_DIGEST_SIZE))
  })

  it.each(ONE_STEP)("one %s page at %i", (type, gpa, contents, expected) => {
    expect(ldOf((digest) => digest.update(PAGE_TYPE[type], gpa, contents))).toBe(expected)
  })

  it("hands out copies", () => {
    const digest = new LaunchDigest()
    digest.value.fill(0xff)
    expect(digest.value).toEqual(new Uint8Array(LAUNCH_DIGEST_SIZE))
  })

  it("does not measure the contents of types whose contents the firmware or nobody vouches for", () => {
    const page = new Uint8Array(PAGE_SIZE).fill(0x5a)
    for (const type of [PAGE_TYPE.ZERO, PAGE_TYPE.UNMEASURED, PAGE_TYPE.SECRETS, PAGE_TYPE.CPUID]) {
      expect(ldOf((digest) => digest.update(type, 0x1000, page))).toBe(
        ldOf((digest) => digest.update(type, 0x1000, null))
      )
    }
  })

  it("depends on the order of pages, their addresses and types", () => {
    const pages = [0x1000, 0x2000]
    const forwards = ldOf((digest) => {
      for (const gpa of pages) digest.update(PAGE_TYPE.ZERO, gpa, null)
    })
    const backwards = ldOf((digest) => {
      for (const gpa of pages.toReversed()) digest.update(PAGE_TYPE.ZERO, gpa, null)
    })
    expect(forwards).not.toBe(backwards)
    expect(ldOf((digest) => digest.update(PAGE_TYPE.ZERO, 0x1000, null))).not.toBe(
      ldOf((digest) => digest.update(PAGE_TYPE.UNMEASURED, 0x1000, null))
    )
  })

  it("measures VMPL permissions, each level in a byte of its own", () => {
    const of = (perms: readonly [number, number, number]): string =>
      ldOf((digest) => digest.update(PAGE_TYPE.ZERO, 0, null, perms))
    const all = [of([0, 0, 0]), of([1, 0, 0]), of([0, 1, 0]), of([0, 0, 1])]
    expect(new Set(all).size).toBe(all.length)
  })

  it("measures a VMSA without TSC scale and offset, and leaves the page as it is", () => {
    const plain = new Uint8Array(PAGE_SIZE).fill(3)
    const scaled = plain.slice().fill(9, VMSA.guest_tsc_scale, VMSA.guest_tsc_offset + 8)
    const before = scaled.slice()
    const of = (page: Uint8Array): string => ldOf((digest) => digest.update(PAGE_TYPE.VMSA, 0, page))
    expect(of(scaled)).toBe(of(plain))
    expect(scaled).toEqual(before)
    const neighbours = [VMSA.guest_tsc_scale - 1, VMSA.guest_tsc_offset + 8]
    for (const offset of neighbours) expect(of(plain.slice().fill(9, offset, offset + 1))).not.toBe(of(plain))
  })

  it("refuses to measure a page that it was not given", () => {
    expect(() => new LaunchDigest().update(PAGE_TYPE.NORMAL, 0, null)).toThrow("needs 4096 bytes")
    expect(() => new LaunchDigest().update(PAGE_TYPE.VMSA, 0, new Uint8Array(16))).toThrow("needs 4096 bytes")
  })
})
