import { describe, expect, it } from "vitest"
import { type CpuidPolicy, STATUS, type Status, tscScale } from "../src/index.ts"
import { bytesOf, GCTX, makeMachine, OTHER_GCTX, POLICY_OK, RMP_FRAME } from "./guest-message-support.ts"

const [CPUID_REQ, EXPORT_REQ, IMPORT_REQ, ABSORB_REQ, VMRK_REQ, ABSORB_NOMA_REQ, TSC_INFO_REQ] = [
  1, 7, 9, 11, 13, 15, 17
]
const MIGRATE_MA = 1n << 18n
const addressOf = (pfn: number): bigint => BigInt(pfn) << 12n

/** A function of CPUID as 48 bytes. */
const cpuid = (eaxIn: number, values: readonly [number, number, number, number], reserved = 0n): Uint8Array =>
  bytesOf(48, {
    0: eaxIn,
    4: 5,
    8: 6n,
    16: 7n,
    24: values[0],
    28: values[1],
    32: values[2],
    36: values[3],
    40: reserved
  })

const table = (rows: ReadonlyArray<Uint8Array>, count = rows.length): Uint8Array =>
  bytesOf(16 + 48 * rows.length, { 0: count, 16: Buffer.concat(rows) })

describe("MSG_CPUID_REQ", () => {
  const mask: CpuidPolicy = (claimed) => ({ ...claimed, eax: claimed.eax & 0xffff_ff00 })

  it("gives back what it accepts, with the number of functions that it looked at", () => {
    const rows = [
      cpuid(0, [0x100, 2, 3, 0xffff_ffff]),
      cpuid(0x4000_0000, [1, 2, 3, 4]),
      cpuid(0x8000_ffff, [0, 0, 0, 0])
    ]
    const request = table(rows)
    const { payload } = makeMachine({ firmware: { cpuidPolicy: mask } }).ask(CPUID_REQ, request)
    expect([...payload]).toEqual([...bytesOf(request.length, { 4: 2, 16: Buffer.concat(rows) })])
  })

  it("says INVALID_PARAM and gives back acceptable values where they differ", () => {
    const request = table([cpuid(0xffff, [0xffff_ffff, 2, 3, 4]), cpuid(0x1_0000, [1, 2, 3, 4])])
    const { status, payload } = makeMachine({ firmware: { cpuidPolicy: mask } }).ask(CPUID_REQ, request)
    const rows = [cpuid(0xffff, [0xffff_ff00, 2, 3, 4]), cpuid(0x1_0000, [1, 2, 3, 4])]
    expect(status).toBe(STATUS.INVALID_PARAM)
    expect([...payload]).toEqual([...bytesOf(request.length, { 0: 0x16, 4: 1, 16: Buffer.concat(rows) })])
  })

  it("takes values of a policy as 32 bits", () => {
    const request = table([cpuid(7, [0x8000_0000, 0, 0, 0])])
    expect(makeMachine({ firmware: { cpuidPolicy: mask } }).ask(CPUID_REQ, request).status).toBe(0)
  })

  it("shows the policy what was asked", () => {
    const asked: Array<Parameters<CpuidPolicy>[0]> = []
    const cpuidPolicy: CpuidPolicy = (claimed) => {
      asked.push(claimed)
      return claimed
    }
    makeMachine({ firmware: { cpuidPolicy } }).ask(CPUID_REQ, table([cpuid(0xd, [1, 2, 3, 0x8000_0000])]))
    const registers = { eax: 1, ebx: 2, ecx: 3, edx: 0x8000_0000 }
    expect(asked).toEqual([{ eaxIn: 0xd, ecxIn: 5, xcr0In: 6n, xssIn: 7n, ...registers }])
  })

  it("accepts every value by default, but no reserved byte of a function", () => {
    expect(makeMachine().ask(CPUID_REQ, table([cpuid(1, [1, 2, 3, 4])])).status).toBe(0)
    const { status, payload } = makeMachine().ask(CPUID_REQ, table([cpuid(1, [1, 2, 3, 4], 1n << 63n)]))
    expect([status, Buffer.from(payload).readUInt32LE(4)]).toEqual([STATUS.INVALID_PARAM, 1])
    expect(makeMachine().ask(CPUID_REQ, table([cpuid(0x4000_0000, [1, 2, 3, 4], 1n)])).status).toBe(0)
  })

  it.each([
    ["the word after the count", { 0: 1, 4: 1 }],
    ["the last reserved byte", { 0: 1, 8: 1n << 56n }],
    ["more than 64 functions", { 0: 65 }]
  ])("refuses all: %s", (_, rows) => {
    const { payload } = makeMachine().ask(CPUID_REQ, bytesOf(0x40, { ...rows, 16: cpuid(1, [1, 2, 3, 4]) }))
    expect([...payload]).toEqual([...bytesOf(0x40, { 0: 0x16 })])
  })

  it("answers 64 functions, and as many bytes as were asked with where functions are missing", () => {
    const full = table(Array.from({ length: 64 }, (_, i) => cpuid(i, [i, 0, 0, 0])))
    const { payload } = makeMachine().ask(CPUID_REQ, full)
    expect([...payload]).toEqual([...bytesOf(full.length, { 4: 64, 16: full.subarray(16) })])
    expect([...makeMachine().ask(CPUID_REQ, bytesOf(16, { 0: 3 })).payload]).toEqual([...bytesOf(16, { 4: 3 })])
  })
})

describe("MSG_TSC_INFO_REQ", () => {
  it("tells scale and factor; the offset is zero", () => {
    const { status, payload } = makeMachine({ start: { desiredTscKhz: 2_994_000 } }).ask(
      TSC_INFO_REQ,
      new Uint8Array(128)
    )
    expect(status).toBe(0)
    expect([...payload]).toEqual([...bytesOf(128, { 8: 30n << 32n, 24: 200 })])
  })

  it.each<readonly [number, bigint]>([
    [0, 0n],
    [99_800, 1n << 32n],
    [49_900, 1n << 31n],
    [1, 43_036n],
    [3_000_000, (30n << 32n) | 258_214_467n],
    [99_800 * 256, 0n]
  ])("scales %i kHz", (khz, scale) => {
    expect(tscScale(khz)).toBe(scale)
  })

  it.each([0, 127])("refuses a request whose byte %i is not zero", (byte) => {
    const request = new Uint8Array(128)
    request[byte] = 1
    const { payload } = makeMachine({ start: { desiredTscKhz: 1 } }).ask(TSC_INFO_REQ, request)
    expect([...payload]).toEqual([...bytesOf(128, { 0: 0x16 })])
  })
})

/** A running guest, and one that is being launched with it as its agent. */
const makeAgent = (agent: number | null = GCTX) => {
  const machine = makeMachine()
  expect(machine.firmware.gctxCreate(OTHER_GCTX)).toBe("SUCCESS")
  const start = { gctx: OTHER_GCTX, policy: POLICY_OK | MIGRATE_MA, migrationAgent: agent }
  const launch = () => expect(machine.firmware.launchStart(start)).toBe("SUCCESS")
  return { ...machine, launch, other: machine.firmware.guest(OTHER_GCTX)! }
}

describe("MSG_VMRK_REQ", () => {
  const VMRK = new Uint8Array(32).fill(0x77)
  const requestOf = (address: bigint, reserved: Record<number, number> = {}): Uint8Array =>
    bytesOf(0x40, { 0: address, 32: VMRK, ...reserved })

  it("gives the agent's key to a guest that is being launched", () => {
    const { ask, launch, other } = makeAgent()
    launch()
    expect([...ask(VMRK_REQ, requestOf(addressOf(OTHER_GCTX))).payload]).toEqual([...new Uint8Array(16)])
    expect(other.vmrk).toEqual(VMRK)
  })

  it.each<readonly [string, bigint, Record<number, number>, number, Status]>([
    ["not VMPCK0", addressOf(OTHER_GCTX), {}, 1, "INVALID_PARAM"],
    ["an address inside a page", addressOf(OTHER_GCTX) + 16n, {}, 0, "INVALID_PARAM"],
    ["the first reserved byte", addressOf(OTHER_GCTX), { 8: 1 }, 0, "INVALID_PARAM"],
    ["the last reserved byte", addressOf(OTHER_GCTX), { 28: 0x0100_0000 }, 0, "INVALID_PARAM"],
    ["a page of the RMP", addressOf(RMP_FRAME), {}, 0, "INVALID_PARAM"],
    ["no context page", addressOf(9), {}, 0, "INVALID_GUEST"],
    ["an address that no memory has", 0xffff_ffff_ffff_f000n, {}, 0, "INVALID_GUEST"],
    ["a guest that runs", addressOf(GCTX), {}, 0, "INVALID_GUEST_STATE"]
  ])("refuses %s", (_, address, reserved, vmpck, status) => {
    const { ask, launch, other, guest } = makeAgent()
    launch()
    const before = [other.vmrk.slice(), guest.vmrk.slice()]
    expect(ask(VMRK_REQ, requestOf(address, reserved), vmpck).status).toBe(STATUS[status])
    expect([other.vmrk, guest.vmrk]).toEqual(before)
  })

  it("is acted upon although its reply does not fit, and can then be sent again", () => {
    const { guest, launch, other, put, run, seal } = makeAgent()
    launch()
    put(seal({ type: VMRK_REQ, payload: requestOf(addressOf(OTHER_GCTX)) }))
    expect(run({ responseOffset: 0xf91 })).toBe("INVALID_PARAM")
    expect(other.vmrk).toEqual(VMRK)
    expect(guest.messageCount[0]).toBe(0n)
    expect(run({ responseOffset: 0xf90 })).toBe("SUCCESS")
  })

  it("refuses guests before their launch, without an agent, and of an agent that was in this page before", () => {
    const early = makeAgent()
    expect(early.ask(VMRK_REQ, requestOf(addressOf(OTHER_GCTX))).status).toBe(STATUS.INVALID_GUEST_STATE)
    const alone = makeAgent(null)
    alone.launch()
    expect(alone.ask(VMRK_REQ, requestOf(addressOf(OTHER_GCTX))).status).toBe(STATUS.INVALID_GUEST)
    const moved = makeAgent()
    moved.launch()
    Object.assign(moved.other, { migrationAgent: 9 })
    expect(moved.ask(VMRK_REQ, requestOf(addressOf(OTHER_GCTX))).status).toBe(STATUS.INVALID_GUEST)
    const successor = makeAgent()
    successor.launch()
    Object.assign(successor.other, { reportIdMa: new Uint8Array(32) })
    expect(successor.ask(VMRK_REQ, requestOf(addressOf(OTHER_GCTX))).status).toBe(STATUS.INVALID_GUEST)
  })
})

describe("MSG_EXPORT_REQ", () => {
  it.each<readonly [string, Parameters<typeof bytesOf>[1], number, Status]>([
    ["an address inside a page", { 0: addressOf(GCTX) + 1n }, 0, "INVALID_PARAM"],
    ["a reserved flag", { 0: addressOf(GCTX), 8: 2 }, 0, "INVALID_PARAM"],
    ["a reserved word", { 0: addressOf(GCTX), 12: 1 }, 0, "INVALID_PARAM"],
    ["no context page", { 0: addressOf(9) }, 0, "INVALID_GUEST"],
    ["a guest that does not run", { 0: addressOf(OTHER_GCTX) }, 0, "INVALID_GUEST_STATE"],
    ["itself, by VMPCK1", { 0: addressOf(GCTX) }, 1, "INVALID_GUEST"],
    ["itself, which is not modelled", { 0: addressOf(GCTX), 8: 1 }, 0, "UNSUPPORTED"]
  ])("%s", (_, rows, vmpck, status) => {
    const { ask, launch, firmware } = makeAgent()
    launch()
    const { payload } = ask(EXPORT_REQ, bytesOf(16, rows), vmpck)
    expect([...payload]).toEqual([...bytesOf(0xfa0, { 0: STATUS[status], 4: 0x300, 8: 3 })])
    expect(firmware.guest(GCTX)?.state).toBe("RUNNING")
  })

  it("is for the agent of a running guest, by any VMPCK, and not for strangers", () => {
    const status = (agent: number | null) => {
      const { ask, launch, other } = makeAgent(agent)
      launch()
      Object.assign(other, { state: "RUNNING" })
      return ask(EXPORT_REQ, bytesOf(16, { 0: addressOf(OTHER_GCTX) }), 2).status
    }
    expect(status(GCTX)).toBe(STATUS.UNSUPPORTED)
    expect(status(null)).toBe(STATUS.INVALID_GUEST)
  })

  it("is not for a guest itself that has an agent", () => {
    const { ask, guest } = makeMachine()
    Object.assign(guest, { migrationAgent: OTHER_GCTX })
    expect(ask(EXPORT_REQ, bytesOf(16, { 0: addressOf(GCTX) })).status).toBe(STATUS.INVALID_GUEST)
  })
})

describe("messages that bring a guest", () => {
  const SIZE = { 8: 0x300, 12: 3 }
  const VALID = { 544: 1 }

  it.each<readonly [string, number, Parameters<typeof bytesOf>[1], Status]>([
    ["import to an address inside a page", IMPORT_REQ, { ...SIZE, ...VALID, 0: 1n }, "INVALID_PARAM"],
    ["import of another size", IMPORT_REQ, { ...VALID, 0: addressOf(OTHER_GCTX), 8: 0x2f0, 12: 3 }, "INVALID_PARAM"],
    ["import of another version", IMPORT_REQ, { ...VALID, 0: addressOf(OTHER_GCTX), 8: 0x300, 12: 2 }, "INVALID_PARAM"],
    ["import with a reserved byte", IMPORT_REQ, { ...SIZE, 0: addressOf(OTHER_GCTX), 16: 1 }, "INVALID_PARAM"],
    ["import to no context", IMPORT_REQ, { ...SIZE, ...VALID, 0: addressOf(9) }, "INVALID_GUEST"],
    ["import to a running guest", IMPORT_REQ, { 0: addressOf(GCTX), ...SIZE, ...VALID }, "INVALID_GUEST_STATE"],
    ["import without a root entry", IMPORT_REQ, { 0: addressOf(OTHER_GCTX), ...SIZE }, "INVALID_MDATA_ENTRY"],
    ["import, not modelled", IMPORT_REQ, { 0: addressOf(OTHER_GCTX), ...SIZE, ...VALID }, "UNSUPPORTED"],
    ["absorb with a reserved byte", ABSORB_REQ, { 0: addressOf(OTHER_GCTX), 28: 1 }, "INVALID_PARAM"],
    ["absorb to no context", ABSORB_REQ, { 0: addressOf(9) }, "INVALID_GUEST"],
    ["absorb to a guest without an IMI", ABSORB_REQ, { 0: addressOf(OTHER_GCTX) }, "INVALID_GUEST_STATE"],
    ["absorb without agent: address", ABSORB_NOMA_REQ, { ...SIZE, 0: addressOf(GCTX) }, "INVALID_PARAM"],
    ["absorb without agent: reserved byte", ABSORB_NOMA_REQ, { ...SIZE, 16: 1 }, "INVALID_PARAM"],
    ["absorb without agent: no IMI", ABSORB_NOMA_REQ, SIZE, "BAD_MEASUREMENT"]
  ])("%s", (_, type, rows, status) => {
    const { ask, firmware } = makeAgent()
    const { payload } = ask(type, bytesOf(0x320, rows))
    expect([...payload]).toEqual([...bytesOf(16, { 0: STATUS[status] })])
    expect(firmware.guest(OTHER_GCTX)?.state).toBe("INIT")
  })

  it("absorb without agent goes on in a guest of no pages, whose digests are zero as the incoming one", () => {
    const incoming = new Uint8Array(0x300).fill(0xff)
    incoming.fill(0, 0x190, 0x1c0)
    const status = (rows: Parameters<typeof bytesOf>[1]) =>
      makeMachine({ isMeasured: false }).ask(ABSORB_NOMA_REQ, bytesOf(0x320, { ...rows, 32: incoming })).status
    expect(status(SIZE)).toBe(STATUS.UNSUPPORTED)
    expect(status({ ...SIZE, 8: 0x301 })).toBe(STATUS.INVALID_PARAM)
  })

  it("absorb without agent is not for a guest that has one, and needs both digests", () => {
    const bound = makeMachine()
    Object.assign(bound.guest, { migrationAgent: OTHER_GCTX })
    expect(bound.ask(ABSORB_NOMA_REQ, bytesOf(0x320, SIZE)).status).toBe(STATUS.INVALID_GUEST)
    const { ask, guest } = makeMachine()
    const likeLd = bytesOf(0x320, { ...SIZE, 432: guest.digest.value })
    expect(ask(ABSORB_NOMA_REQ, likeLd).status).toBe(STATUS.BAD_MEASUREMENT)
  })
})
