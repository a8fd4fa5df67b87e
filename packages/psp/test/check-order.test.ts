import { PAGE_2M, PAGE_4K, PAGES_PER_2M, type PageSize, Rmp } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  AsidTable,
  PAGE_TYPE,
  type PlatformIdentity,
  POLICY,
  SnpFirmware,
  type Status,
  signIdBlock,
  VLEK_STICKS_SIZE,
  wrapVlek
} from "../src/index.ts"
import { sealGuestRequest } from "./guest-message-support.ts"
import { KeyedMemory } from "./support.ts"

const [GCTX, AGENT, OUTPUT, REQUEST, PAGE, STRANGER] = [1, 2, 3, 4, 8, 90] as const
const RMP_FRAME = 100
const LARGE = PAGES_PER_2M
const ASID = 5
const POLICY_OK = POLICY.SMT | POLICY.RESERVED_MUST_BE_ONE
const TCB = { bootLoader: 4, tee: 1, snp: 22, microcode: 72 }

/** The world that a command finds, and what it says. Each default is as it should be. */
const GOOD = {
  reserved: 0,
  initialised: true,
  /** Frame that the command names as the guest's context. */
  gctx: GCTX as number,
  state: "LAUNCH" as "INIT" | "LAUNCH" | "RUNNING",
  active: true,
  imiEn: false,
  policy: POLICY_OK,
  // LAUNCH_START
  agent: null as number | null,
  agentHasAgent: false,
  agentPolicy: POLICY_OK,
  smtEnabled: true,
  // ACTIVATE
  asid: 7,
  otherHasAsid: false,
  asidHasPages: false,
  sockets: 1,
  // LAUNCH_UPDATE
  pfn: PAGE as number,
  pageSize: PAGE_4K as PageSize,
  pageType: PAGE_TYPE.NORMAL as number,
  pageAsid: ASID,
  immutable: true,
  imiPage: false,
  // LAUNCH_FINISH
  ldByte: 0,
  blockPolicy: POLICY_OK,
  idAlgorithm: 1,
  idCurve: 2,
  idSignature: 0,
  authorAlgorithm: 1,
  authorCurve: 2,
  authorSignature: 0,
  // Commands that write what they tell
  outputOffset: 0,
  outputPfn: OUTPUT as number,
  // CONFIG, COMMIT, VLEK_LOAD
  length: null as number | null,
  reportedSnp: 22,
  vlekTcbSnp: 22,
  vlekByte: 0,
  // GUEST_REQUEST
  responsePfn: OUTPUT as number,
  requestPfn: REQUEST as number,
  requestOffset: 0,
  header: {} as Readonly<Record<number, number>>,
  wrongKey: false,
  sequence: 1n,
  version: 1,
  type: 5
}
type World = typeof GOOD

const makeWorld = (world: World) => {
  const layout = { ...new Rmp({ pages: 4 * PAGES_PER_2M }).layout, ownFrames: [{ first: RMP_FRAME, count: 2 }] }
  const rmp = new Rmp({ layout })
  const memory = new KeyedMemory()
  const options = { seed: 1, asids: new AsidTable(), identity: { currentTcb: TCB }, sockets: world.sockets }
  const make = (initialised: boolean, smtEnabled = true) =>
    new SnpFirmware(rmp, memory, { ...options, initialised, smtEnabled })
  if (!world.initialised) return { firmware: make(false), memory }
  const firmware = make(true, world.smtEnabled)
  for (const pfn of [GCTX, AGENT, OUTPUT, 6, 7]) rmp.rmpupdate(pfn, true, PAGE_4K, true, 0, 0)
  for (const gctx of [GCTX, AGENT]) expect(firmware.gctxCreate(gctx)).toBe("SUCCESS")
  if (world.agent === AGENT) {
    const agentPolicy = world.agentHasAgent ? world.agentPolicy | POLICY.MIGRATE_MA : world.agentPolicy
    expect(firmware.gctxCreate(6)).toBe("SUCCESS")
    expect(firmware.launchStart({ gctx: 6, policy: POLICY_OK })).toBe("SUCCESS")
    const migrationAgent = world.agentHasAgent ? 6 : null
    expect(firmware.launchStart({ gctx: AGENT, policy: agentPolicy, migrationAgent })).toBe("SUCCESS")
  }
  if (world.otherHasAsid) {
    expect(firmware.gctxCreate(7)).toBe("SUCCESS")
    expect(firmware.launchStart({ gctx: 7, policy: POLICY_OK })).toBe("SUCCESS")
    expect(firmware.activate(7, world.asid)).toBe("SUCCESS")
  }
  return { firmware, rmp, memory }
}

/** Brings the guest as far as the command wants it, or not. */
const launched = (world: World) => {
  const made = makeWorld(world)
  const { firmware, rmp } = made
  if (rmp === undefined) return made
  if (world.state !== "INIT") {
    expect(firmware.launchStart({ gctx: GCTX, policy: POLICY_OK, imiEn: world.imiEn })).toBe("SUCCESS")
    if (world.active) expect(firmware.activate(GCTX, ASID)).toBe("SUCCESS")
  }
  if (world.state === "RUNNING") expect(firmware.launchFinish({ gctx: GCTX })).toBe("SUCCESS")
  return made
}

interface Violation {
  readonly name: string
  readonly change: Partial<World>
  readonly status: Status
}
const violation = (name: string, change: Partial<World>, status: Status): Violation => ({ name, change, status })

const NOT_INITIALISED = violation("no SNP_INIT", { initialised: false }, "INVALID_PLATFORM_STATE")
const RESERVED = violation("reserved bits", { reserved: 1 }, "INVALID_PARAM")
const NO_CONTEXT = violation("no context", { gctx: STRANGER }, "INVALID_GUEST")

interface Command {
  readonly command: string
  /** What is right for this command beyond GOOD. */
  readonly base?: Partial<World>
  readonly run: (world: World) => Status
  /** In the firmware's order. */
  readonly violations: ReadonlyArray<Violation>
  /** Pairs that can be violated at once: a check that the list is not empty by mistake. */
  readonly pairs: number
}

const ID_SCALAR = 0x1234n
const AUTHOR_SCALAR = 0x5678n

const finish = (world: World): Status => {
  const { firmware } = launched(world)
  const digest = firmware.guest(GCTX)?.digest.value ?? new Uint8Array(48)
  digest[0] = (digest[0] ?? 0) ^ world.ldByte
  const input = { familyId: new Uint8Array(16), imageId: new Uint8Array(16), svn: 1 }
  const { block, auth } = signIdBlock({
    ...input,
    digest,
    policy: world.blockPolicy,
    idKey: ID_SCALAR,
    authorKey: AUTHOR_SCALAR
  })
  auth[0] = world.idAlgorithm
  auth[4] = world.authorAlgorithm
  auth[0x40]! ^= world.idSignature
  auth[0x680]! ^= world.authorSignature
  auth[0x880] = world.authorCurve
  auth[0x240] = world.idCurve
  const { gctx, reserved } = world
  return firmware.launchFinish({ gctx, reserved, idBlock: { block, auth }, authKeyEn: true })
}

const request = (world: World): Status => {
  const { firmware, memory, rmp } = launched(world)
  rmp?.rmpupdate(LARGE, true, PAGE_2M, true, 0, 0)
  const key = firmware.guest(GCTX)?.vmpck[0] ?? new Uint8Array(32)
  const frame = sealGuestRequest({
    key: world.wrongKey ? new Uint8Array(32) : key,
    vmpck: 0,
    sequence: world.sequence,
    type: world.type,
    version: world.version,
    payload: new Uint8Array(0x60),
    header: world.header
  })
  const page = new Uint8Array(PAGE_SIZE)
  page.set(frame.subarray(0, PAGE_SIZE - world.requestOffset), world.requestOffset)
  memory.writePlain(world.requestPfn, page)
  const { gctx, requestPfn, responsePfn, requestOffset } = world
  return firmware.guestRequest({ gctx, requestPfn, responsePfn, requestOffset })
}

const vlekLoad = (world: World): Status => {
  const { firmware } = makeWorld(world)
  const { identity } = firmware
  const tcb = identity.tcbBytes({ ...TCB, snp: world.vlekTcbSnp })
  const root = (of: PlatformIdentity) => of.root("VCEK", of.tcbBytes(of.reportedTcb))
  const wrapped = wrapVlek(root(identity), tcb, new Uint8Array(VLEK_STICKS_SIZE).fill(7), new Uint8Array(12).fill(1))
  wrapped[0x20]! ^= world.vlekByte
  const { length, reserved } = world
  return firmware.vlekLoad({ wrapped, reserved, ...(length === null ? {} : { length }) })
}

const COMMANDS: ReadonlyArray<Command> = [
  {
    command: "LAUNCH_START",
    base: { state: "INIT" },
    run: (world) => {
      const { firmware } = launched(world)
      const { gctx, policy, agent: migrationAgent, reserved } = world
      return firmware.launchStart({ gctx, policy, migrationAgent, reserved })
    },
    violations: [
      RESERVED,
      NOT_INITIALISED,
      NO_CONTEXT,
      violation("guest is launching", { state: "LAUNCH" }, "INVALID_GUEST_STATE"),
      violation("agent is no context", { agent: STRANGER }, "INVALID_GUEST"),
      violation("agent without MIGRATE_MA", { agent: AGENT }, "POLICY_FAILURE"),
      violation(
        "agent has an agent",
        { agent: AGENT, agentHasAgent: true, policy: POLICY_OK | POLICY.MIGRATE_MA },
        "POLICY_FAILURE"
      ),
      violation("bit 17 is zero", { policy: POLICY.SMT }, "POLICY_FAILURE"),
      violation("SMT", { policy: POLICY.RESERVED_MUST_BE_ONE }, "POLICY_FAILURE"),
      violation("newer ABI", { policy: POLICY_OK | 0xffffn }, "POLICY_FAILURE"),
      violation("unknown bit", { policy: POLICY_OK | (1n << 40n) }, "POLICY_FAILURE"),
      violation(
        "single socket, but not the agent",
        { agent: AGENT, policy: POLICY_OK | POLICY.MIGRATE_MA | POLICY.SINGLE_SOCKET },
        "POLICY_FAILURE"
      )
    ],
    pairs: 46
  },
  {
    command: "LAUNCH_UPDATE",
    run: (world) => {
      const { firmware, rmp } = launched(world)
      rmp?.rmpupdate(PAGE, true, PAGE_4K, world.immutable, 0x800, world.pageAsid)
      rmp?.rmpupdate(LARGE, true, PAGE_2M, world.immutable, 0x800, world.pageAsid)
      const { gctx, pfn, pageSize, pageType, imiPage, reserved } = world
      return firmware.launchUpdate({ gctx, pfn, pageSize, pageType, imiPage, reserved })
    },
    violations: [
      RESERVED,
      NOT_INITIALISED,
      NO_CONTEXT,
      violation("page is not Pre-Guest", { immutable: false }, "INVALID_PAGE_STATE"),
      violation("size of the RMP", { pageSize: PAGE_2M }, "INVALID_PAGE_SIZE"),
      violation("inside of 2 MiB", { pfn: LARGE + 1, pageSize: PAGE_2M }, "INVALID_ADDRESS"),
      violation("unknown type", { pageType: 7 }, "INVALID_PARAM"),
      violation("VMSA of 2 MiB", { pfn: LARGE, pageSize: PAGE_2M, pageType: PAGE_TYPE.VMSA }, "INVALID_PAGE_SIZE"),
      violation("guest does not launch", { state: "INIT" }, "INVALID_GUEST_STATE"),
      violation("guest runs", { state: "RUNNING" }, "INVALID_GUEST_STATE"),
      violation("inactive", { active: false }, "INACTIVE"),
      violation("another guest's page", { pageAsid: ASID + 1 }, "INVALID_PAGE_OWNER"),
      violation("no IMI page of an IMI", { imiEn: true }, "INVALID_PARAM")
    ],
    pairs: 71
  },
  {
    command: "LAUNCH_FINISH",
    run: finish,
    violations: [
      RESERVED,
      NOT_INITIALISED,
      NO_CONTEXT,
      violation("guest does not launch", { state: "INIT" }, "INVALID_GUEST_STATE"),
      violation("guest is an IMI", { imiEn: true }, "INVALID_GUEST_STATE"),
      violation("inactive", { active: false }, "INACTIVE"),
      violation("another digest", { ldByte: 1 }, "BAD_MEASUREMENT"),
      violation("another policy", { blockPolicy: POLICY_OK | POLICY.DEBUG }, "POLICY_FAILURE"),
      violation("algorithm of the ID key", { idAlgorithm: 2 }, "INVALID_PARAM"),
      violation("algorithm of the author key", { authorAlgorithm: 2 }, "INVALID_PARAM"),
      violation("curve of the ID key", { idCurve: 1 }, "BAD_SIGNATURE"),
      violation("signature of the block", { idSignature: 1 }, "BAD_SIGNATURE"),
      violation("curve of the author key", { authorCurve: 1 }, "BAD_SIGNATURE"),
      violation("signature of the ID key", { authorSignature: 1 }, "BAD_SIGNATURE")
    ],
    pairs: 91
  },
  {
    command: "DECOMMISSION",
    run: (world) => launched(world).firmware.decommission(world.gctx),
    violations: [NOT_INITIALISED, NO_CONTEXT],
    pairs: 1
  },
  {
    command: "GUEST_STATUS",
    run: (world) => {
      const { outputPfn: statusPfn, outputOffset: statusOffset } = world
      return launched(world).firmware.guestStatus(world.gctx, { statusPfn, statusOffset })
    },
    violations: [
      violation("buffer crosses its page", { outputOffset: PAGE_SIZE - 0x1f }, "INVALID_PARAM"),
      NOT_INITIALISED,
      NO_CONTEXT,
      violation("page is a guest's", { outputPfn: GCTX }, "INVALID_PAGE_STATE"),
      violation("page is the RMP's", { outputPfn: RMP_FRAME }, "INVALID_PAGE_STATE")
    ],
    pairs: 9
  },
  {
    command: "PLATFORM_STATUS",
    run: (world) => {
      const { outputPfn: statusPfn, outputOffset: statusOffset } = world
      return launched(world).firmware.platformStatus({ statusPfn, statusOffset })
    },
    violations: [
      violation("buffer crosses its page", { outputOffset: PAGE_SIZE - 0x1f }, "INVALID_PARAM"),
      violation("page is a guest's", { outputPfn: GCTX }, "INVALID_PAGE_STATE")
    ],
    pairs: 1
  },
  {
    command: "CONFIG",
    run: (world) => {
      const { firmware } = makeWorld(world)
      const { reserved } = world
      return firmware.config({ reportedTcb: firmware.identity.tcbBytes({ ...TCB, snp: world.reportedSnp }), reserved })
    },
    violations: [RESERVED, violation("TCB above the committed one", { reportedSnp: 23 }, "INVALID_PARAM")],
    pairs: 1
  },
  {
    command: "COMMIT",
    run: (world) => makeWorld(world).firmware.commit(world.length ?? undefined),
    violations: [violation("length", { length: 8 }, "INVALID_PARAM")],
    pairs: 0
  },
  {
    command: "VLEK_LOAD",
    run: vlekLoad,
    violations: [
      violation("length", { length: 8 }, "INVALID_PARAM"),
      RESERVED,
      violation("another TCB", { vlekTcbSnp: 21 }, "BAD_SVN"),
      violation("changed", { vlekByte: 1 }, "BAD_MEASUREMENT")
    ],
    pairs: 6
  },
  {
    command: "SNP_GUEST_REQUEST",
    base: { state: "RUNNING" },
    run: request,
    violations: [
      NOT_INITIALISED,
      NO_CONTEXT,
      violation("response page is not Firmware", { responsePfn: GCTX }, "INVALID_PAGE_STATE"),
      violation("request page of 2 MiB", { requestPfn: LARGE }, "INVALID_PAGE_SIZE"),
      violation("guest does not run", { state: "LAUNCH" }, "INVALID_GUEST_STATE"),
      violation("header crosses its page", { requestOffset: PAGE_SIZE - 0x5f }, "INVALID_PARAM"),
      violation("header version", { header: { 49: 2 } }, "INVALID_PARAM"),
      violation("payload crosses its page", { requestOffset: PAGE_SIZE - 0xa0 }, "INVALID_PARAM"),
      violation("VMPCK 4", { header: { 60: 4 } }, "INVALID_PARAM"),
      violation("another key", { wrongKey: true }, "BAD_MEASUREMENT"),
      violation("sequence", { sequence: 3n }, "AEAD_OFLOW"),
      violation("message version", { version: 9 }, "INVALID_PARAM"),
      violation("message type", { type: 0x20 }, "INVALID_PARAM")
    ],
    pairs: 76
  }
]

/** Both at once: not where they are about the same thing, and no guest runs that could not have been launched. */
const bothOf = (good: World, a: Partial<World>, b: Partial<World>): World | null => {
  if (Object.keys(a).some((key) => key in b)) return null
  const both = { ...good, ...a, ...b }
  return both.state === "RUNNING" && (!both.active || both.imiEn) ? null : both
}

describe.each(COMMANDS)("$command", ({ base = {}, run, violations, pairs }) => {
  const good: World = { ...GOOD, ...base }
  it("goes through where nothing is violated", () => {
    expect(run(good)).toBe("SUCCESS")
  })

  it.each(violations)("refuses: $name", ({ change, status }) => {
    expect(run({ ...good, ...change })).toBe(status)
  })

  it("answers with the earlier check where two are violated at once", () => {
    let made = 0
    for (const [i, first] of violations.entries()) {
      for (const second of violations.slice(i + 1)) {
        const both = bothOf(good, first.change, second.change)
        if (both === null) continue
        made++
        const status = run(both)
        expect([first.name, second.name, status]).toEqual([first.name, second.name, first.status])
      }
    }
    expect(made).toBe(pairs)
  })
})

describe("ACTIVATE", () => {
  const run = (world: World): Status => {
    const { firmware, rmp } = makeWorld(world)
    const policy = world.policy
    if (rmp !== undefined && world.state !== "INIT") firmware.launchStart({ gctx: GCTX, policy })
    if (world.asidHasPages) rmp?.rmpupdate(PAGE, true, PAGE_4K, true, 0x800, world.asid)
    return firmware.activate(world.gctx, world.asid)
  }
  const single = { policy: POLICY_OK | POLICY.SINGLE_SOCKET, sockets: 2 }
  const violations = [
    NOT_INITIALISED,
    NO_CONTEXT,
    violation("guest is in INIT", { state: "INIT" }, "INVALID_GUEST_STATE"),
    violation("pages have the ASID", { asidHasPages: true }, "INVALID_CONFIG"),
    violation("two sockets", single, "POLICY_FAILURE"),
    violation("ASID of another", { otherHasAsid: true }, "ASID_OWNED")
  ]
  it("in the firmware's order", () => {
    expect(run(GOOD)).toBe("SUCCESS")
    for (const [i, first] of violations.entries()) {
      expect([first.name, run({ ...GOOD, ...first.change })]).toEqual([first.name, first.status])
      for (const second of violations.slice(i + 1)) {
        const status = run({ ...GOOD, ...second.change, ...first.change })
        expect([first.name, second.name, status]).toEqual([first.name, second.name, first.status])
      }
    }
  })
})
