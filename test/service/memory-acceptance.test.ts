/** The memory acceptance protocol: what it refuses, how far it says that it came, and that it does what lists do. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { ACCEPTANCE, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import {
  builtInFirmware,
  callJob,
  GuestMachine,
  HIGH_RAM_GPA,
  loadProfile,
  pvalidateJob,
  serviceScenario,
  svsmLaunch
} from "@vmpl-lab/lab"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { runWorkload } from "../support/workloadRun.ts"

const PAGE = 0x1000
const REGION = 0x20_0000
const UNCHANGED = SVSM_RESULT.FAIL_BASE + 0x10

const accept = (rcx: number, rdx: number, r8: number) =>
  callJob(ACCEPTANCE.PROTOCOL, ACCEPTANCE.CALL.ACCEPT, { rcx, rdx, r8 })

/** A guest with 4 MiB above 4 GiB, of which the first region is one page of 2 MiB for the host. */
const guest = Effect.gen(function* () {
  const profile = yield* loadProfile("epyc-9654p").pipe(Effect.provide(NodeServices.layer))
  const svsm = svsmLaunch(builtInFirmware(), 1, { highRam: 2 * REGION, isLarge: (region) => region === 0 })
  const [strategy] = STRATEGIES
  const machine = new GuestMachine({
    strategy: strategy!,
    scenario: serviceScenario,
    profile,
    seed: 1,
    svsm,
    services: [],
    answerers: []
  })
  yield* machine.boot
  return machine
})

describe("the memory acceptance protocol", () => {
  it.each<readonly [string, number, number, number, number]>([
    ["a page that is not aligned", HIGH_RAM_GPA + 8, 1, 0, SVSM_RESULT.INVALID_PARAMETER],
    ["a region that is not aligned", HIGH_RAM_GPA + PAGE, 1, 1, SVSM_RESULT.INVALID_PARAMETER],
    ["nothing", HIGH_RAM_GPA, 0, 0, SVSM_RESULT.INVALID_PARAMETER],
    ["units of another size", HIGH_RAM_GPA, 1, 2, SVSM_RESULT.INVALID_PARAMETER],
    ["more than there is", HIGH_RAM_GPA, 1025, 0, SVSM_RESULT.INVALID_ADDRESS],
    ["a range that wraps around", HIGH_RAM_GPA, 0xffff_ffff, 1, SVSM_RESULT.INVALID_ADDRESS],
    ["what is validated already", 0x8000, 1, 0, UNCHANGED]
  ])("refuses %s", async (_, rcx, rdx, r8, expected) => {
    const { result } = await Effect.runPromise(Effect.flatMap(guest, (one) => one.run(accept(rcx, rdx, r8))))
    expect(result).toBe(expected)
  })

  it("refuses the SVSM's own memory, and other calls", async () => {
    const [svsm, call] = await Effect.runPromise(
      Effect.gen(function* () {
        const one = yield* guest
        const { svsm } = one.machine.svsm.parameters
        return [
          yield* one.run(accept(svsm.gpa, 1, 0)),
          yield* one.run(callJob(ACCEPTANCE.PROTOCOL, 1, { rcx: HIGH_RAM_GPA, rdx: 1 }))
        ]
      })
    )
    expect([svsm!.result, call!.result]).toEqual([SVSM_RESULT.INVALID_ADDRESS, SVSM_RESULT.UNSUPPORTED_CALL])
  })

  it("says how far it came when it meets a page that is validated", async () => {
    const outcome = await Effect.runPromise(
      Effect.gen(function* () {
        const one = yield* guest
        const taken = HIGH_RAM_GPA + REGION + 300 * PAGE
        yield* one.run(pvalidateJob(one.buffers[0]!, [{ gpa: taken, validate: true }]))
        return yield* one.run(accept(HIGH_RAM_GPA + REGION, 400, 0))
      })
    )
    expect(outcome).toMatchObject({ result: UNCHANGED, rcx: HIGH_RAM_GPA + REGION + 300 * PAGE, rdx: 100 })
  })
})

describe("a range", () => {
  /** Virtual ns from the first vCPU's start to the last one's end; APs start while others accept already. */
  const spent = (strategy: Strategy, by: "list" | "range"): number => {
    const memoryAcceptance = { mebibytes: 16, entrySize: "4K", by } as const
    const { shares } = runWorkload(strategy, { workload: "memory-acceptance", vcpus: 4, memoryAcceptance }).log
    return Math.max(...shares.map(({ endNs }) => endNs)) - Math.min(...shares.map(({ beginNs }) => beginNs))
  }

  it.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))(
    "holds nobody up who makes a vCPU for longer than a list does under %s: it is the faster one",
    (_name, strategy) => {
      expect(spent(strategy, "range")).toBeLessThan(spent(strategy, "list"))
    }
  )
})
