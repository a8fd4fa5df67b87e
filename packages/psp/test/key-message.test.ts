import { createHmac } from "node:crypto"
import { describe, expect, it } from "vitest"
import { GUEST_FIELD, STATUS, tcbBytes } from "../src/index.ts"
import {
  bytesOf,
  HOST_DATA,
  type MachineOptions,
  makeMachine,
  openGuestResponse,
  POLICY_OK,
  RESPONSE
} from "./guest-message-support.ts"

const KEY_REQ = 3
const { INVALID_PARAM, INVALID_KEY } = STATUS
const TCB = { bootLoader: 3, tee: 4, snp: 5, microcode: 6 }
const OLD = { bootLoader: 3, tee: 3, snp: 5, microcode: 1 }
const PLATFORM: MachineOptions = { firmware: { identity: { currentTcb: TCB } } }

interface Request {
  readonly select?: number
  readonly reserved?: number
  readonly fields?: bigint
  readonly vmpl?: number
  readonly svn?: number
  readonly tcb?: Uint8Array
}

const requestOf = (request: Request): Uint8Array =>
  bytesOf(0x20, {
    0: request.select ?? 0,
    4: request.reserved ?? 0,
    8: request.fields ?? 0n,
    16: request.vmpl ?? 0,
    20: request.svn ?? 0,
    24: request.tcb ?? new Uint8Array(8)
  })

const ask = (request: Request, options = PLATFORM, vmpck = 0) => {
  const machine = makeMachine(options)
  const { status, payload } = machine.ask(KEY_REQ, requestOf(request), vmpck)
  expect(payload.length).toBe(0x40)
  const key = Buffer.from(payload.subarray(0x20)).toString("hex")
  if (status !== 0) expect(key).toBe("0".repeat(64))
  return { ...machine, status, key }
}

/** The derivation as the facts give it, apart from the sources. */
const derived = (root: Uint8Array, mix: Uint8Array): string =>
  createHmac("sha256", root)
    .update(Buffer.concat([Buffer.from([1, 0, 0, 0]), Buffer.from("gmsg-keyreq\0"), mix, Buffer.from([0, 1, 0, 0])]))
    .digest("hex")

describe("keys of MSG_KEY_REQ", () => {
  it("come from the VMRK with VMPL and host data alone", () => {
    const { guest, key, status } = ask({ select: 1, vmpl: 2, svn: 9, tcb: new Uint8Array(8).fill(0xff) })
    expect(status).toBe(0)
    expect(key).toBe(derived(guest.vmrk, bytesOf(168, { 0: 1, 16: 2, 104: HOST_DATA })))
  })

  it("have every selected field mixed in, from where the facts have it", () => {
    const { guest, firmware, key } = ask({ fields: 0x3fn, vmpl: 3, tcb: tcbBytes(OLD) })
    const mix = bytesOf(168, {
      8: 0x3fn,
      16: 3,
      24: tcbBytes(OLD),
      32: POLICY_OK,
      72: guest.digest.value.subarray(0, 32),
      104: HOST_DATA
    })
    expect(key).toBe(derived(firmware.identity.root("VCEK", tcbBytes(OLD)), mix))
  })

  it.each<readonly [string, number, Partial<Request>, "VCEK" | "VLEK", Uint8Array]>([
    ["VCEK of the reported TCB", 0, {}, "VCEK", tcbBytes(OLD)],
    ["VCEK of the TCB asked for", 0, { fields: GUEST_FIELD.TCB, tcb: tcbBytes(TCB) }, "VCEK", tcbBytes(TCB)],
    ["VLEK, which is preferred", 0, { vmpl: 1 }, "VLEK", tcbBytes(OLD)],
    ["VLEK, whatever TCB is asked for", 2, { fields: GUEST_FIELD.TCB, tcb: tcbBytes(TCB) }, "VLEK", tcbBytes(OLD)],
    ["VCEK although a VLEK is loaded", 1, { vmpl: 1 }, "VCEK", tcbBytes(OLD)]
  ])("have as root the %s", (_, keySelect, request, root, tcb) => {
    const vlekLoaded = root === "VLEK" || request.vmpl === 1
    const options = { firmware: { identity: { currentTcb: TCB, reportedTcb: OLD, vlekLoaded } } }
    const { firmware, key } = ask({ ...request, select: keySelect << 1 }, options)
    const { fields = 0n, vmpl = 0, tcb: asked = new Uint8Array(8) } = request
    const mix = bytesOf(168, { 8: fields, 16: vmpl, 24: fields === 0n ? new Uint8Array(8) : asked, 104: HOST_DATA })
    expect(key).toBe(derived(firmware.identity.root(root, tcb), mix))
  })

  it("differ by root, VMPL and each selected field, and by nothing that is not selected", () => {
    const keys = [
      ...Object.values(GUEST_FIELD).map((fields) => ask({ fields }).key),
      ...[{}, { vmpl: 1 }, { select: 1 }, { fields: GUEST_FIELD.TCB, tcb: tcbBytes(OLD) }].map((one) => ask(one).key)
    ]
    expect(new Set(keys).size).toBe(keys.length)
    expect(ask({ svn: 4, tcb: tcbBytes(OLD) }).key).toBe(ask({}).key)
  })
})

describe("refusals of MSG_KEY_REQ", () => {
  const masked: MachineOptions = { firmware: { identity: { maskChipKey: true, vlekLoaded: true } } }
  const noVcek: MachineOptions = { finish: { vcekDis: true } }

  it.each<readonly [string, Request, MachineOptions, number]>([
    ["bit 3 of the first word", { select: 8 }, PLATFORM, INVALID_PARAM],
    ["bit 31 of the first word", { select: 0x8000_0000 }, PLATFORM, INVALID_PARAM],
    ["the second word", { reserved: 1 }, PLATFORM, INVALID_PARAM],
    ["chip key masked, even with a VLEK", { select: 2 << 1 }, masked, INVALID_KEY],
    ["chip key masked, VMRK", { select: 1 }, masked, 0],
    ["VCEK disabled at launch", {}, noVcek, INVALID_KEY],
    ["VCEK disabled at launch, VMRK", { select: 1 }, noVcek, 0],
    ["VLEK not loaded", { select: 2 << 1 }, PLATFORM, INVALID_KEY],
    ["VLEK not loaded, VMRK", { select: (2 << 1) | 1 }, PLATFORM, 0],
    ["reserved key select", { select: 3 << 1 }, PLATFORM, INVALID_KEY],
    ["reserved key select, VMRK", { select: 7 }, PLATFORM, 0],
    ["unknown field, bit 6", { fields: 1n << 6n }, PLATFORM, INVALID_PARAM],
    ["unknown field, bit 63", { fields: 1n << 63n }, PLATFORM, INVALID_PARAM],
    ["SVN above that of no ID block", { fields: GUEST_FIELD.SVN, svn: 1 }, PLATFORM, INVALID_PARAM],
    ["SVN 0", { fields: GUEST_FIELD.SVN }, PLATFORM, 0]
  ])("%s", (_, request, options, status) => {
    expect(ask(request, options).status).toBe(status)
  })

  it.each([0, 1, 2, 3, 4, 5, 6, 7])("byte %i of the TCB must not exceed the committed one", (byte) => {
    const tcb = tcbBytes(TCB)
    expect(ask({ fields: GUEST_FIELD.TCB, tcb }).status).toBe(0)
    tcb[byte]!++
    expect(ask({ fields: GUEST_FIELD.TCB, tcb }).status).toBe(INVALID_PARAM)
    expect(ask({ fields: GUEST_FIELD.POLICY, tcb }).status).toBe(0)
  })

  it("measures the TCB by the committed one, not by the one that runs", () => {
    const options = { firmware: { identity: { currentTcb: TCB, committedTcb: OLD } } }
    expect(ask({ fields: GUEST_FIELD.TCB, tcb: tcbBytes(TCB) }, options).status).toBe(INVALID_PARAM)
    expect(ask({ fields: GUEST_FIELD.TCB, tcb: tcbBytes(OLD) }, options).status).toBe(0)
  })

  it.each([0, 1, 2, 3])("VMPCK%i gets keys of its own VMPL and those after it", (vmpck) => {
    for (const vmpl of [0, 1, 2, 3, 4])
      expect(ask({ vmpl }, PLATFORM, vmpck).status).toBe(vmpl < vmpck ? INVALID_PARAM : 0)
  })

  it("comes in the order reserved, key, VMPL", () => {
    expect(ask({ select: 3 << 1, reserved: 1 }, PLATFORM, 1).status).toBe(INVALID_PARAM)
    expect(ask({ select: 3 << 1, fields: 1n << 6n }, PLATFORM, 1).status).toBe(INVALID_KEY)
  })
})

describe("version 2 of MSG_KEY_REQ", () => {
  const MITIGATIONS = 0b1010n
  const machineOf = (reportVersion: 2 | 3 | 5) =>
    makeMachine({ firmware: { identity: { currentTcb: TCB, reportVersion, mitigationVector: MITIGATIONS } } })
  const payloadOf = (fields: bigint, mitigations: bigint) => bytesOf(0x30, { 0: 1, 8: fields, 16: 2, 32: mitigations })
  const run = (version: number, payload: Uint8Array, reportVersion: 2 | 3 | 5 = 5) => {
    const machine = machineOf(reportVersion)
    machine.put(machine.seal({ type: KEY_REQ, version, payload }))
    const status = machine.run()
    if (status !== "SUCCESS") return { ...machine, status, key: "" }
    const reply = openGuestResponse(machine.guest.vmpck[0], machine.memory.readPlain(RESPONSE)).payload
    const key = Buffer.from(reply.subarray(0x20, 0x40)).toString("hex")
    return { ...machine, status: Buffer.from(reply).readUInt32LE(0), key }
  }

  it("mixes the vector of the launch in where it is selected, and gives the keys of version 1 otherwise", () => {
    const { guest, key, status } = run(2, payloadOf(0x40n, 0b1000n))
    expect(status).toBe(0)
    const mix = { 0: 1, 8: 0x40n, 16: 2, 104: HOST_DATA }
    expect(key).toBe(derived(guest.vmrk, bytesOf(176, { ...mix, 168: 0b1000n })))
    expect(run(2, payloadOf(0n, 0b1000n)).key).toBe(run(1, payloadOf(0n, 0n)).key)
  })

  it.each([
    ["a mitigation that was not there at launch", 2, payloadOf(0x40n, 0b0001n), 5, INVALID_PARAM],
    ["the same, not selected", 2, payloadOf(0n, 0b0001n), 5, 0],
    ["the field in version 1", 1, payloadOf(0x40n, 0b1000n), 5, INVALID_PARAM],
    ["a field beyond", 2, payloadOf(0x80n, 0n), 5, INVALID_PARAM],
    ["version 2 of firmware without mitigations", 2, payloadOf(0n, 0n), 3, "INVALID_PARAM"],
    ["version 3", 3, payloadOf(0n, 0n), 5, "INVALID_PARAM"],
    ["version 0", 0, payloadOf(0n, 0n), 5, "INVALID_PARAM"]
  ] as const)("%s", (_, version, payload, reportVersion, status) => {
    expect(run(version, payload, reportVersion).status).toBe(status)
  })

  it("refuses in the firmware's order, the earlier check first", () => {
    const chip = { firmware: { identity: { currentTcb: TCB, maskChipKey: true } } }
    const over = new Uint8Array(8).fill(0xff)
    // Reserved bits, key, VMPL, select bits, TCB, SVN: each with all later ones wrong too.
    const rest = { fields: 1n << 40n, tcb: over, svn: 9 }
    expect(ask({ select: 8, vmpl: 0, ...rest }, chip, 1).status).toBe(INVALID_PARAM)
    expect(ask({ select: 0, vmpl: 0, ...rest }, chip, 1).status).toBe(INVALID_KEY)
    expect(ask({ select: 1, vmpl: 0, fields: 0n }, chip, 1).status).toBe(INVALID_PARAM)
    expect(ask({ select: 1, vmpl: 1, fields: 0n }, chip, 1).status).toBe(0)
    expect(ask({ select: 6, vmpl: 0, ...rest }, PLATFORM, 1).status).toBe(INVALID_KEY)
    expect(ask({ reserved: 1, select: 6 }).status).toBe(INVALID_PARAM)
  })
})
