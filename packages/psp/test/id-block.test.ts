import { createHash } from "node:crypto"
import { describe, expect, it } from "vitest"
import { firmwareKdf } from "../src/FirmwareKdf.ts"
import {
  ID_AUTH_SIZE,
  ID_BLOCK_CHECKS,
  publicKeyBytes,
  publicKeyOf,
  type Status,
  signatureBytes,
  signP384
} from "../src/index.ts"
import { bytesOf, GCTX, HOST_DATA, makeMachine, POLICY_OK } from "./guest-message-support.ts"

const ID_SCALAR = 0x1234_5678_9abcn
const AUTHOR_SCALAR = 0xfeed_beefn
const FAMILY = new Uint8Array(16).fill(0xf1)
const IMAGE = new Uint8Array(16).fill(0x13)
const SVN = 7
const sha384 = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash("sha384").update(bytes).digest())
const idKey = publicKeyBytes(publicKeyOf(ID_SCALAR))
const authorKey = publicKeyBytes(publicKeyOf(AUTHOR_SCALAR))

/** A launched guest with the block that belongs to it; what the facts say of offsets, by hand. */
const scene = () => {
  const machine = makeMachine({ isFinished: false })
  const block = bytesOf(0x60, {
    0: machine.guest.digest.value,
    48: FAMILY,
    64: IMAGE,
    80: 1,
    84: SVN,
    88: POLICY_OK
  })
  const auth = bytesOf(4096, {
    0: 1,
    4: 1,
    64: signatureBytes(signP384(ID_SCALAR, block)),
    576: idKey,
    1664: signatureBytes(signP384(AUTHOR_SCALAR, idKey)),
    2176: authorKey
  })
  const finish = (authKeyEn = true) =>
    machine.firmware.launchFinish({ gctx: GCTX, idBlock: { block, auth }, authKeyEn, hostData: HOST_DATA })
  return { ...machine, block, auth, finish }
}

const flip = (bytes: Uint8Array, at: number): void => bytes.set([bytes[at]! ^ 1], at)

type Scene = ReturnType<typeof scene>
const sign = ({ block, auth }: Scene): void => auth.set(signatureBytes(signP384(ID_SCALAR, block)), 0x40)

describe("LAUNCH_FINISH with an ID block", () => {
  it("takes the guest's own block, and reports say what it binds", () => {
    const machine = scene()
    expect(machine.finish()).toBe("SUCCESS")
    const report = Buffer.from(machine.ask(5, bytesOf(0x60, { 64: 1 })).payload.subarray(0x20))
    expect(report.readUInt32LE(4)).toBe(SVN)
    expect([...report.subarray(0x10, 0x30)]).toEqual([...FAMILY, ...IMAGE])
    expect([...report.subarray(0xe0, 0x110)]).toEqual([...sha384(idKey)])
    expect([...report.subarray(0x110, 0x140)]).toEqual([...sha384(authorKey)])
    expect(report.readUInt32LE(0x48)).toBe(1)
  })

  it("without the author's key looks at none of the author's fields", () => {
    const machine = scene()
    machine.auth.fill(0xff, 0x680, 0xc84)
    machine.auth[4] = 9
    expect(machine.finish(false)).toBe("SUCCESS")
    const report = Buffer.from(machine.ask(5, bytesOf(0x60, {})).payload.subarray(0x20))
    expect(report.subarray(0x110, 0x140).every((byte) => byte === 0)).toBe(true)
    expect(report.readUInt32LE(0x48)).toBe(0)
  })

  it("keeps the author's flag without an ID block, and does not test the block's version", () => {
    const machine = makeMachine({ finish: { authKeyEn: true } })
    expect(Buffer.from(machine.ask(5, bytesOf(0x60, {})).payload).readUInt32LE(0x20 + 0x48)).toBe(1)
    const versioned = scene()
    versioned.block[0x50] = 9
    sign(versioned)
    expect(versioned.finish()).toBe("SUCCESS")
  })

  /** Each spoils what its check looks at, and nothing that an earlier one does. */
  const spoilers: ReadonlyArray<readonly [check: number, status: Status, spoil: (machine: Scene) => void]> = [
    [0, "BAD_MEASUREMENT", ({ block }) => flip(block, 47)],
    [1, "POLICY_FAILURE", ({ block }) => flip(block, 0x5f)],
    [2, "INVALID_PARAM", ({ auth }) => auth.set([2], 0)],
    [3, "INVALID_PARAM", ({ auth }) => auth.set([0], 4)],
    [4, "BAD_SIGNATURE", ({ auth }) => flip(auth, 0x40)],
    [5, "BAD_SIGNATURE", ({ auth }) => flip(auth, 0x680)]
  ]

  it.each(spoilers)("check %i refuses with %s, and the guest stays in LAUNCH", (check, status, spoil) => {
    const machine = scene()
    spoil(machine)
    expect(machine.finish()).toBe(status)
    expect(machine.guest.state).toBe("LAUNCH")
    expect(machine.guest.idBinding).toBeNull()
    expect(ID_BLOCK_CHECKS).toHaveLength(spoilers.length)
    expect(ID_BLOCK_CHECKS[check]).toBeDefined()
  })

  it("makes its checks in that order", () => {
    for (const [first, status, spoil] of spoilers) {
      for (const [second, , spoilLater] of spoilers) {
        if (second <= first) continue
        const machine = scene()
        spoil(machine)
        spoilLater(machine)
        expect(machine.finish(), `${first} before ${second}`).toBe(status)
      }
    }
  })

  it.each<readonly [name: string, spoil: (machine: Scene) => void]>([
    ["another curve", ({ auth }) => auth.set([1], 0x240)],
    ["a point off the curve", ({ auth }) => flip(auth, 0x244)],
    ["a coordinate above 384 bits", ({ auth }) => auth.set([1], 0x244 + 48)],
    ["an r above 384 bits", ({ auth }) => auth.set([1], 0x40 + 71)],
    ["an s above 384 bits", ({ auth }) => auth.set([1], 0x40 + 72 + 48)],
    ["a signature of another block", ({ block }) => flip(block, 0x30)]
  ])("refuses %s with BAD_SIGNATURE", (_, spoil) => {
    const machine = scene()
    spoil(machine)
    expect(machine.finish()).toBe("BAD_SIGNATURE")
  })

  it("makes them after those of the guest's state and its ASID", () => {
    const machine = scene()
    machine.auth[0] = 2
    expect(machine.finish()).toBe("INVALID_PARAM")
    expect(machine.firmware.launchFinish({ gctx: GCTX })).toBe("SUCCESS")
    expect(machine.finish()).toBe("INVALID_GUEST_STATE")
    expect(machine.auth).toHaveLength(ID_AUTH_SIZE)
  })
})

describe("derived keys of a guest with an ID block", () => {
  const request = (fields: number, svn = 0) => bytesOf(0x20, { 0: 1, 8: BigInt(fields), 20: svn })
  const keyOf = (machine: Scene, fields: number, svn = 0) => machine.ask(3, request(fields, svn)).payload

  it.each([true, false])("mix in the digest of the author's key: %s", (authKeyEn) => {
    const machine = scene()
    expect(machine.finish(authKeyEn)).toBe("SUCCESS")
    const digest = sha384(authKeyEn ? authorKey : idKey)
    const mix = bytesOf(0xa8, {
      0: 1 | ((authKeyEn ? 2 : 1) << 1),
      8: 0b010110n,
      20: SVN,
      40: IMAGE,
      56: FAMILY,
      104: HOST_DATA,
      136: digest.subarray(0, 32)
    })
    const expected = firmwareKdf(machine.guest.vmrk, "gmsg-keyreq", mix, 32)
    expect([...keyOf(machine, 0b010110, SVN).subarray(0x20)]).toEqual([...expected])
  })

  it("may be asked for up to the block's SVN", () => {
    const machine = scene()
    machine.finish()
    const statusOf = (svn: number) => Buffer.from(keyOf(machine, 1 << 4, svn)).readUInt32LE(0)
    expect([SVN - 1, SVN, SVN + 1].map(statusOf)).toEqual([0, 0, 0x16])
  })
})
