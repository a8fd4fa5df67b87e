import {
  ACCESS_VARIABLE,
  EFI_STATUS,
  EFI_VARIABLE,
  type Variable,
  type VariableDriver,
  type VariableName,
  variablesBody
} from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import {
  builtInFirmware,
  DEFAULT_SCENARIO,
  GuestMachine,
  Machine,
  serviceGuest,
  svsmLaunch,
  uefiVariableJobs
} from "@vmpl-lab/lab"
import { GUEST_BUFFER_COST, SVSM_BEHAVIOURS, type SvsmBehaviour, UEFI_MM_COST, uefiMm } from "@vmpl-lab/svsm"
import type { Program } from "@vmpl-lab/vmpl"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { profile } from "../support/guestRun.ts"

const { NON_VOLATILE, BOOTSERVICE_ACCESS, RUNTIME_ACCESS, APPEND_WRITE } = EFI_VARIABLE
const { SUCCESS, NOT_FOUND, WRITE_PROTECTED, ACCESS_DENIED, BUFFER_TOO_SMALL } = EFI_STATUS
const OWNER = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
const BOOT: Variable = {
  name: "Boot0001",
  guid: OWNER,
  attributes: NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS,
  // More than a page: the message crosses two.
  data: new Uint8Array(6000).map((_, i) => i)
}
const SETUP: Variable = { name: "Setup", guid: OWNER, attributes: BOOTSERVICE_ACCESS, data: Uint8Array.of(1, 2, 3) }
const PAGES = 16

/** What a firmware does with variables until its operating system runs; each step's outcome. */
function* firmware(driver: VariableDriver, seen: Array<unknown>): Program {
  const set = function* (variable: Variable): Program<number> {
    return (yield* driver.setVariable(variable)).status
  }
  const get = function* (name: VariableName, room: number): Program<string> {
    const { status, size, data } = yield* driver.getVariable(name, room)
    return `${status}: ${size}, ${Buffer.from(data).toString("hex").slice(0, 24)}`
  }
  seen.push(yield* set(BOOT), yield* set(SETUP))
  const room = (yield* driver.payloadSize())! - ACCESS_VARIABLE.name - 2 * (BOOT.name.length + 1)
  expect(room).toBeGreaterThan(BOOT.data.length)
  seen.push(yield* get(BOOT, 4), yield* get(BOOT, room), yield* get(SETUP, 3))
  const names = yield* driver.names(64)
  seen.push(names.map(({ name }) => name))
  const before = yield* driver.queryInfo(BOOT.attributes)
  seen.push(before.status, before.maxStorage - before.remainingStorage > BOOT.data.length)
  seen.push((yield* driver.lock(BOOT)).status, yield* driver.endOfDxe())
  seen.push(yield* set({ ...BOOT, data: Uint8Array.of(9) }), (yield* driver.exitBootServices()).status)
  seen.push(yield* get(BOOT, room), yield* get(SETUP, 3))
}

const PATTERN = Buffer.from(BOOT.data).toString("hex").slice(0, 24)
const expected = (behaviour: SvsmBehaviour): ReadonlyArray<unknown> => {
  const isCoconut = behaviour === "coconut"
  return [
    SUCCESS,
    SUCCESS,
    `${BUFFER_TOO_SMALL}: 6000, `,
    `${SUCCESS}: 6000, ${PATTERN}`,
    `${SUCCESS}: 3, 010203`,
    [
      ...["SetupMode", "SecureBoot", "SignatureSupport", "Setup", "CustomMode"],
      ...(isCoconut ? ["FB_NO_REBOOT"] : []),
      "Boot0001"
    ],
    SUCCESS,
    true,
    SUCCESS,
    SUCCESS,
    WRITE_PROTECTED,
    SUCCESS,
    `${SUCCESS}: 6000, ${PATTERN}`,
    // Nothing was read: the sizes are those that were asked with.
    `${isCoconut ? ACCESS_DENIED : NOT_FOUND}: 3, `
  ]
}

type Use = Parameters<typeof variablesBody>[0]["use"]

/** Runs a guest whose vCPUs use variables, to its end. */
const runGuest = (strategy: Strategy, behaviour: SvsmBehaviour, vcpus: number, use: Use): Machine => {
  const svsm = svsmLaunch(builtInFirmware(), vcpus, { behaviour })
  const machine = new Machine({
    strategy,
    scenario: { ...DEFAULT_SCENARIO, vcpus, calls: 0, boots: 1 },
    profile,
    seed: 1,
    calls: true,
    svsm,
    services: [uefiMm()],
    body: variablesBody({ gpa: svsm.heapGpa + 0x10_0000, pages: PAGES, use })
  })
  while (machine.stepMany(50_000));
  expect(machine.failure()).toBe(null)
  return machine
}

const VCPUS = 3
const ROUNDS = 6

/** Each vCPU changes a variable of its own and one of all, and looks at its own between. */
function* contender(driver: VariableDriver, apicId: number, seen: Array<string>): Program {
  const own = { ...BOOT, name: `Own${apicId}` }
  for (let round = 0; round < ROUNDS; round++) {
    const data = new Uint8Array(600).fill(16 * apicId + round)
    yield* driver.setVariable({ ...own, data })
    yield* driver.setVariable({
      ...BOOT,
      name: "All",
      attributes: BOOT.attributes | APPEND_WRITE,
      data: Uint8Array.of(apicId)
    })
    const { status, data: read } = yield* driver.getVariable(own, data.length)
    seen.push(`${apicId} ${status} ${read.length} ${read.every((byte) => byte === 16 * apicId + round)}`)
  }
}

describe.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))("under %s", (_, strategy) => {
  it.each(SVSM_BEHAVIOURS)("a firmware keeps its variables, as %s", (behaviour) => {
    const seen: Array<unknown> = []
    runGuest(strategy, behaviour, 1, (driver) => firmware(driver, seen))
    expect(seen).toEqual(expected(behaviour))
  })

  it("vCPUs at once lose nothing of what any of them has written", () => {
    const seen: Array<string> = []
    let all: Uint8Array = new Uint8Array(0)
    let ended = 0
    runGuest(strategy, "specification", VCPUS, function* (driver, apicId) {
      yield* contender(driver, apicId, seen)
      if (++ended === VCPUS) all = (yield* driver.getVariable({ ...BOOT, name: "All" }, 100)).data
    })
    const good = Array.from({ length: VCPUS }, (_, apicId) => Array<string>(ROUNDS).fill(`${apicId} 0 600 true`))
    expect([...seen].sort()).toEqual(good.flat())
    const times = Array.from({ length: VCPUS }, (_, apicId) => all.filter((byte) => byte === apicId).length)
    expect(times).toEqual(Array(VCPUS).fill(ROUNDS))
    // They were at it at the same time: nobody's rounds are all in one piece.
    expect(Buffer.from(all).toString("hex")).not.toMatch(/(00){6}.*(01){6}.*(02){6}/)
  })

  it("a request's time is the switch, the copies and what the store does", async () => {
    const guest = new GuestMachine({
      ...serviceGuest(strategy).launched,
      profile,
      seed: 1,
      services: [uefiMm()],
      answerers: []
    })
    await Effect.runPromise(guest.boot)
    for (const round of [0, 1]) {
      for (const { name, job } of uefiVariableJobs(guest.buffers)) {
        const outcome = await Effect.runPromise(guest.run(job(round)))
        expect([name, outcome.result]).toEqual([name, 0])
        const service = outcome.ns - outcome.switchNs
        // Three looks at one page: header, message, answer.
        expect(service).toBeGreaterThanOrEqual(3 * GUEST_BUFFER_COST.MAP_PAGE + UEFI_MM_COST.MESSAGE)
        expect(service).toBeLessThan(3 * GUEST_BUFFER_COST.MAP_PAGE + UEFI_MM_COST.MESSAGE + 1_000)
      }
    }
    await Effect.runPromise(guest.end)
  })
})
