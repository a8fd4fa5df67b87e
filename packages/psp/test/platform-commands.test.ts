import { PAGE_4K } from "@vmpl-lab/rmp"
import { describe, expect, it } from "vitest"
import {
  isSignedP384,
  PAGE_TYPE,
  type PlatformIdentity,
  POLICY,
  SnpFirmware,
  STATUS,
  tcbBytes,
  VLEK_STICKS_SIZE,
  wrapVlek
} from "../src/index.ts"
import {
  ASID,
  bytesOf,
  GCTX,
  type MachineOptions,
  makeMachine,
  OTHER_GCTX,
  POLICY_OK
} from "./guest-message-support.ts"

const CURRENT = { bootLoader: 5, tee: 1, snp: 22, microcode: 80 }
const COMMITTED = { bootLoader: 4, tee: 1, snp: 20, microcode: 72 }
const OLD = { bootLoader: 4, tee: 0, snp: 20, microcode: 70 }
const PLATFORM: MachineOptions = {
  firmware: {
    identity: {
      currentTcb: CURRENT,
      committedTcb: COMMITTED,
      current: { major: 1, minor: 55, build: 30 },
      committed: { major: 1, minor: 54, build: 9 },
      reportVersion: 3
    }
  }
}
const TURIN = 0xb00f21
const SIGNATURE = 0x2a0

type Machine = ReturnType<typeof makeMachine>
const reportOf = ({ ask }: Machine, select = 0): Buffer => {
  const { status, payload } = ask(5, bytesOf(0x60, { 68: select }))
  expect(status).toBe(0)
  return Buffer.from(payload.subarray(0x20))
}
const isSigned = (report: Buffer, identity: PlatformIdentity, key: "VCEK" | "VLEK"): boolean =>
  isSignedP384(identity.publicKey(key), report.subarray(0, SIGNATURE), report.subarray(SIGNATURE))
const tcbs = (report: Buffer) => ({
  current: [...report.subarray(0x38, 0x40)],
  reported: [...report.subarray(0x180, 0x188)],
  committed: [...report.subarray(0x1e0, 0x1e8)],
  launch: [...report.subarray(0x1f0, 0x1f8)]
})
const bytes = (tcb: Parameters<typeof tcbBytes>[0]) => [...tcbBytes(tcb)]

describe("SNP_CONFIG and SNP_COMMIT", () => {
  it("reports name what was configured, signed by the key of that TCB, and zeros take it back", () => {
    const machine = makeMachine(PLATFORM)
    const { firmware } = machine
    const before = reportOf(machine)
    expect(tcbs(before)).toEqual({
      current: bytes(CURRENT),
      reported: bytes(COMMITTED),
      committed: bytes(COMMITTED),
      launch: bytes(COMMITTED)
    })
    const key = firmware.identity.publicKey("VCEK")
    expect(firmware.config({ reportedTcb: tcbBytes(OLD) })).toBe("SUCCESS")
    const old = reportOf(machine)
    expect(tcbs(old).reported).toEqual(bytes(OLD))
    expect(isSigned(old, firmware.identity, "VCEK")).toBe(true)
    expect(isSignedP384(key, old.subarray(0, SIGNATURE), old.subarray(SIGNATURE))).toBe(false)
    expect(firmware.config({ reportedTcb: new Uint8Array(8) })).toBe("SUCCESS")
    expect(reportOf(machine)).toEqual(before)
  })

  it("compares every component with the committed TCB, and spare bytes too", () => {
    const { firmware } = makeMachine(PLATFORM)
    for (let at = 0; at < 8; at++) {
      const reportedTcb = tcbBytes(COMMITTED)
      reportedTcb[at]! += 1
      expect([at, firmware.config({ reportedTcb })]).toEqual([at, "INVALID_PARAM"])
    }
    expect(firmware.identity.reportedTcb).toEqual(COMMITTED)
  })

  it("masks take chip id and signature out of reports", () => {
    const machine = makeMachine(PLATFORM)
    const mask = (maskChipId: boolean, maskChipKey: boolean) => {
      const reportedTcb = new Uint8Array(8)
      expect(machine.firmware.config({ reportedTcb, maskChipId, maskChipKey })).toBe("SUCCESS")
      const report = reportOf(machine)
      const isZero = (from: number, to: number) => report.subarray(from, to).every((byte) => byte === 0)
      return { keyInfo: report.readUInt32LE(0x48), hasId: !isZero(0x1a0, 0x1e0), isSigned: !isZero(0x2a0, 0x4a0) }
    }
    expect(mask(false, false)).toEqual({ keyInfo: 0, hasId: true, isSigned: true })
    expect(mask(true, false)).toEqual({ keyInfo: 0, hasId: false, isSigned: true })
    expect(mask(false, true)).toEqual({ keyInfo: (7 << 2) | 2, hasId: true, isSigned: false })
    expect(mask(false, false)).toEqual({ keyInfo: 0, hasId: true, isSigned: true })
  })

  it("commit moves the committed TCB and version to what runs; a guest keeps the TCB that it was created under", () => {
    const machine = makeMachine(PLATFORM)
    expect(machine.firmware.commit()).toBe("SUCCESS")
    const report = reportOf(machine)
    expect(tcbs(report)).toEqual({
      current: bytes(CURRENT),
      reported: bytes(CURRENT),
      committed: bytes(CURRENT),
      launch: bytes(COMMITTED)
    })
    expect([...report.subarray(0x1e8, 0x1ef)]).toEqual([30, 55, 1, 0, 30, 55, 1])
    expect(isSigned(report, machine.firmware.identity, "VCEK")).toBe(true)
  })
})

describe("SNP_VLEK_LOAD", () => {
  const iv = new Uint8Array(12).fill(3)
  const blobFor = (identity: PlatformIdentity, byte: number) => {
    const tcb = identity.tcbBytes(identity.reportedTcb)
    const sticks = new Uint8Array(VLEK_STICKS_SIZE).fill(0xaa).fill(byte, VLEK_STICKS_SIZE - 48)
    return wrapVlek(identity.root("VCEK", tcb), tcb, sticks, iv)
  }

  it("brings the operator's key, which then signs reports and derives keys in place of the VCEK", () => {
    const machine = makeMachine(PLATFORM)
    const { firmware } = machine
    expect(reportOf(machine).readUInt32LE(0x48)).toBe(0)
    expect(machine.ask(5, bytesOf(0x60, { 68: 2 })).status).toBe(STATUS.INVALID_KEY)
    expect(firmware.vlekLoad({ wrapped: blobFor(firmware.identity, 1) })).toBe("SUCCESS")
    const report = reportOf(machine)
    expect(report.readUInt32LE(0x48)).toBe(1 << 2)
    expect(isSigned(report, firmware.identity, "VLEK")).toBe(true)
    expect(report.subarray(0x1a0, 0x1e0).every((byte) => byte === 0)).toBe(true)
    const first = firmware.identity.publicKey("VLEK").export({ type: "spki", format: "pem" })
    expect(firmware.identity.root("VLEK", new Uint8Array(8))).toEqual(new Uint8Array(48).fill(1))
    expect(firmware.vlekLoad({ wrapped: blobFor(firmware.identity, 2) })).toBe("SUCCESS")
    expect(firmware.identity.publicKey("VLEK").export({ type: "spki", format: "pem" })).not.toBe(first)
    expect(reportOf(machine, 1).readUInt32LE(0x48)).toBe(0)
  })

  it.each([0, 0x10, 0x18f, 0x190, 0x198, 0x1a0, 0x1af])("byte 0x%i of a blob cannot be changed", (at) => {
    const { firmware } = makeMachine(PLATFORM)
    const wrapped = blobFor(firmware.identity, 1)
    wrapped[at]! ^= 1
    expect(firmware.vlekLoad({ wrapped })).toBe(at === 0x190 ? "BAD_SVN" : "BAD_MEASUREMENT")
    expect(firmware.identity.vlekLoaded).toBe(false)
  })

  it("takes no blob of another chip, another size or another version", () => {
    const { firmware } = makeMachine(PLATFORM)
    const other = makeMachine({ firmware: { ...PLATFORM.firmware, seed: 2 } }).firmware.identity
    expect(firmware.vlekLoad({ wrapped: blobFor(other, 1) })).toBe("BAD_MEASUREMENT")
    const wrapped = blobFor(firmware.identity, 1)
    expect(firmware.vlekLoad({ wrapped, version: 1 })).toBe("INVALID_PARAM")
    expect(firmware.vlekLoad({ wrapped: wrapped.subarray(1) })).toBe("INVALID_PARAM")
  })
})

describe("status commands", () => {
  const STATUS_PAGE = 20
  const UNCOVERED = 0x10_0000
  const read = (machine: Machine, offset = 0) => Buffer.from(machine.memory.readPlain(STATUS_PAGE).subarray(offset))

  it("GUEST_STATUS follows the guest, and writes nothing beside its buffer", () => {
    const machine = makeMachine({ isFinished: false })
    const { firmware, memory, rmp } = machine
    rmp.rmpupdate(STATUS_PAGE, true, PAGE_4K, true, 0, 0)
    memory.writePlain(STATUS_PAGE, new Uint8Array(4096).fill(0xee))
    const status = (gctx: number) => {
      expect(firmware.guestStatus(gctx, { statusPfn: STATUS_PAGE, statusOffset: 0x40 })).toBe("SUCCESS")
      const found = read(machine, 0x40)
      expect([found[0x20], read(machine)[0x3f]]).toEqual([0xee, 0xee])
      return [found.readBigUInt64LE(0), found.readUInt32LE(8), found[12], found.readUInt32LE(16)]
    }
    expect(firmware.gctxCreate(OTHER_GCTX)).toBe("SUCCESS")
    expect(status(OTHER_GCTX)).toEqual([0n, 0, 0, 0])
    expect(status(GCTX)).toEqual([POLICY_OK, ASID, 1, 0])
    expect(firmware.launchFinish({ gctx: GCTX, vcekDis: true })).toBe("SUCCESS")
    expect(status(GCTX)).toEqual([POLICY_OK, ASID, 2, 1])
    expect(firmware.decommission(GCTX)).toBe("SUCCESS")
    expect(firmware.guestStatus(GCTX, { statusPfn: STATUS_PAGE })).toBe("INVALID_GUEST")
  })

  it("PLATFORM_STATUS tells versions, masks, TCBs and guests, and that nothing is initialised", () => {
    const machine = makeMachine(PLATFORM)
    const { firmware } = machine
    const config = { reportedTcb: tcbBytes(OLD), maskChipId: true, maskChipKey: true }
    expect(firmware.config(config)).toBe("SUCCESS")
    // A page that the RMP does not cover is taken too, and one of the hypervisor's is not.
    expect(firmware.platformStatus({ statusPfn: STATUS_PAGE })).toBe("INVALID_PAGE_STATE")
    expect(firmware.platformStatus({ statusPfn: UNCOVERED })).toBe("SUCCESS")
    const found = Buffer.from(machine.memory.readPlain(UNCOVERED))
    expect([...found.subarray(0, 4), found.readUInt32LE(4)]).toEqual([1, 55, 1, 1, 30])
    expect([found.readUInt32LE(8), found.readUInt32LE(12)]).toEqual([0b1011, 1])
    expect([...found.subarray(0x10, 0x20)]).toEqual([...bytes(CURRENT), ...bytes(OLD)])
    const { rmp, memory } = machine
    const uninitialised = new SnpFirmware(rmp, memory, { seed: 1, initialised: false })
    expect(uninitialised.platformStatus({ statusPfn: STATUS_PAGE })).toBe("SUCCESS")
    expect([...read(machine).subarray(0, 4)]).toEqual([1, 55, 0, 0])
  })
})

describe("reports of Turin", () => {
  it("have its TCB layout, a chip id of 8 bytes, and its family", () => {
    const tcb = { fmc: 1, bootLoader: 2, tee: 3, snp: 4, microcode: 5 }
    const identity = { currentTcb: tcb, reportVersion: 5, tioEnabled: true, eccEnabled: true } as const
    const machine = makeMachine({ firmware: { fms: TURIN, identity } })
    const report = reportOf(machine)
    const expected = [1, 2, 3, 4, 0, 0, 0, 5]
    expect(tcbs(report)).toEqual({ current: expected, reported: expected, committed: expected, launch: expected })
    expect([...report.subarray(0x188, 0x18b)]).toEqual([0x1a, 0x02, 1])
    expect(report.subarray(0x1a0, 0x1a8).some((byte) => byte !== 0)).toBe(true)
    expect(report.subarray(0x1a8, 0x1e0).every((byte) => byte === 0)).toBe(true)
    expect(report.readBigUInt64LE(0x40)).toBe(0b1000_0101n)
    const { identity: platform } = machine.firmware
    expect(isSigned(report, platform, "VCEK")).toBe(true)
    expect(platform.tcbOf(platform.tcbBytes(tcb))).toEqual(tcb)
  })

  it("an FMC above the committed one cannot be asked for", () => {
    const tcb = { fmc: 1, bootLoader: 2, tee: 3, snp: 4, microcode: 5 }
    const { firmware, ask } = makeMachine({ firmware: { fms: TURIN, identity: { currentTcb: tcb } } })
    const key = (fmc: number) =>
      ask(3, bytesOf(0x20, { 8: 1n << 5n, 24: firmware.identity.tcbBytes({ ...tcb, fmc }) })).status
    expect([key(0), key(1), key(2)]).toEqual([0, 0, STATUS.INVALID_PARAM])
  })
})

describe("PLATFORM_INFO", () => {
  const all = {
    tsmeEnabled: true,
    eccEnabled: true,
    raplDisabled: true,
    ciphertextHiding: true,
    aliasCheckComplete: true,
    tioEnabled: true
  }
  it.each([
    [2, 0b0001_1111n],
    [3, 0b0011_1111n],
    [5, 0b1011_1111n]
  ] as const)("in version %i", (reportVersion, expected) => {
    const machine = makeMachine({ firmware: { identity: { ...all, reportVersion } } })
    expect(reportOf(machine).readBigUInt64LE(0x40)).toBe(expected)
  })
})

describe("an IMI", () => {
  const image = () => {
    const machine = makeMachine({ start: { imiEn: true }, isMeasured: false, isFinished: false })
    const { rmp, memory, firmware } = machine
    const update = (pfn: number, imiPage: boolean) => {
      rmp.rmpupdate(pfn, true, PAGE_4K, true, 0x900 + pfn, ASID)
      memory.writePlain(pfn, new Uint8Array(4096).fill(pfn))
      return firmware.launchUpdate({ gctx: GCTX, pfn, pageSize: PAGE_4K, pageType: PAGE_TYPE.NORMAL, imiPage })
    }
    return { ...machine, update }
  }

  it("is made of IMI pages alone, which enter both digests; LAUNCH_FINISH is not for it", () => {
    const { update, firmware, guest } = image()
    expect(update(30, false)).toBe("INVALID_PARAM")
    expect(update(31, true)).toBe("SUCCESS")
    expect(update(32, true)).toBe("SUCCESS")
    expect(guest.imd.value).toEqual(guest.digest.value)
    expect(guest.imd.value.some((byte) => byte !== 0)).toBe(true)
    expect(firmware.launchFinish({ gctx: GCTX })).toBe("INVALID_GUEST_STATE")
  })

  it("an IMI page is measured as one, and other pages of a plain guest are not in IMD", () => {
    const plain = makeMachine({ isFinished: false })
    const before = plain.guest.digest.value
    const update = (pfn: number, imiPage: boolean) => {
      plain.rmp.rmpupdate(pfn, true, PAGE_4K, true, 0x900, ASID)
      return plain.firmware.launchUpdate({ gctx: GCTX, pfn, pageSize: PAGE_4K, pageType: PAGE_TYPE.ZERO, imiPage })
    }
    expect(update(30, false)).toBe("SUCCESS")
    expect(plain.guest.digest.value).not.toEqual(before)
    expect(plain.guest.imd.value.every((byte) => byte === 0)).toBe(true)
    const other = makeMachine({ isFinished: false })
    other.rmp.rmpupdate(30, true, PAGE_4K, true, 0x900, ASID)
    const pageType = PAGE_TYPE.ZERO
    expect(other.firmware.launchUpdate({ gctx: GCTX, pfn: 30, pageSize: PAGE_4K, pageType, imiPage: true })).toBe(
      "SUCCESS"
    )
    expect(other.guest.digest.value).not.toEqual(plain.guest.digest.value)
    expect(other.guest.imd.value.some((byte) => byte !== 0)).toBe(true)
  })

  it("tells the guest in the secrets page", () => {
    const { rmp, memory, firmware } = image()
    rmp.rmpupdate(33, true, PAGE_4K, true, 0x800, ASID)
    const pageType = PAGE_TYPE.SECRETS
    expect(firmware.launchUpdate({ gctx: GCTX, pfn: 33, pageSize: PAGE_4K, pageType, imiPage: true })).toBe("SUCCESS")
    expect(Buffer.from(memory.readEncrypted(33, ASID)).readUInt32LE(4)).toBe(1)
  })

  it("takes a guest in only where that one names it", () => {
    const ABSORB_REQ = 0xb
    const agent = makeMachine()
    expect(agent.firmware.gctxCreate(OTHER_GCTX)).toBe("SUCCESS")
    const start = { gctx: OTHER_GCTX, policy: POLICY_OK | POLICY.MIGRATE_MA, imiEn: true }
    expect(agent.firmware.launchStart(start)).toBe("SUCCESS")
    const address = BigInt(OTHER_GCTX) << 12n
    const status = (rows: Parameters<typeof bytesOf>[1]) => agent.ask(ABSORB_REQ, bytesOf(0x320, rows)).status
    const imd = agent.firmware.guest(OTHER_GCTX)!.digest.value
    expect(status({ 0: address, 8: 0x300, 12: 3, 432: 1 })).toBe(STATUS.BAD_MEASUREMENT)
    expect(status({ 0: address, 8: 0x301, 12: 3, 432: imd })).toBe(STATUS.INVALID_PARAM)
    expect(status({ 0: address, 8: 0x300, 12: 3, 432: imd })).toBe(STATUS.UNSUPPORTED)
  })
})

describe("VMSA pages under SecureTSC", () => {
  it.each([
    [0x201, 30n << 32n, 0n],
    [0x001, 0x1111n, 0x2222n]
  ] as const)("SEV_FEATURES 0x%x", (features, scale, offset) => {
    const machine = makeMachine({ start: { desiredTscKhz: 2_994_000 }, isFinished: false })
    const { rmp, memory, firmware, guest } = machine
    const launch = (tsc: bigint) => {
      rmp.rmpupdate(30, true, PAGE_4K, true, 0x900, ASID)
      memory.writePlain(30, bytesOf(4096, { 752: tsc, 760: 0x2222n, 944: features }))
      expect(firmware.launchUpdate({ gctx: GCTX, pfn: 30, pageSize: PAGE_4K, pageType: PAGE_TYPE.VMSA })).toBe(
        "SUCCESS"
      )
      return Buffer.from(memory.readEncrypted(30, ASID))
    }
    const page = launch(0x1111n)
    expect([page.readBigUInt64LE(0x2f0), page.readBigUInt64LE(0x2f8)]).toEqual([scale, offset])
    const other = makeMachine({ start: { desiredTscKhz: 1 }, isFinished: false })
    other.rmp.rmpupdate(30, true, PAGE_4K, true, 0x900, ASID)
    other.memory.writePlain(30, bytesOf(4096, { 944: features }))
    const command = { gctx: GCTX, pfn: 30, pageSize: PAGE_4K, pageType: PAGE_TYPE.VMSA } as const
    expect(other.firmware.launchUpdate(command)).toBe("SUCCESS")
    expect(other.guest.digest.value).toEqual(guest.digest.value)
  })
})
