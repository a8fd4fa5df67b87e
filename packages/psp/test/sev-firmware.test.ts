import { createHash, createHmac } from "node:crypto"
import { PAGE_4K, PAGES_PER_2M, Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  AsidTable,
  policyMac,
  SEV_POLICY,
  SevFirmware,
  type SevFirmwareOptions,
  type SevSession,
  sealSecret,
  secretMac,
  sevMeasurement,
  sevPolicy
} from "../src/index.ts"
import { KeyedMemory } from "./support.ts"

const ES_ASID = 3
const SEV_ASID = 7
const PAGE = 8
const AT = PAGE * PAGE_SIZE
const ES = SEV_POLICY.ES
const KEYS = { tek: new Uint8Array(16).fill(1), tik: new Uint8Array(16).fill(2) }
const sessionFor = (policy: number): SevSession => ({ ...KEYS, policyMac: policyMac(KEYS.tik, policy) })

const make = (options: Partial<SevFirmwareOptions> = {}) => {
  const memory = new KeyedMemory()
  const sealed: Array<readonly [number, number]> = []
  const firmware = new SevFirmware(memory, {
    seed: 1,
    asids: new AsidTable({ maxAsid: 10, minSevAsid: 6 }),
    vmsaSealed: (pfn, asid) => sealed.push([pfn, asid]),
    ...options
  })
  return { memory, firmware, sealed }
}

/** A guest in LUPDATE, active unless told otherwise. */
const launching = (policy = ES, options: Partial<SevFirmwareOptions> = {}, active = true) => {
  const platform = make(options)
  const { firmware } = platform
  const { handle } = firmware.launchStart({ policy, session: sessionFor(policy) })
  const asid = (policy & ES) === 0 ? SEV_ASID : ES_ASID
  if (active) expect(firmware.activate(handle, asid)).toBe("SUCCESS")
  return { ...platform, handle, asid }
}

const pageOf = (byte: number): Uint8Array => Uint8Array.from({ length: PAGE_SIZE }, (_, i) => byte ^ (i & 0xff))
const sha256 = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  return new Uint8Array(hash.digest())
}

describe("LAUNCH_START", () => {
  const policy = sevPolicy(SEV_POLICY.NODBG | ES, { apiMajor: 1, apiMinor: 55 })
  it.each<readonly [string, Parameters<SevFirmware["launchStart"]>[0], Partial<SevFirmwareOptions>, string]>([
    ["plain", { policy: 0 }, {}, "SUCCESS"],
    ["with a session", { policy, session: sessionFor(policy) }, {}, "SUCCESS"],
    ["before INIT", { policy: 0 }, { initialised: false }, "INVALID_PLATFORM_STATE"],
    ["short key", { policy, session: { ...sessionFor(policy), tek: new Uint8Array(8) } }, {}, "INVALID_LEN"],
    ["policy that the owner did not mean", { policy, session: sessionFor(policy ^ 1) }, {}, "BAD_MEASUREMENT"],
    ["wrong size of a MAC", { policy, session: { ...KEYS, policyMac: new Uint8Array(4) } }, {}, "BAD_MEASUREMENT"],
    ["newer minor", { policy, session: sessionFor(policy) }, { apiMinor: 54 }, "POLICY_FAILURE"],
    ["newer major", { policy, session: sessionFor(policy) }, { apiMajor: 0, apiMinor: 99 }, "POLICY_FAILURE"],
    ["older major, larger minor", { policy, session: sessionFor(policy) }, { apiMajor: 2, apiMinor: 0 }, "SUCCESS"],
    ["reserved bit 6", { policy: 0x40, session: sessionFor(0x40) }, {}, "POLICY_FAILURE"],
    ["reserved bit 15", { policy: 0x8000, session: sessionFor(0x8000) }, {}, "POLICY_FAILURE"],
    ["without a session nobody looks", { policy: 0xffff_ffff }, {}, "SUCCESS"],
    ["no guest to share with", { policy: 0, handle: 1 }, {}, "INVALID_GUEST"],
    ["no room", { policy: ES }, { guestsMax: 0, es: false }, "RESOURCE_LIMIT"],
    ["SEV-ES is off", { policy: ES }, { es: false }, "UNSUPPORTED"]
  ])("%s", (_name, command, options, status) => {
    const { firmware } = make(options)
    expect(firmware.launchStart(command)).toEqual({ status, handle: status === "SUCCESS" ? 1 : 0 })
    expect(firmware.guest(1)?.state).toBe(status === "SUCCESS" ? "LUPDATE" : undefined)
  })

  it("shares a key with a guest of the same policy that allows it", () => {
    const { firmware } = make()
    firmware.launchStart({ policy: 0 })
    firmware.launchStart({ policy: SEV_POLICY.NOKS })
    expect(firmware.launchStart({ policy: 1, handle: 1 }).status).toBe("POLICY_FAILURE")
    expect(firmware.launchStart({ policy: SEV_POLICY.NOKS, handle: 2 }).status).toBe("POLICY_FAILURE")
    expect(firmware.launchStart({ policy: 0, handle: 1 })).toEqual({ status: "SUCCESS", handle: 3 })
    expect(firmware.launchStart({ policy: 0 }).handle).toBe(4)
    expect(firmware.guest(3)?.memoryKey).toEqual(firmware.guest(1)?.memoryKey)
    expect(firmware.guest(4)?.memoryKey).not.toEqual(firmware.guest(1)?.memoryKey)
  })

  it("gives the lowest free handle", () => {
    const { firmware } = make()
    for (const _ of [1, 2, 3]) firmware.launchStart({ policy: 0 })
    firmware.decommission(2)
    expect(firmware.launchStart({ policy: 0 }).handle).toBe(2)
  })
})

describe("the platform", () => {
  it("works while it has guests; without any it refuses all that needs one", () => {
    const { firmware } = make()
    const all = (): ReadonlyArray<string> => [
      firmware.activate(1, ES_ASID),
      firmware.deactivate(1),
      firmware.launchUpdateData({ handle: 1, paddr: AT, length: 16 }),
      firmware.launchUpdateVmsa({ handle: 1, paddr: AT, length: PAGE_SIZE }),
      firmware.launchMeasure(1).status,
      firmware.launchSecret({
        handle: 1,
        header: { flags: 0, iv: new Uint8Array(16), mac: new Uint8Array(32) },
        paddr: 1,
        length: 0,
        data: new Uint8Array(0)
      }),
      firmware.launchFinish(1),
      firmware.dbgDecrypt({ handle: 1, source: 1, destination: 1, length: 1 }),
      firmware.dbgEncrypt({ handle: 1, source: 1, destination: 1, length: 1 }),
      firmware.decommission(1)
    ]
    expect(new Set(all())).toEqual(new Set(["INVALID_PLATFORM_STATE"]))
    expect(firmware.state).toBe("INIT")
    expect(firmware.guestStatus(1)).toEqual({ status: "SUCCESS", state: 0, asid: 0, policy: 0 })
    firmware.launchStart({ policy: 0 })
    expect(firmware.state).toBe("WORKING")
    firmware.decommission(1)
    expect(firmware.state).toBe("INIT")
    expect(make({ initialised: false }).firmware.state).toBe("UNINIT")
    expect(make({ initialised: false }).firmware.guestStatus(1).status).toBe("INVALID_PLATFORM_STATE")
  })

  it("knows no guest by another handle", () => {
    const { firmware } = launching()
    for (const handle of [0, 2, 1.5, -1]) {
      expect(firmware.activate(handle, ES_ASID)).toBe("INVALID_GUEST")
      expect(firmware.launchFinish(handle)).toBe("INVALID_GUEST")
      expect(firmware.decommission(handle)).toBe("INVALID_GUEST")
      expect(firmware.guestStatus(handle)).toMatchObject({ status: "SUCCESS", state: 0 })
    }
  })
})

describe("ACTIVATE, DEACTIVATE and DECOMMISSION", () => {
  it.each([
    ["SEV-ES", ES, 6, 5],
    ["SEV", 0, 5, 6]
  ])("%s has its own ASIDs", (_name, policy, wrong, right) => {
    const { firmware, handle, memory } = launching(policy, {}, false)
    expect(firmware.activate(handle, 11)).toBe("INVALID_ASID")
    expect(firmware.activate(handle, wrong)).toBe("INVALID_ASID")
    expect(firmware.activate(handle, right)).toBe("SUCCESS")
    expect(memory.keys.get(right)).toEqual(firmware.guest(handle)?.memoryKey)
    expect(firmware.guestStatus(handle)).toEqual({ status: "SUCCESS", state: 1, asid: right, policy })
  })

  it("refuses a taken ASID and a second one", () => {
    const { firmware, handle } = launching()
    firmware.launchStart({ policy: ES })
    expect(firmware.activate(2, ES_ASID)).toBe("ASID_OWNED")
    expect(firmware.activate(handle, ES_ASID + 1)).toBe("ACTIVE")
  })

  it("an active guest is not decommissioned; DEACTIVATE comes first, once", () => {
    const { firmware, handle, memory } = launching()
    expect(firmware.decommission(handle)).toBe("ACTIVE")
    expect(firmware.deactivate(handle)).toBe("SUCCESS")
    expect(firmware.deactivate(handle)).toBe("INACTIVE")
    expect(memory.keys.size).toBe(0)
    expect(firmware.decommission(handle)).toBe("SUCCESS")
    expect(firmware.guest(handle)).toBeUndefined()
  })

  it.each([
    ["that never ran leaves its ASID clean", false, "SUCCESS"],
    ["that ran leaves it dirty", true, "DFFLUSH_REQUIRED"]
  ])("a guest %s", (_name, finish, status) => {
    const { firmware, handle } = launching()
    firmware.launchMeasure(handle)
    if (finish) firmware.launchFinish(handle)
    firmware.deactivate(handle)
    firmware.launchStart({ policy: ES })
    expect(firmware.activate(2, ES_ASID)).toBe(status)
    if (!finish) return
    expect(firmware.dfFlush()).toBe("WBINVD_REQUIRED")
    firmware.wbinvdDone(0)
    expect(firmware.dfFlush()).toBe("SUCCESS")
    expect(firmware.activate(2, ES_ASID)).toBe("SUCCESS")
  })

  it("a guest that is activated only when it runs uses its ASID at once", () => {
    const asids = new AsidTable()
    const { firmware, handle } = launching(ES, { asids }, false)
    firmware.launchMeasure(handle)
    expect(firmware.launchFinish(handle)).toBe("SUCCESS")
    firmware.activate(handle, ES_ASID)
    expect(asids.stateOf(ES_ASID)).toBe("in use")
  })
})

describe("LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA", () => {
  it("encrypt in place, any range of 16 bytes, and leave the rest of the page alone", () => {
    const { firmware, handle, memory, asid } = launching()
    for (const i of [0, 1, 2]) memory.writePlain(PAGE + i, pageOf(i))
    const before = [0, 1, 2].map((i) => memory.readPlain(PAGE + i).slice())
    const range = { handle, paddr: AT + 32, length: 2 * PAGE_SIZE - 16 }
    expect(firmware.launchUpdateData(range)).toBe("SUCCESS")
    expect(memory.readEncrypted(PAGE, asid).slice(32)).toEqual(before[0]!.slice(32))
    expect(memory.readEncrypted(PAGE + 1, asid)).toEqual(before[1])
    expect(memory.readEncrypted(PAGE + 2, asid).slice(0, 16)).toEqual(before[2]!.slice(0, 16))
    expect(memory.readPlain(PAGE).slice(0, 32)).toEqual(before[0]!.slice(0, 32))
    expect(memory.readPlain(PAGE + 2).slice(16)).toEqual(before[2]!.slice(16))
    firmware.launchMeasure(handle)
    expect(firmware.guest(handle)?.digest).toEqual(sha256(before[0]!.slice(32), before[1]!, before[2]!.slice(0, 16)))
  })

  it("a VMSA is measured as it was, gets an integrity value and loses what the firmware keeps in it", () => {
    const { firmware, handle, memory, asid, sealed } = launching()
    const vmsa = pageOf(0x80)
    memory.writePlain(PAGE, vmsa)
    expect(firmware.launchUpdateVmsa({ handle, paddr: AT, length: PAGE_SIZE })).toBe("SUCCESS")
    expect(sealed).toEqual([[PAGE, asid]])
    expect(memory.readEncrypted(PAGE, asid)).toEqual(vmsa.slice().fill(0, 0x380, 0x390))
    firmware.launchMeasure(handle)
    expect(firmware.guest(handle)?.digest).toEqual(sha256(vmsa))
  })

  it("a VMSA across two pages is taken, but no processor could run it", () => {
    const { firmware, handle, sealed } = launching()
    expect(firmware.launchUpdateVmsa({ handle, paddr: AT + 16, length: PAGE_SIZE })).toBe("SUCCESS")
    expect(sealed).toEqual([])
  })

  type Change = { handle?: number; paddr?: number; length?: number }
  it.each<readonly [string, Change, string, string]>([
    ["nothing wrong", {}, "SUCCESS", "SUCCESS"],
    ["handle, before all but a VMSA's length", { handle: 9, length: 0 }, "INVALID_GUEST", "INVALID_LEN"],
    ["handle", { handle: 9, paddr: 1 }, "INVALID_GUEST", "INVALID_GUEST"],
    ["address, before length", { paddr: AT + 8, length: 8 }, "INVALID_ADDRESS", "INVALID_LEN"],
    ["address", { paddr: AT + 8 }, "INVALID_ADDRESS", "INVALID_ADDRESS"],
    ["negative address", { paddr: -16 }, "INVALID_ADDRESS", "INVALID_ADDRESS"],
    ["length 0", { length: 0 }, "INVALID_LEN", "INVALID_LEN"],
    ["length 8", { length: 8 }, "INVALID_LEN", "INVALID_LEN"],
    ["half a page", { length: 2048 }, "SUCCESS", "INVALID_LEN"],
    ["two pages", { length: 2 * PAGE_SIZE }, "SUCCESS", "INVALID_LEN"]
  ])("check: %s", (_name, change, dataStatus, vmsaStatus) => {
    for (const [command, status] of [
      ["launchUpdateData", dataStatus],
      ["launchUpdateVmsa", vmsaStatus]
    ] as const) {
      const { firmware, handle, memory } = launching()
      expect(firmware[command]({ handle, paddr: AT, length: PAGE_SIZE, ...change })).toBe(status)
      expect(memory.raw.size > 0).toBe(status === "SUCCESS")
    }
  })

  it("order: state, then SEV-ES, then active, then address", () => {
    const wrong = { paddr: AT + 1, length: PAGE_SIZE }
    const { firmware, handle } = launching(0, {}, false)
    expect(firmware.launchUpdateVmsa({ handle, ...wrong })).toBe("UNSUPPORTED")
    expect(firmware.launchUpdateData({ handle, ...wrong })).toBe("INACTIVE")
    firmware.activate(handle, SEV_ASID)
    expect(firmware.launchUpdateData({ handle, ...wrong })).toBe("INVALID_ADDRESS")
    firmware.launchMeasure(handle)
    expect(firmware.launchUpdateVmsa({ handle, ...wrong })).toBe("INVALID_GUEST_STATE")
    expect(firmware.launchUpdateData({ handle, ...wrong })).toBe("INVALID_GUEST_STATE")
  })

  it("no room for an integrity value: the VMSA is measured but not encrypted; a guest that ends gives room back", () => {
    const { firmware, handle, memory } = launching(ES, { vmsasMax: 2 })
    const update = (of: number) => firmware.launchUpdateVmsa({ handle: of, paddr: AT, length: PAGE_SIZE })
    const zeros = new Uint8Array(PAGE_SIZE)
    memory.writePlain(PAGE, zeros)
    expect(update(handle)).toBe("SUCCESS")
    const encrypted = memory.readPlain(PAGE).slice()
    firmware.launchStart({ policy: ES })
    firmware.activate(2, ES_ASID + 1)
    expect(update(2)).toBe("SUCCESS")
    memory.writePlain(PAGE, encrypted)
    expect(update(handle)).toBe("RESOURCE_LIMIT")
    expect(memory.readPlain(PAGE)).toEqual(encrypted)
    firmware.launchMeasure(handle)
    expect(firmware.guest(handle)?.digest).toEqual(sha256(zeros, encrypted))
    firmware.deactivate(2)
    firmware.decommission(2)
    firmware.launchStart({ policy: ES })
    firmware.activate(2, ES_ASID + 1)
    expect(update(2)).toBe("SUCCESS")
  })

  it("where SNP is initialised, takes Firmware pages and those outside of the RMP", () => {
    const rmp = new Rmp({ pages: PAGES_PER_2M })
    const { firmware, handle } = launching(ES, { rmp })
    const update = (pfn: number, length = 16) => firmware.launchUpdateData({ handle, paddr: pfn * PAGE_SIZE, length })
    rmp.rmpupdate(PAGE, true, PAGE_4K, true, 0, 0)
    expect(update(PAGE)).toBe("SUCCESS")
    expect(update(PAGE + 1)).toBe("INVALID_PAGE_STATE")
    expect(update(PAGE, 2 * PAGE_SIZE)).toBe("INVALID_PAGE_STATE")
    expect(update(PAGES_PER_2M)).toBe("SUCCESS")
    const debug = { handle, source: AT, destination: AT + PAGE_SIZE, length: 0 }
    expect(firmware.dbgDecrypt(debug)).toBe("INVALID_PAGE_STATE")
    firmware.launchMeasure(handle)
    const secret = { handle, paddr: AT + PAGE_SIZE, length: 16, data: new Uint8Array(16) }
    const header = { flags: 0, iv: new Uint8Array(16), mac: new Uint8Array(32) }
    expect(firmware.launchSecret({ ...secret, header })).toBe("INVALID_PAGE_STATE")
  })
})

describe("LAUNCH_MEASURE and LAUNCH_FINISH", () => {
  it("measures with the owner's key what the owner can compute", () => {
    const policy = sevPolicy(SEV_POLICY.NODBG, { apiMajor: 1, apiMinor: 51 })
    const { firmware, handle } = launching(policy)
    expect(firmware.launchMeasure(handle, 47)).toEqual({ status: "INVALID_LEN", length: 48, measurement: null })
    const { status, measurement } = firmware.launchMeasure(handle, 64)
    expect(status).toBe("SUCCESS")
    const mnonce = measurement!.slice(32)
    const message = Buffer.concat([Buffer.from([0x04, 1, 55, 25, 0x01, 0x00, 0x01, 0x33]), sha256(), mnonce])
    expect(measurement!.slice(0, 32)).toEqual(new Uint8Array(createHmac("sha256", KEYS.tik).update(message).digest()))
    expect(firmware.guest(handle)?.state).toBe("LSECRET")
    expect(firmware.launchMeasure(handle).status).toBe("INVALID_GUEST_STATE")
  })

  it("without a session the key is zero, so that anybody could have made the measurement", () => {
    const { firmware } = make()
    const { handle } = firmware.launchStart({ policy: 0 })
    const { measurement } = firmware.launchMeasure(handle)
    const launch = { apiMajor: 1, apiMinor: 55, build: 25, policy: 0, digest: sha256(), mnonce: measurement!.slice(32) }
    expect(measurement!.slice(0, 32)).toEqual(sevMeasurement(new Uint8Array(16), launch))
  })

  it("FINISH comes after MEASURE, and once; the owner's keys are gone then", () => {
    const { firmware, handle } = launching()
    expect(firmware.launchFinish(handle)).toBe("INVALID_GUEST_STATE")
    firmware.launchMeasure(handle)
    expect(firmware.launchFinish(handle)).toBe("SUCCESS")
    expect(firmware.guest(handle)).toMatchObject({ state: "RUNNING", transport: null })
    expect(firmware.guestStatus(handle).state).toBe(3)
    expect(firmware.launchFinish(handle)).toBe("INVALID_GUEST_STATE")
  })
})

describe("LAUNCH_SECRET", () => {
  const iv = new Uint8Array(16).fill(9)
  const secret = pageOf(0x5a).slice(0, 64)
  const measured = (active = true) => {
    const launch = launching(ES, {}, active)
    const measurement = launch.firmware.launchMeasure(launch.handle).measurement!.slice(0, 32)
    const sealed = sealSecret(KEYS, { iv, data: secret, measurement })
    return { ...launch, measurement, command: { handle: launch.handle, paddr: AT, length: 64, ...sealed } }
  }

  it("reaches the guest, and nobody else sees it", () => {
    const { firmware, memory, asid, command } = measured()
    expect(command.data).not.toEqual(secret)
    expect(firmware.launchSecret(command)).toBe("SUCCESS")
    expect(memory.readEncrypted(PAGE, asid).slice(0, 64)).toEqual(secret)
    expect(memory.readPlain(PAGE).slice(0, 64)).not.toEqual(secret)
    expect(firmware.launchSecret(command)).toBe("SUCCESS")
  })

  type Command = ReturnType<typeof measured>["command"]
  it.each<readonly [string, (command: Command) => Partial<Command>, string]>([
    ["handle, before address", () => ({ handle: 9, paddr: 1 }), "INVALID_GUEST"],
    ["address, before length", () => ({ paddr: AT + 8, length: 0 }), "INVALID_ADDRESS"],
    ["length 0", () => ({ length: 0, data: new Uint8Array(0) }), "INVALID_LEN"],
    ["length 8", () => ({ length: 8, data: new Uint8Array(8) }), "INVALID_LEN"],
    ["more than the firmware's buffer", () => ({ length: 0x5010, data: new Uint8Array(0x5010) }), "INVALID_LEN"],
    ["length in the guest is another", () => ({ length: 48 }), "INVALID_LEN"],
    ["header too short", ({ header }) => ({ header: { ...header, iv: header.iv.slice(1) } }), "INVALID_LEN"],
    ["MAC too short", ({ header }) => ({ header: { ...header, mac: header.mac.slice(1) } }), "INVALID_LEN"],
    ["changed data", ({ data }) => ({ data: data.map((byte) => byte ^ 1) }), "BAD_MEASUREMENT"],
    ["changed flags", ({ header }) => ({ header: { ...header, flags: 1 } }), "BAD_MEASUREMENT"],
    ["changed IV", ({ header }) => ({ header: { ...header, iv: new Uint8Array(16) } }), "BAD_MEASUREMENT"]
  ])("check: %s", (_name, change, status) => {
    const { firmware, memory, command } = measured()
    expect(firmware.launchSecret({ ...command, ...change(command) })).toBe(status)
    expect(memory.raw.size).toBe(0)
  })

  it("fits one launch: another guest with the same keys refuses it", () => {
    const { firmware, command } = measured()
    const { handle } = firmware.launchStart({ policy: ES, session: sessionFor(ES) })
    firmware.activate(handle, ES_ASID + 1)
    expect(firmware.launchSecret({ ...command, handle })).toBe("INVALID_GUEST_STATE")
    firmware.launchMeasure(handle)
    expect(firmware.launchSecret({ ...command, handle })).toBe("BAD_MEASUREMENT")
  })

  it("is not unpacked, though the MAC be right", () => {
    const { firmware, measurement, command } = measured()
    const header = { flags: 1, iv }
    const mac = secretMac(KEYS.tik, header, command.data, measurement)
    expect(firmware.launchSecret({ ...command, header: { ...header, mac } })).toBe("UNSUPPORTED")
  })

  it("needs an active guest", () => {
    const { firmware, command } = measured(false)
    expect(firmware.launchSecret(command)).toBe("INACTIVE")
  })
})

describe("DBG_DECRYPT and DBG_ENCRYPT", () => {
  const debug = { source: AT + 16, destination: AT + PAGE_SIZE, length: 32 }

  it("show the host what the guest has, and put in what the host wants", () => {
    const { firmware, handle, memory, asid } = launching()
    memory.writePlain(PAGE, pageOf(3))
    firmware.launchUpdateData({ handle, paddr: AT, length: PAGE_SIZE })
    expect(firmware.dbgDecrypt({ handle, ...debug })).toBe("SUCCESS")
    expect(memory.readPlain(PAGE + 1).slice(0, 32)).toEqual(pageOf(3).slice(16, 48))
    expect(firmware.dbgEncrypt({ handle, source: AT + PAGE_SIZE, destination: AT, length: 32 })).toBe("SUCCESS")
    expect(memory.readEncrypted(PAGE, asid).slice(0, 48)).toEqual(
      new Uint8Array([...pageOf(3).slice(16, 48), ...pageOf(3).slice(32, 48)])
    )
  })

  it.each<readonly [string, Partial<typeof debug & { handle: number }>, number, string]>([
    ["source", { source: AT + 1, length: 1 }, ES, "INVALID_ADDRESS"],
    ["destination", { destination: AT + 1, handle: 9 }, ES, "INVALID_ADDRESS"],
    ["length, before handle", { length: 8, handle: 9 }, ES, "INVALID_LEN"],
    ["handle", { handle: 9 }, SEV_POLICY.NODBG, "INVALID_GUEST"],
    ["policy, before inactive", {}, SEV_POLICY.NODBG, "POLICY_FAILURE"],
    ["inactive", {}, ES, "INACTIVE"]
  ])("check: %s", (_name, change, policy, status) => {
    const { firmware, handle } = launching(policy, {}, false)
    expect(firmware.dbgDecrypt({ handle, ...debug, ...change })).toBe(status)
    expect(firmware.dbgEncrypt({ handle, ...debug, ...change })).toBe(status)
  })
})
