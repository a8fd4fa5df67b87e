import { verify } from "node:crypto"
import { describe, expect, it } from "vitest"
import { publicKeyOf, scalarFromExtraBits } from "../src/EcdsaP384.ts"
import { firmwareKdf } from "../src/FirmwareKdf.ts"
import { type EndorsementKey, type PlatformIdentityOptions, REPORT, STATUS, tcbBytes } from "../src/index.ts"
import { bytesOf, HOST_DATA, type MachineOptions, makeMachine, POLICY_OK } from "./guest-message-support.ts"

const REPORT_REQ = 5
const REPORT_DATA = Uint8Array.from({ length: 64 }, (_, i) => i + 1)
const OK = 0
const { INVALID_PARAM, INVALID_KEY } = STATUS

const requestOf = (vmpl = 0, select = 0): Uint8Array => bytesOf(0x60, { 0: REPORT_DATA, 64: vmpl, 68: select })

const withIdentity = (identity: PlatformIdentityOptions, options: MachineOptions = {}): MachineOptions => ({
  ...options,
  firmware: { identity }
})

type Machine = ReturnType<typeof makeMachine>

/** The report in a reply that must be a success, found by the facts' offset. */
const reportOf = ({ ask }: Machine, vmpl = 0, select = 0, vmpck = 0): Buffer => {
  const { status, payload } = ask(REPORT_REQ, requestOf(vmpl, select), vmpck)
  expect(status).toBe(OK)
  expect(payload.length).toBe(0x4c0)
  return Buffer.from(payload.subarray(0x20))
}

const isSignedBy = ({ firmware }: Machine, report: Buffer, key: EndorsementKey): boolean => {
  const part = (offset: number): Buffer => Buffer.from(report.subarray(offset, offset + 48)).reverse()
  const signature = Buffer.concat([part(0x2a0), part(0x2a0 + 72)])
  const publicKey = { key: firmware.identity.publicKey(key), dsaEncoding: "ieee-p1363" as const }
  return verify("sha384", report.subarray(0, 0x2a0), publicKey, signature)
}

describe("the attestation report", () => {
  it("has its fields where the facts have them", () => {
    expect(REPORT).toEqual({
      version: 0,
      guest_svn: 4,
      policy: 8,
      family_id: 0x10,
      image_id: 0x20,
      vmpl: 0x30,
      signature_algo: 0x34,
      current_tcb: 0x38,
      platform_info: 0x40,
      key_info: 0x48,
      report_data: 0x50,
      measurement: 0x90,
      host_data: 0xc0,
      id_key_digest: 0xe0,
      author_key_digest: 0x110,
      report_id: 0x140,
      report_id_ma: 0x160,
      reported_tcb: 0x180,
      cpuid_fam_id: 0x188,
      cpuid_mod_id: 0x189,
      cpuid_step: 0x18a,
      chip_id: 0x1a0,
      committed_tcb: 0x1e0,
      current_build: 0x1e8,
      current_minor: 0x1e9,
      current_major: 0x1ea,
      committed_build: 0x1ec,
      committed_minor: 0x1ed,
      committed_major: 0x1ee,
      launch_tcb: 0x1f0,
      launch_mit_vector: 0x1f8,
      current_mit_vector: 0x200,
      signature: 0x2a0
    })
  })

  it("says what was launched, byte by byte", () => {
    const tcb = (first: number) => ({ bootLoader: first, tee: first + 1, snp: first + 2, microcode: first + 3 })
    const options = withIdentity({
      currentTcb: tcb(0x10),
      committedTcb: tcb(0x20),
      reportedTcb: tcb(0x30),
      committed: { major: 1, minor: 54, build: 3 },
      tsmeEnabled: true
    })
    const machine = makeMachine(options)
    const { guest, firmware } = machine
    const report = reportOf(machine, 2)
    const inTcb = (first: number) => Uint8Array.of(first, first + 1, 0, 0, 0, 0, first + 2, first + 3)
    const expected = bytesOf(0x4a0, {
      0: 2,
      8: POLICY_OK,
      48: 2,
      52: 1,
      56: inTcb(0x10),
      64: 3,
      72: 0,
      80: REPORT_DATA,
      144: guest.digest.value,
      192: HOST_DATA,
      320: guest.reportId,
      352: new Uint8Array(32).fill(0xff),
      384: inTcb(0x30),
      416: firmware.identity.chipId,
      480: inTcb(0x20),
      488: Uint8Array.of(25, 55, 1),
      492: Uint8Array.of(3, 54, 1),
      496: inTcb(0x20)
    })
    expect([...report.subarray(0, 0x2a0)]).toEqual([...expected.subarray(0, 0x2a0)])
    expect(guest.digest.value.some((byte) => byte !== 0)).toBe(true)
    expect(new Set(firmware.identity.chipId).size).toBeGreaterThan(30)
  })

  it("follows the platform: SMT off, chip id masked, another ABI", () => {
    const identity = { maskChipId: true }
    const machine = makeMachine({ firmware: { smtEnabled: false, abiMinor: 58, identity } })
    const report = reportOf(machine)
    expect(report.readBigUInt64LE(0x40)).toBe(0n)
    expect(report.subarray(0x1a0, 0x1e0).every((byte) => byte === 0)).toBe(true)
    expect([...report.subarray(0x1e8, 0x1ef)]).toEqual([25, 58, 1, 0, 25, 58, 1])
  })

  it("is signed by the VCEK with r and s little-endian, zeros behind them", () => {
    const machine = makeMachine()
    const report = reportOf(machine)
    expect(isSignedBy(machine, report, "VCEK")).toBe(true)
    expect(isSignedBy(machine, report, "VLEK")).toBe(false)
    expect([...report.subarray(0x2d0, 0x2e8), ...report.subarray(0x318)].every((byte) => byte === 0)).toBe(true)
    for (const offset of [0, 0x50, 0x90, 0x29f]) {
      const forged = Buffer.from(report)
      forged[offset]! ^= 1
      expect(isSignedBy(machine, forged, "VCEK")).toBe(false)
    }
  })

  it("is signed by the key of its reported TCB, and of its chip", () => {
    const microcode = (version: number) => ({ bootLoader: 1, tee: 2, snp: 3, microcode: version })
    const pem = (options: MachineOptions) =>
      makeMachine(options).firmware.identity.publicKey("VCEK").export({ format: "pem", type: "spki" })
    const plain = pem(withIdentity({ currentTcb: microcode(4) }))
    expect(pem(withIdentity({ currentTcb: microcode(5), reportedTcb: microcode(4) }))).toEqual(plain)
    expect(pem(withIdentity({ currentTcb: microcode(5) }))).not.toEqual(plain)
    expect(pem({ firmware: { seed: 2, identity: { currentTcb: microcode(4) } } })).not.toEqual(plain)
    expect(tcbBytes(microcode(4))).toEqual(Uint8Array.of(1, 2, 0, 0, 0, 0, 3, 4))
  })

  it.each([
    ["VCEK", "sev-versioned-chip-endorsement-key"],
    ["VLEK", "sev-versioned-loaded-attestation-key"]
  ] as const)("has its %s from the root by the firmware's derivation", (key, label) => {
    const { identity } = makeMachine().firmware
    const root = identity.root(key, tcbBytes(identity.reportedTcb))
    const scalar = scalarFromExtraBits(firmwareKdf(root, label, new Uint8Array(0), 56))
    expect(identity.publicKey(key).equals(publicKeyOf(scalar))).toBe(true)
  })

  it("names a migration agent by its report id", () => {
    const machine = makeMachine()
    const agentId = Uint8Array.from({ length: 32 }, (_, i) => i)
    Object.assign(machine.guest, { reportIdMa: agentId })
    expect([...reportOf(machine).subarray(0x160, 0x180)]).toEqual([...agentId])
  })
})

/** Key select, and what comes of it: a status, or the report's key info and its signer. */
type KeyRow = readonly [name: string, select: number, options: MachineOptions, status: number, info: number]

describe("keys for reports", () => {
  const vlek = withIdentity({ vlekLoaded: true })
  const noVcek: MachineOptions = { finish: { vcekDis: true } }
  const masked = withIdentity({ maskChipKey: true })
  const all: ReadonlyArray<KeyRow> = [
    ["either: VCEK", 0, {}, OK, 0],
    ["either, VLEK loaded: VLEK", 0, vlek, OK, 1 << 2],
    ["VCEK, VLEK loaded: VCEK", 1, vlek, OK, 0],
    ["VLEK, loaded", 2, vlek, OK, 1 << 2],
    ["VLEK, not loaded", 2, {}, INVALID_KEY, 0],
    ["reserved", 3, vlek, INVALID_KEY, 0],
    ["either, VCEK disabled at launch", 0, noVcek, INVALID_KEY, 0],
    ["VCEK, disabled at launch", 1, noVcek, INVALID_KEY, 0],
    ["either, VCEK disabled, VLEK loaded", 0, { ...vlek, ...noVcek }, OK, 1 << 2],
    ["VCEK, masked: not signed", 1, masked, OK, 2 | (7 << 2)],
    ["either, masked: not signed", 0, masked, OK, 2 | (7 << 2)],
    ["either, masked, VLEK loaded", 0, withIdentity({ maskChipKey: true, vlekLoaded: true }), OK, 2 | (1 << 2)]
  ]

  it.each(all)("%s", (_, select, options, status, info) => {
    const machine = makeMachine(options)
    if (status !== OK) {
      expect(machine.ask(REPORT_REQ, requestOf(0, select)).status).toBe(status)
      return
    }
    const report = reportOf(machine, 0, select)
    expect(report.readUInt32LE(0x48)).toBe(info)
    const signing = info >> 2
    expect(isSignedBy(machine, report, "VCEK")).toBe(signing === 0)
    expect(isSignedBy(machine, report, "VLEK")).toBe(signing === 1)
    if (signing === 7) expect(report.subarray(0x2a0).every((byte) => byte === 0)).toBe(true)
  })
})

describe("refusals of MSG_REPORT_REQ", () => {
  it.each([0, 1, 2, 3])("VMPCK%i speaks for its own VMPL and those after it", (vmpck) => {
    const machine = makeMachine()
    for (const vmpl of [0, 1, 2, 3, 4, 0xffff_ffff]) {
      const { status, payload } = machine.ask(REPORT_REQ, requestOf(vmpl), vmpck)
      expect(status).toBe(vmpl < vmpck ? INVALID_PARAM : OK)
      expect(Buffer.from(payload).readUInt32LE(0x20 + 0x30)).toBe(vmpl < vmpck ? 0 : vmpl)
    }
  })

  it.each([
    ["bit 2 of the key select", { 68: 4 }],
    ["bit 31 of the key select", { 68: 0x8000_0000 }],
    ["the first reserved byte", { 72: 1 }],
    ["the last reserved byte", { 92: 0x0100_0000 }]
  ])("%s is reserved", (_, rows) => {
    expect(makeMachine().ask(REPORT_REQ, bytesOf(0x60, rows)).status).toBe(INVALID_PARAM)
  })

  it("comes in the order reserved, key, VMPL", () => {
    const ask = (rows: Parameters<typeof bytesOf>[1]) => makeMachine().ask(REPORT_REQ, bytesOf(0x60, rows), 1).status
    expect(ask({ 68: 2, 72: 1 })).toBe(INVALID_PARAM)
    expect(ask({ 68: 2 })).toBe(INVALID_KEY)
    expect(ask({ 68: 1 })).toBe(INVALID_PARAM)
    expect(ask({ 64: 1, 68: 1 })).toBe(OK)
  })

  it("carries the size of a report, and an empty one", () => {
    const { payload } = makeMachine().ask(REPORT_REQ, requestOf(0, 3))
    const expected = bytesOf(0x4c0, { 0: INVALID_KEY, 4: 0x4a0 })
    expect([...payload]).toEqual([...expected])
  })

  it("has no check of the request's size: what is missing is zero", () => {
    const machine = makeMachine()
    const { status, payload } = machine.ask(REPORT_REQ, REPORT_DATA.slice(0, 16))
    expect(status).toBe(OK)
    expect([...payload.subarray(0x70, 0x70 + 64)]).toEqual([...REPORT_DATA.slice(0, 16), ...new Uint8Array(48)])
  })
})
