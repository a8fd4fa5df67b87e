import { createHash } from "node:crypto"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { AsidTable, SEV_GUEST_STATE, SEV_POLICY, SevFirmware, type Status, sealSecret } from "../src/index.ts"
import { KeyedMemory } from "./support.ts"

const MAX_ASID = 5
const MIN_SEV_ASID = 3
const PAGES = 4
const ZERO_KEYS = { tek: new Uint8Array(16), tik: new Uint8Array(16) }
const POLICIES = [0, SEV_POLICY.NODBG, SEV_POLICY.NOKS, SEV_POLICY.ES, SEV_POLICY.ES | SEV_POLICY.NOKS]

const COMMANDS = [
  "start",
  "share",
  "activate",
  "deactivate",
  "data",
  "vmsa",
  "measure",
  "secret",
  "finish",
  "decrypt",
  "encrypt",
  "decommission",
  "wbinvd",
  "flush"
] as const
type Command = readonly [name: (typeof COMMANDS)[number], handle: number, value: number]

const sequences = fc.array(fc.tuple(fc.constantFrom(...COMMANDS), fc.integer({ min: 1, max: 4 }), fc.nat(20)), {
  maxLength: 120,
  size: "max"
})

const makeSystem = () => {
  const memory = new KeyedMemory()
  const asids = new AsidTable({ maxAsid: MAX_ASID, minSevAsid: MIN_SEV_ASID })
  const firmware = new SevFirmware(memory, { seed: 1, asids, guestsMax: 3, vmsasMax: 1 })
  return { memory, asids, firmware }
}
type System = ReturnType<typeof makeSystem>

const execute = ({ firmware }: System, [name, handle, value]: Command): Status => {
  const paddr = (value % PAGES) * PAGE_SIZE
  const length = value === 20 ? 8 : PAGE_SIZE
  switch (name) {
    case "start":
      return firmware.launchStart({ policy: POLICIES[value % POLICIES.length]! }).status
    case "share":
      return firmware.launchStart({ policy: POLICIES[value % POLICIES.length]!, handle }).status
    case "activate":
      return firmware.activate(handle, value % (MAX_ASID + 2))
    case "deactivate":
      return firmware.deactivate(handle)
    case "data":
      return firmware.launchUpdateData({ handle, paddr, length })
    case "vmsa":
      return firmware.launchUpdateVmsa({ handle, paddr, length })
    case "measure":
      return firmware.launchMeasure(handle, value === 20 ? 0 : 48).status
    case "secret": {
      const measurement = firmware.guest(handle)?.measurement ?? new Uint8Array(32)
      const data = new Uint8Array(16).fill(value)
      const sealed = sealSecret(ZERO_KEYS, { iv: new Uint8Array(16), data, measurement })
      if (value === 19) sealed.data[0]! ^= 1
      return firmware.launchSecret({ handle, paddr: value === 20 ? 1 : paddr, length: 16, ...sealed })
    }
    case "finish":
      return firmware.launchFinish(handle)
    case "decrypt":
      return firmware.dbgDecrypt({ handle, source: paddr, destination: 0, length })
    case "encrypt":
      return firmware.dbgEncrypt({ handle, source: 0, destination: paddr, length })
    case "decommission":
      return firmware.decommission(handle)
    case "wbinvd":
      firmware.wbinvdDone(0)
      return "SUCCESS"
    case "flush":
      return firmware.dfFlush()
  }
}

const HANDLES = [1, 2, 3, 4]
const ASIDS = [1, 2, 3, 4, 5]

/** LD as it would be now; null once it is final, or without a guest. */
const launchedSoFar = (firmware: SevFirmware, handle: number): string | null => {
  const guest = firmware.guest(handle)
  return guest?.state === "LUPDATE" ? guest.launched.copy().digest("hex") : null
}

/** All that a command could change, as a string. */
const look = ({ memory, asids, firmware }: System): string => {
  const bytes = createHash("sha256")
  for (let pfn = 0; pfn < PAGES; pfn++) bytes.update(memory.readPlain(pfn))
  return JSON.stringify([
    firmware.state,
    HANDLES.map((handle) => firmware.guestStatus(handle)),
    HANDLES.map((handle) => launchedSoFar(firmware, handle)),
    HANDLES.map((handle) => firmware.guest(handle)?.vmsas),
    ASIDS.map((asid) => [asids.stateOf(asid), memory.keys.has(asid)]),
    bytes.digest("hex")
  ])
}

/** What each successful command does to its guest's state. */
const NEXT: { readonly [name in Command[0]]?: readonly [from: ReadonlyArray<number>, to: number] } = {
  data: [[SEV_GUEST_STATE.LUPDATE], SEV_GUEST_STATE.LUPDATE],
  vmsa: [[SEV_GUEST_STATE.LUPDATE], SEV_GUEST_STATE.LUPDATE],
  measure: [[SEV_GUEST_STATE.LUPDATE], SEV_GUEST_STATE.LSECRET],
  secret: [[SEV_GUEST_STATE.LSECRET], SEV_GUEST_STATE.LSECRET],
  finish: [[SEV_GUEST_STATE.LSECRET], SEV_GUEST_STATE.RUNNING],
  decommission: [[1, 2, 3], SEV_GUEST_STATE.UNINIT]
}

const expectInvariants = ({ memory, asids, firmware }: System): void => {
  const guests = HANDLES.flatMap((handle) => firmware.guest(handle) ?? [])
  expect(firmware.state).toBe(guests.length > 0 ? "WORKING" : "INIT")
  const held = guests.map(({ asid }) => asid).filter((asid) => asid !== 0)
  expect(new Set(held).size).toBe(held.length)
  for (const asid of ASIDS) {
    const guest = guests.find((one) => one.asid === asid)
    expect(memory.keys.get(asid)).toEqual(guest?.memoryKey)
    const state = asids.stateOf(asid)
    if (guest === undefined) expect(["clean", "dirty"]).toContain(state)
    else expect(state).toBe(guest.state === "RUNNING" ? "in use" : "allocated")
  }
  for (const { state, policy, asid, digest, measurement, transport } of guests) {
    if (asid !== 0) expect(asid < MIN_SEV_ASID).toBe((policy & SEV_POLICY.ES) !== 0)
    expect([digest !== null, measurement !== null]).toEqual([state !== "LUPDATE", state !== "LUPDATE"])
    expect(transport === null).toBe(state === "RUNNING")
  }
}

/** What must have been answered for the run to mean anything. */
const REACHED: { readonly [name in Command[0]]: ReadonlyArray<Status> } = {
  start: ["SUCCESS", "RESOURCE_LIMIT"],
  share: ["SUCCESS", "INVALID_GUEST", "POLICY_FAILURE", "RESOURCE_LIMIT"],
  activate: ["SUCCESS", "INVALID_GUEST", "INVALID_ASID", "ASID_OWNED", "ACTIVE", "DFFLUSH_REQUIRED"],
  deactivate: ["SUCCESS", "INVALID_PLATFORM_STATE", "INVALID_GUEST", "INACTIVE"],
  data: ["SUCCESS", "INVALID_GUEST", "INVALID_GUEST_STATE", "INACTIVE", "INVALID_LEN"],
  vmsa: ["SUCCESS", "INVALID_LEN", "INVALID_GUEST_STATE", "UNSUPPORTED", "INACTIVE", "RESOURCE_LIMIT"],
  measure: ["SUCCESS", "INVALID_GUEST", "INVALID_GUEST_STATE", "INVALID_LEN"],
  secret: ["SUCCESS", "INVALID_GUEST", "INVALID_ADDRESS", "INVALID_GUEST_STATE", "INACTIVE", "BAD_MEASUREMENT"],
  finish: ["SUCCESS", "INVALID_GUEST", "INVALID_GUEST_STATE"],
  decrypt: ["SUCCESS", "INVALID_LEN", "INVALID_GUEST", "POLICY_FAILURE", "INACTIVE"],
  encrypt: ["SUCCESS", "INVALID_LEN", "INVALID_GUEST", "POLICY_FAILURE", "INACTIVE"],
  decommission: ["SUCCESS", "INVALID_GUEST", "ACTIVE"],
  wbinvd: ["SUCCESS"],
  flush: ["SUCCESS", "WBINVD_REQUIRED"]
}

describe("any sequence of commands of the SEV API", () => {
  it("keeps guests, ASIDs and keys in step, and changes nothing when it is refused", () => {
    const reached = new Set<string>()
    fc.assert(
      fc.property(sequences, (sequence) => {
        const system = makeSystem()
        for (const command of sequence) {
          const [name, handle] = command
          const before = look(system)
          const { state } = system.firmware.guestStatus(handle)
          const status = execute(system, command)
          reached.add(`${name}: ${status}`)
          // A DF_FLUSH that is refused has cleaned the caches that were written back; a VMSA without room was measured.
          const changes = status === "SUCCESS" || name === "flush" || (name === "vmsa" && status === "RESOURCE_LIMIT")
          if (!changes) expect(look(system)).toBe(before)
          const next = NEXT[name]
          const after = system.firmware.guestStatus(handle).state
          if (status === "SUCCESS" && next !== undefined) {
            expect(next[0]).toContain(state)
            expect(after).toBe(next[1])
          } else if (name !== "start" && name !== "share") expect(after).toBe(state)
          expectInvariants(system)
        }
      }),
      { seed: 5, numRuns: 300 }
    )
    const wanted = Object.entries(REACHED).flatMap(([name, all]) => all.map((status) => `${name}: ${status}`))
    expect(wanted.filter((one) => !reached.has(one))).toEqual([])
  })
})
