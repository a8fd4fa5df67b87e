import { PAGE_2M, PAGE_4K, PAGES_PER_2M, type PageSize, Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE, SECRETS, VMSA_TWEAK_BITMAP } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  AsidTable,
  LaunchDigest,
  type LaunchUpdate,
  PAGE_TYPE,
  POLICY,
  type PspMemory,
  SnpFirmware,
  type SnpFirmwareOptions,
  STATUS
} from "../src/index.ts"
import { launchedVmsa } from "../src/LaunchPages.ts"

const GCTX = 1
const OTHER_GCTX = 2
const PAGE = 8
const LARGE_PAGE = PAGES_PER_2M
const GFN = 0x800
const ASID = 5
const POLICY_OK = POLICY.SMT | POLICY.RESERVED_MUST_BE_ONE

/** Memory that remembers what the firmware did to it. */
class FakeMemory implements PspMemory {
  readonly plain = new Map<number, Uint8Array>()
  readonly encrypted = new Map<number, { asid: number; contents: Uint8Array }>()
  readonly keys = new Map<number, string>()
  readPlain(pfn: number): Uint8Array {
    return this.plain.get(pfn) ?? new Uint8Array(PAGE_SIZE)
  }
  writePlain(pfn: number, contents: Uint8Array): void {
    this.plain.set(pfn, contents.slice())
  }
  readEncrypted(pfn: number, asid: number): Uint8Array {
    const page = this.encrypted.get(pfn)
    return page?.asid === asid ? page.contents : new Uint8Array(PAGE_SIZE).fill(0xa5)
  }
  writeEncrypted(pfn: number, asid: number, contents: Uint8Array): void {
    if (!this.keys.has(asid)) throw new Error(`ASID ${asid} has no key`)
    this.encrypted.set(pfn, { asid, contents: contents.slice() })
  }
  createKey(asid: number, key: Uint8Array): void {
    this.keys.set(asid, Buffer.from(key).toString("hex"))
  }
  destroyKey(asid: number): void {
    this.keys.delete(asid)
  }
}

const makePlatform = (options: Partial<SnpFirmwareOptions> = {}) => {
  const rmp = new Rmp({ pages: 4 * PAGES_PER_2M })
  const memory = new FakeMemory()
  const firmware = new SnpFirmware(rmp, memory, { seed: 1, ...options })
  rmp.rmpupdate(GCTX, true, PAGE_4K, true, 0, 0)
  rmp.rmpupdate(OTHER_GCTX, true, PAGE_4K, true, 0, 0)
  return { rmp, memory, firmware }
}

/** A guest in LAUNCH without an ASID. */
const makeStarted = (options: Partial<SnpFirmwareOptions> = {}, policy = POLICY_OK) => {
  const platform = makePlatform(options)
  expect(platform.firmware.gctxCreate(GCTX)).toBe("SUCCESS")
  expect(platform.firmware.launchStart({ gctx: GCTX, policy })).toBe("SUCCESS")
  return platform
}

/** A guest in LAUNCH, active, with one 4 KiB and one 2 MiB Pre-Guest page. */
const makeLaunch = () => {
  const platform = makeStarted()
  expect(platform.firmware.activate(GCTX, ASID)).toBe("SUCCESS")
  platform.rmp.rmpupdate(PAGE, true, PAGE_4K, true, GFN, ASID)
  platform.rmp.rmpupdate(LARGE_PAGE, true, PAGE_2M, true, 0x400, ASID)
  const update = (change: Partial<LaunchUpdate> = {}) =>
    platform.firmware.launchUpdate({
      gctx: GCTX,
      pfn: PAGE,
      pageSize: PAGE_4K,
      pageType: PAGE_TYPE.NORMAL,
      ...change
    })
  return { ...platform, update }
}

describe("status table", () => {
  it("has AMD's numbers for the codes that launch uses", () => {
    expect(STATUS).toMatchObject({
      SUCCESS: 0,
      INVALID_GUEST_STATE: 2,
      POLICY_FAILURE: 7,
      INACTIVE: 8,
      ASID_OWNED: 0xc,
      INVALID_GUEST: 0x10,
      ACTIVE: 0x12,
      INVALID_PARAM: 0x16,
      INVALID_PAGE_SIZE: 0x19,
      INVALID_PAGE_STATE: 0x1a,
      INVALID_PAGE_OWNER: 0x1c,
      INVALID_KEY: 0x27
    })
  })
})

describe("GCTX_CREATE", () => {
  it("turns a Firmware page into a Context page with a guest in INIT", () => {
    const { rmp, firmware } = makePlatform()
    expect(firmware.gctxCreate(GCTX)).toBe("SUCCESS")
    expect(rmp.stateOf(GCTX)).toBe("Context")
    expect(firmware.guest(GCTX)?.state).toBe("INIT")
  })

  it("refuses pages in other states, and a second context in the same page", () => {
    const { firmware } = makePlatform()
    expect(firmware.gctxCreate(PAGE)).toBe("INVALID_PAGE_STATE")
    firmware.gctxCreate(GCTX)
    expect(firmware.gctxCreate(GCTX)).toBe("INVALID_PAGE_STATE")
  })

  it("refuses a 2 MiB page, whole or any part of it", () => {
    const { rmp, firmware } = makePlatform()
    rmp.rmpupdate(LARGE_PAGE, true, PAGE_2M, true, 0, 0)
    expect(firmware.gctxCreate(LARGE_PAGE)).toBe("INVALID_PAGE_SIZE")
    expect(firmware.gctxCreate(LARGE_PAGE + 3)).toBe("INVALID_PAGE_SIZE")
  })

  it("answers INVALID_PLATFORM_STATE before SNP_INIT", () => {
    const { firmware } = makePlatform({ initialised: false })
    expect(firmware.gctxCreate(GCTX)).toBe("INVALID_PLATFORM_STATE")
    expect(firmware.launchFinish({ gctx: GCTX })).toBe("INVALID_PLATFORM_STATE")
    expect(firmware.decommission(GCTX)).toBe("INVALID_PLATFORM_STATE")
  })
})

describe("LAUNCH_START", () => {
  it.each<readonly [string, bigint, Partial<SnpFirmwareOptions>, string]>([
    ["plain", POLICY_OK, {}, "SUCCESS"],
    ["bit 17 zero", POLICY.SMT, {}, "POLICY_FAILURE"],
    ["SMT forbidden, SMT on", POLICY.RESERVED_MUST_BE_ONE, {}, "POLICY_FAILURE"],
    ["SMT forbidden, SMT off", POLICY.RESERVED_MUST_BE_ONE, { smtEnabled: false }, "SUCCESS"],
    ["the firmware's own ABI", POLICY_OK | 0x0137n, {}, "SUCCESS"],
    ["newer minor", POLICY_OK | 0x0138n, {}, "POLICY_FAILURE"],
    ["newer major", POLICY_OK | 0x0200n, {}, "POLICY_FAILURE"],
    ["older major, larger minor", POLICY_OK | 0x00ffn, {}, "SUCCESS"],
    ["debug", POLICY_OK | POLICY.DEBUG, {}, "SUCCESS"],
    ["unknown bit 21", POLICY_OK | (1n << 21n), {}, "POLICY_FAILURE"],
    [
      "AES-256-XTS that the platform can do",
      POLICY_OK | POLICY.MEM_AES_256_XTS,
      { policyFeatures: POLICY.MEM_AES_256_XTS },
      "SUCCESS"
    ],
    [
      "AES-256-XTS that it cannot do",
      POLICY_OK | POLICY.MEM_AES_256_XTS,
      { policyFeatures: POLICY.RAPL_DIS },
      "POLICY_FAILURE"
    ],
    ["CXL, RAPL off, ciphertext hiding", POLICY_OK | (0b1101n << 21n), { policyFeatures: 0b1111n << 21n }, "SUCCESS"],
    ["page swap disabled, ABI 1.57", POLICY_OK | POLICY.PAGE_SWAP_DISABLE, { abiMinor: 57 }, "POLICY_FAILURE"],
    ["page swap disabled, ABI 1.58", POLICY_OK | POLICY.PAGE_SWAP_DISABLE, { abiMinor: 58 }, "SUCCESS"],
    ["page swap disabled, ABI 2.0", POLICY_OK | POLICY.PAGE_SWAP_DISABLE, { abiMajor: 2, abiMinor: 0 }, "SUCCESS"],
    ["bit 26, whatever the features", POLICY_OK | (1n << 26n), { abiMinor: 58, policyFeatures: -1n }, "POLICY_FAILURE"],
    ["unknown bit 63", POLICY_OK | (1n << 63n), {}, "POLICY_FAILURE"]
  ])("policy: %s", (_name, policy, options, status) => {
    const { firmware } = makePlatform(options)
    firmware.gctxCreate(GCTX)
    expect(firmware.launchStart({ gctx: GCTX, policy })).toBe(status)
    expect(firmware.guest(GCTX)?.state).toBe(status === "SUCCESS" ? "LAUNCH" : "INIT")
  })

  it("wants a context, and only once", () => {
    const { firmware } = makePlatform()
    expect(firmware.launchStart({ gctx: GCTX, policy: POLICY_OK })).toBe("INVALID_GUEST")
    firmware.gctxCreate(GCTX)
    firmware.launchStart({ gctx: GCTX, policy: POLICY_OK })
    expect(firmware.launchStart({ gctx: GCTX, policy: POLICY_OK })).toBe("INVALID_GUEST_STATE")
  })

  it("binds a migration agent only if the policy lets it", () => {
    const { firmware } = makePlatform()
    firmware.gctxCreate(GCTX)
    const start = (policy: bigint) => firmware.launchStart({ gctx: GCTX, policy, migrationAgent: OTHER_GCTX })
    expect(start(POLICY_OK | POLICY.MIGRATE_MA)).toBe("INVALID_GUEST")
    firmware.gctxCreate(OTHER_GCTX)
    firmware.launchStart({ gctx: OTHER_GCTX, policy: POLICY_OK })
    expect(start(POLICY_OK)).toBe("POLICY_FAILURE")
    expect(start(POLICY_OK | POLICY.MIGRATE_MA | POLICY.SINGLE_SOCKET)).toBe("POLICY_FAILURE")
    expect(start(POLICY_OK | POLICY.MIGRATE_MA)).toBe("SUCCESS")
    expect(firmware.guest(GCTX)?.reportIdMa).toEqual(firmware.guest(OTHER_GCTX)?.reportId)
    expect(firmware.guest(OTHER_GCTX)?.reportIdMa).toEqual(new Uint8Array(32).fill(0xff))
  })
})

describe("ACTIVATE", () => {
  it("comes after LAUNCH_START and gives the ASID a key", () => {
    const { firmware, memory } = makePlatform()
    firmware.gctxCreate(GCTX)
    expect(firmware.activate(GCTX, ASID)).toBe("INVALID_GUEST_STATE")
    firmware.launchStart({ gctx: GCTX, policy: POLICY_OK })
    expect(firmware.activate(GCTX, ASID)).toBe("SUCCESS")
    expect(memory.keys.has(ASID)).toBe(true)
  })

  it("refuses a bad ASID, a taken ASID and a second ASID, in this order", () => {
    const { firmware } = makeStarted()
    firmware.activate(GCTX, ASID)
    for (const asid of [0, -1, 1.5, 1007]) expect(firmware.activate(GCTX, asid)).toBe("INVALID_ASID")
    expect(firmware.activate(GCTX, ASID)).toBe("ASID_OWNED")
    expect(firmware.activate(GCTX, ASID + 1)).toBe("ACTIVE")
  })

  it.each<readonly [string, number, PageSize, number]>([
    ["4 KiB", PAGE, PAGE_4K, GFN],
    ["2 MiB", LARGE_PAGE, PAGE_2M, 0x400]
  ])("refuses an ASID that has a %s page already, before all other reasons", (_name, pfn, size, gfn) => {
    const { firmware, rmp } = makeStarted({ sockets: 2 }, POLICY_OK | POLICY.SINGLE_SOCKET)
    rmp.rmpupdate(pfn, true, size, false, gfn, ASID)
    expect(firmware.activate(GCTX, ASID)).toBe("INVALID_CONFIG")
    expect(firmware.activate(GCTX, ASID + 1)).toBe("POLICY_FAILURE")
    rmp.rmpupdate(pfn, false, size, false, 0, 0)
    expect(firmware.activate(GCTX, ASID)).toBe("POLICY_FAILURE")
  })

  it("keeps SNP guests below the first ASID of plain SEV", () => {
    const { firmware } = makeStarted({ asids: new AsidTable({ maxAsid: 20, minSevAsid: 10 }) })
    expect(firmware.activate(GCTX, 10)).toBe("INVALID_ASID")
    expect(firmware.activate(GCTX, 21)).toBe("INVALID_ASID")
    expect(firmware.activate(GCTX, 9)).toBe("SUCCESS")
  })

  it("refuses a single-socket guest on two sockets", () => {
    const { firmware } = makePlatform({ sockets: 2 })
    firmware.gctxCreate(GCTX)
    firmware.launchStart({ gctx: GCTX, policy: POLICY_OK | POLICY.SINGLE_SOCKET })
    expect(firmware.activate(GCTX, ASID)).toBe("POLICY_FAILURE")
  })
})

describe("LAUNCH_UPDATE", () => {
  it("measures at the gPA of the RMP entry, encrypts, and hands the page over", () => {
    const { firmware, memory, rmp, update } = makeLaunch()
    const page = new Uint8Array(PAGE_SIZE).fill(7)
    memory.plain.set(PAGE, page)
    expect(update({ vmplPerms: [3, 1, 0] })).toBe("SUCCESS")
    const expected = new LaunchDigest()
    expected.update(PAGE_TYPE.NORMAL, GFN * PAGE_SIZE, page, [3, 1, 0])
    expect(firmware.guest(GCTX)?.digest.value).toEqual(expected.value)
    expect(memory.encrypted.get(PAGE)).toEqual({ asid: ASID, contents: page })
    expect(rmp.stateOf(PAGE)).toBe("Guest-Valid")
    expect(rmp.entry(PAGE)).toMatchObject({ vmsa: false, gfn: GFN, asid: ASID })
    expect(rmp.entry(PAGE).perms.slice(1)).toEqual([3, 1, 0])
    expect(rmp.entry(PAGE).perms[0]).not.toBe(0)
    expect(update()).toBe("INVALID_PAGE_STATE")
  })

  it("marks a VMSA page in the RMP", () => {
    const { rmp, update } = makeLaunch()
    expect(update({ pageType: PAGE_TYPE.VMSA })).toBe("SUCCESS")
    expect(rmp.entry(PAGE).vmsa).toBe(true)
  })

  it("zeroes a ZERO page whatever the host left there", () => {
    const { memory, update } = makeLaunch()
    memory.plain.set(PAGE, new Uint8Array(PAGE_SIZE).fill(0xee))
    expect(update({ pageType: PAGE_TYPE.ZERO })).toBe("SUCCESS")
    expect(memory.encrypted.get(PAGE)?.contents).toEqual(new Uint8Array(PAGE_SIZE))
  })

  it("builds the secrets page with the keys of the guest context", () => {
    const { firmware, memory, update } = makeLaunch()
    memory.plain.set(PAGE, new Uint8Array(PAGE_SIZE).fill(0xee))
    expect(update({ pageType: PAGE_TYPE.SECRETS })).toBe("SUCCESS")
    const page = memory.encrypted.get(PAGE)?.contents ?? new Uint8Array()
    const view = new DataView(page.buffer)
    expect(view.getUint32(SECRETS.version, true)).toBe(3)
    expect(view.getUint32(SECRETS.fms, true)).toBe(0xa10f10)
    expect(view.getUint32(SECRETS.tsc_factor, true)).toBe(200)
    const offsets = [SECRETS.vmpck0, SECRETS.vmpck1, SECRETS.vmpck2, SECRETS.vmpck3]
    for (const [level, offset] of offsets.entries()) {
      expect(page.slice(offset, offset + 32)).toEqual(firmware.guest(GCTX)?.vmpck[level])
    }
    expect(Array.from(page.slice(SECRETS.vmsa_tweak_bitmap, SECRETS.svsm_base))).toEqual(VMSA_TWEAK_BITMAP)
    for (const [from, to] of [
      [SECRETS.guest_usage, SECRETS.vmsa_tweak_bitmap],
      [SECRETS.svsm_base, SECRETS.tsc_factor]
    ]) {
      expect(page.slice(from, to).every((byte) => byte === 0)).toBe(true)
    }
  })

  it("launches a VMSA without an integrity value, under VmsaRegProt with a nonce on its registers", () => {
    const { memory, update } = makeLaunch()
    const RAX = 0x1f8
    const launched = (features: number): DataView => {
      const page = new Uint8Array(PAGE_SIZE)
      const view = new DataView(page.buffer)
      view.setUint32(0x3b0, features, true)
      view.setUint32(RAX, 0x1234, true)
      expect(Buffer.from(launchedVmsa(page, 0x1111_2222_3333_4444n)).length).toBe(PAGE_SIZE)
      return new DataView(launchedVmsa(page, 0x1111_2222_3333_4444n).buffer)
    }
    const plain = launched(1)
    expect([plain.getUint32(RAX, true), plain.getBigUint64(0x300, true)]).toEqual([0x1234, 0n])
    expect([plain.getBigUint64(0x380, true), plain.getBigInt64(0x388, true)]).toEqual([0n, -1n])
    const tweaked = launched(0x4001)
    expect(tweaked.getBigUint64(0x300, true)).toBe(0x1111_2222_3333_4444n)
    expect(tweaked.getBigUint64(RAX, true)).toBe(0x1111_2222_3333_4444n ^ 0x1234n)
    // EFER is not among the registers that are XORed.
    expect(tweaked.getBigUint64(0xd0, true)).toBe(0n)
    memory.plain.set(PAGE, new Uint8Array(PAGE_SIZE))
    expect(update({ pageType: PAGE_TYPE.VMSA })).toBe("SUCCESS")
    const contents = memory.encrypted.get(PAGE)!.contents
    expect(new DataView(contents.buffer).getBigInt64(0x388, true)).toBe(-1n)
  })

  it.each<readonly [string, number, number, string]>([
    ["64 functions", 0, 64, "SUCCESS"],
    ["65 functions", 0, 65, "INVALID_PARAM"],
    ["count 2^32 - 1", 0, 0xffff_ffff, "INVALID_PARAM"],
    ["reserved u32", 4, 1, "INVALID_PARAM"],
    ["reserved u64, last byte", 12, 0x0100_0000, "INVALID_PARAM"]
  ])("CPUID page: %s", (_name, offset, value, status) => {
    const { firmware, memory, rmp, update } = makeLaunch()
    const page = new Uint8Array(PAGE_SIZE)
    new DataView(page.buffer).setUint32(offset, value, true)
    memory.plain.set(PAGE, page)
    const before = firmware.guest(GCTX)?.digest.value
    expect(update({ pageType: PAGE_TYPE.CPUID })).toBe(status)
    expect(rmp.stateOf(PAGE)).toBe(status === "SUCCESS" ? "Guest-Valid" : "Pre-Guest")
    if (status !== "SUCCESS") expect(firmware.guest(GCTX)?.digest.value).toEqual(before)
  })

  it.each(["NORMAL", "ZERO", "UNMEASURED"] as const)("measures a 2 MiB %s page as 512 steps", (type) => {
    const { firmware, memory, rmp, update } = makeLaunch()
    const expected = new LaunchDigest()
    for (let i = 0; i < PAGES_PER_2M; i++) {
      const page = new Uint8Array(PAGE_SIZE).fill(i & 0xff)
      memory.plain.set(LARGE_PAGE + i, page)
      expected.update(PAGE_TYPE[type], (0x400 + i) * PAGE_SIZE, page)
    }
    expect(update({ pfn: LARGE_PAGE, pageSize: PAGE_2M, pageType: PAGE_TYPE[type] })).toBe("SUCCESS")
    expect(firmware.guest(GCTX)?.digest.value).toEqual(expected.value)
    expect(memory.encrypted.size).toBe(PAGES_PER_2M)
    expect(rmp.stateOf(LARGE_PAGE)).toBe("Guest-Valid")
    expect(rmp.stateOf(LARGE_PAGE + 511)).toBe("Guest-Valid")
  })

  it.each<readonly [string, Partial<LaunchUpdate>, string]>([
    ["permission byte above 0xff", { vmplPerms: [0x100, 0, 0] }, "INVALID_PARAM"],
    ["no context", { gctx: OTHER_GCTX }, "INVALID_GUEST"],
    ["no context before bad page", { gctx: OTHER_GCTX, pfn: 99 }, "INVALID_GUEST"],
    ["hypervisor page", { pfn: 99 }, "INVALID_PAGE_STATE"],
    ["2M command, 4K page", { pageSize: PAGE_2M }, "INVALID_PAGE_SIZE"],
    ["4K command, 2M page", { pfn: LARGE_PAGE }, "INVALID_PAGE_SIZE"],
    ["4K command, inside a 2M page", { pfn: LARGE_PAGE + 1 }, "INVALID_PAGE_SIZE"],
    ["2M command, inside a 2M page", { pfn: LARGE_PAGE + 1, pageSize: PAGE_2M }, "INVALID_ADDRESS"],
    ["type 0", { pageType: 0 }, "INVALID_PARAM"],
    ["type 7", { pageType: 7 }, "INVALID_PARAM"],
    ["2M VMSA", { pfn: LARGE_PAGE, pageSize: PAGE_2M, pageType: PAGE_TYPE.VMSA }, "INVALID_PAGE_SIZE"],
    ["2M SECRETS", { pfn: LARGE_PAGE, pageSize: PAGE_2M, pageType: PAGE_TYPE.SECRETS }, "INVALID_PAGE_SIZE"],
    ["2M CPUID", { pfn: LARGE_PAGE, pageSize: PAGE_2M, pageType: PAGE_TYPE.CPUID }, "INVALID_PAGE_SIZE"]
  ])("refuses: %s", (_name, change, status) => {
    const { memory, update } = makeLaunch()
    expect(update(change)).toBe(status)
    expect(memory.encrypted.size).toBe(0)
  })

  it("refuses a page of another ASID", () => {
    const { rmp, update } = makeLaunch()
    rmp.rmpupdate(PAGE + 1, true, PAGE_4K, true, GFN, ASID + 1)
    expect(update({ pfn: PAGE + 1 })).toBe("INVALID_PAGE_OWNER")
  })

  it("refuses before LAUNCH_START, before ACTIVATE, after LAUNCH_FINISH", () => {
    const { firmware, rmp } = makePlatform()
    rmp.rmpupdate(PAGE, true, PAGE_4K, true, GFN, ASID)
    const command = { gctx: GCTX, pfn: PAGE, pageSize: PAGE_4K, pageType: PAGE_TYPE.NORMAL } as const
    firmware.gctxCreate(GCTX)
    expect(firmware.launchUpdate(command)).toBe("INVALID_GUEST_STATE")
    firmware.launchStart({ gctx: GCTX, policy: POLICY_OK })
    expect(firmware.launchUpdate(command)).toBe("INACTIVE")
    expect(firmware.launchFinish({ gctx: GCTX })).toBe("INACTIVE")
    expect(firmware.activate(GCTX, ASID + 1)).toBe("SUCCESS")
    firmware.launchFinish({ gctx: GCTX })
    expect(firmware.launchUpdate(command)).toBe("INVALID_GUEST_STATE")
  })
})

describe("LAUNCH_FINISH and DECOMMISSION", () => {
  it("binds host data and lets the guest run, once", () => {
    const { firmware } = makeLaunch()
    const hostData = new Uint8Array(32).fill(4)
    expect(firmware.launchFinish({ gctx: GCTX, hostData, vcekDis: true })).toBe("SUCCESS")
    expect(firmware.guest(GCTX)).toMatchObject({ state: "RUNNING", hostData, vcekDis: true })
    expect(firmware.launchFinish({ gctx: GCTX })).toBe("INVALID_GUEST_STATE")
  })

  it("destroys the key, frees the ASID and the page; the next guest has other keys", () => {
    const { firmware, memory, rmp } = makeStarted()
    firmware.activate(GCTX, ASID)
    const oldKey = memory.keys.get(ASID)
    expect(firmware.decommission(GCTX)).toBe("SUCCESS")
    expect(memory.keys.size).toBe(0)
    expect(rmp.stateOf(GCTX)).toBe("Firmware")
    expect(firmware.decommission(GCTX)).toBe("INVALID_GUEST")
    firmware.gctxCreate(GCTX)
    firmware.launchStart({ gctx: GCTX, policy: POLICY_OK })
    expect(firmware.activate(GCTX, ASID)).toBe("SUCCESS")
    expect(memory.keys.get(ASID)).not.toBe(oldKey)
  })

  it("leaves the ASID of a guest that ran in need of WBINVD on every core and a DF_FLUSH", () => {
    const asids = new AsidTable({ cores: 2, coresPerCcx: 1 })
    const { firmware } = makeStarted({ asids })
    const next = () => {
      firmware.gctxCreate(OTHER_GCTX)
      firmware.launchStart({ gctx: OTHER_GCTX, policy: POLICY_OK })
      return firmware.activate(OTHER_GCTX, ASID)
    }
    firmware.activate(GCTX, ASID)
    expect(asids.stateOf(ASID)).toBe("allocated")
    firmware.launchFinish({ gctx: GCTX })
    expect(asids.stateOf(ASID)).toBe("in use")
    firmware.decommission(GCTX)
    expect(asids.stateOf(ASID)).toBe("dirty")
    expect(next()).toBe("DFFLUSH_REQUIRED")
    expect(firmware.dfFlush()).toBe("WBINVD_REQUIRED")
    firmware.wbinvdDone(0)
    expect(firmware.dfFlush()).toBe("WBINVD_REQUIRED")
    expect(firmware.activate(OTHER_GCTX, ASID)).toBe("DFFLUSH_REQUIRED")
    firmware.wbinvdDone(1)
    expect(firmware.activate(OTHER_GCTX, ASID)).toBe("DFFLUSH_REQUIRED")
    expect(firmware.dfFlush()).toBe("SUCCESS")
    expect(firmware.activate(OTHER_GCTX, ASID)).toBe("SUCCESS")
  })

  it("derives the same keys from the same seed, and all keys differ", () => {
    const keysOf = (seed: number): ReadonlyArray<string> => {
      const { firmware } = makePlatform({ seed })
      firmware.gctxCreate(GCTX)
      firmware.gctxCreate(OTHER_GCTX)
      return [GCTX, OTHER_GCTX].flatMap((gctx) => {
        const guest = firmware.guest(gctx)!
        return [...guest.vmpck, guest.memoryKey, guest.vmrk, guest.reportId].map((key) =>
          Buffer.from(key).toString("hex")
        )
      })
    }
    expect(keysOf(1)).toEqual(keysOf(1))
    expect(new Set([...keysOf(1), ...keysOf(2)]).size).toBe(28)
  })
})
