import { BLOCK, CORE_CALL, type Ghcb, GUEST_VMPL, NOT_SERVED, PROTOCOL, runVmplMsr, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES, strategyName } from "@vmpl-lab/hv-strategies"
import {
  AP_CREATION,
  apCreationInfo1Lo,
  GHCB,
  MSR_GHCB,
  NAE,
  PAGE_SIZE,
  REASON,
  REPLY,
  SEV_FEATURES
} from "@vmpl-lab/sev-es"
import { type Program, pause, rdmsr, readShared, wrmsr } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { type Client, type Guest, runGuestProgram, setUp, setUpAp, startAp } from "../support/guestRun.ts"

/** The host's answer to the latest event, both words whole. */
function* replyOf(ghcb: Ghcb): Program<ReadonlyArray<number>> {
  const words: Array<number> = []
  for (const offset of [GHCB.sw_exit_info_1, GHCB.sw_exit_info_2]) {
    const { lo, hi } = yield readShared(ghcb.gpa + offset, 8)
    words.push(hi, lo)
  }
  return words
}

function* works({ svsm }: Client): Program {
  expect(yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })).toBe(SVSM_RESULT.SUCCESS)
}

const { CREATE, CREATE_ON_INIT, DESTROY } = AP_CREATION
const { MALFORMED_INPUT } = REPLY
const INVALID = [0, MALFORMED_INPUT, 0, REASON.INVALID_INPUT]
const MISSING = [0, MALFORMED_INPUT, 0, REASON.MISSING_INPUT]

interface Request {
  readonly request: number
  readonly vmpl: number
  readonly apicId: number
  readonly vmsaGpa: (guest: Guest) => number
  readonly rax: number
}
const vmsaPage = (guest: Guest): number => guest.page(BLOCK.VMSA, 1)
const request = (fields: Partial<Request>): Request => ({
  request: CREATE,
  vmpl: GUEST_VMPL,
  apicId: 1,
  vmsaGpa: vmsaPage,
  rax: SEV_FEATURES.SNPActive,
  ...fields
})

/** Requests that must be refused, and the host's answer. */
const BAD: ReadonlyArray<readonly [string, Request, ReadonlyArray<number>]> = [
  ["VMPL 4", request({ vmpl: 4 }), INVALID],
  ["VMPL 15", request({ vmpl: 15 }), INVALID],
  ["an APIC ID one past the last", request({ apicId: 2 }), INVALID],
  ["the highest APIC ID", request({ apicId: 0xffff_ffff }), INVALID],
  ["a vCPU id that is no APIC ID", request({ apicId: (GUEST_VMPL << 9) | 1 }), INVALID],
  ["VMPL0 from VMPL2", request({ vmpl: 0 }), INVALID],
  ["VMPL0 from VMPL2, on INIT", request({ vmpl: 0, request: CREATE_ON_INIT }), INVALID],
  ["an unknown request 3", request({ request: 3 }), INVALID],
  ["an unknown request 0xffff", request({ request: 0xffff }), INVALID],
  ["a VMSA not 4 KiB aligned", request({ vmsaGpa: (guest) => vmsaPage(guest) + 8 }), INVALID],
  ["a VMSA that is 2 MiB aligned", request({ vmsaGpa: (guest) => guest.page(0) }), INVALID],
  ["a VMSA past the guest's memory", request({ vmsaGpa: ({ svsm }) => svsm.gpa + svsm.size + PAGE_SIZE }), INVALID],
  ["a VMSA beyond 2^52", request({ vmsaGpa: () => 2 ** 52 + PAGE_SIZE }), INVALID],
  ["a VMSA in a shared page", request({ vmsaGpa: (guest) => guest.page(BLOCK.GHCB) }), INVALID],
  ["no RAX", request({ rax: -1 }), MISSING],
  ["no RAX, on INIT", request({ rax: -1, request: CREATE_ON_INIT }), MISSING],
  ["another injection mode", request({ rax: SEV_FEATURES.SNPActive | SEV_FEATURES.RestrictedInjection }), INVALID]
]

/** AP creation forgets the level's VMSA before it checks the request, as the S1 series does. */
const CLEARS_ON_ERROR: ReadonlySet<string> = new Set([
  "multi-vmpl-vcpu",
  "vcpu-per-vmpl/kernel",
  "vm-per-vmpl/kernel-link"
])

describe.each(STRATEGIES)("under $key $variant a refused", (strategy) => {
  it.each([3, 4, 255])("run VMPL%i is told in both forms, and the guest goes on", (vmpl) => {
    const answers: Array<unknown> = []
    const byMsr = strategy.operations.kernel.runVmplMsr === "response"
    const { failure, finished, machine } = runGuestProgram({
      strategy,
      *boot(guest) {
        const client = yield* setUp(guest)
        guest.machine.log.ready(0)
        for (let twice = 0; twice < 2; twice++) {
          expect(yield* client.ghcb.runVmpl(vmpl)).toBe(false)
          answers.push((yield* replyOf(client.ghcb)).slice(0, 2))
          yield* works(client)
          // Where nothing translates the errno, asking by the MSR protocol ends the guest.
          if (!byMsr) continue
          const msr = yield rdmsr(MSR_GHCB)
          const { lo, hi } = msr
          const error = yield* runVmplMsr(vmpl)
          yield wrmsr(MSR_GHCB, lo, hi)
          answers.push(error !== 0)
          yield* works(client)
        }
      }
    })
    expect({ failure, finished }).toEqual({ failure: null, finished: [0] })
    const round = byMsr ? [[0, MALFORMED_INPUT], true] : [[0, MALFORMED_INPUT]]
    expect(answers).toEqual([...round, ...round])
    // A refusal is no switch: only the calls count.
    const calls = 2 * round.length
    expect([machine.meter.roundTrip.ns.length, machine.meter.oneWay.ns.length]).toEqual([calls, 2 * calls])
  })

  it("run VMPL of the own level is none: the guest goes on at once", () => {
    const { failure, finished } = runGuestProgram({
      strategy,
      *boot(guest) {
        const client = yield* setUp(guest)
        expect(yield* client.ghcb.runVmpl(GUEST_VMPL)).toBe(true)
        yield* works(client)
      }
    })
    expect({ failure, finished }).toEqual({ failure: null, finished: [0] })
  })

  it.each(BAD)("AP creation with %s is malformed input, starts nothing, and a later one works", (_, bad, answer) => {
    let count = 0
    let countThen = -1
    let result = -1
    const { failure, finished } = runGuestProgram({
      strategy,
      vcpus: 2,
      *boot(guest) {
        const client = yield* setUp(guest)
        // The level's features are on record.
        yield* client.ghcb.apCreation(CREATE_ON_INIT, GUEST_VMPL, 1, vmsaPage(guest), SEV_FEATURES.SNPActive)
        const { ghcb } = client
        const info1 = apCreationInfo1Lo(bad.request, bad.vmpl)
        expect(yield* ghcb.event(NAE.SNP_AP_CREATION, info1, bad.apicId, bad.vmsaGpa(guest), bad.rax)).toBe(false)
        expect(yield* replyOf(ghcb)).toEqual(answer)
        for (let i = 0; i < 5; i++) yield* works(client)
        countThen = count
        expect(yield* startAp(guest, client, 1)).toEqual([0, true])
      },
      *ap(guest, apicId) {
        count++
        const { svsm } = yield* setUpAp(guest, apicId)
        result = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
      }
    })
    expect(failure).toBeNull()
    expect([countThen, count]).toEqual([0, 1])
    expect(finished).toEqual(expect.arrayContaining([0, 1]))
    // In the S1 series a refusal leaves the level asked for without a VMSA: nobody at VMPL0 serves this vCPU any more.
    const unserved = bad.vmpl === 0 && CLEARS_ON_ERROR.has(strategyName(strategy))
    expect(result).toBe(unserved ? NOT_SERVED : SVSM_RESULT.SUCCESS)
  })

  it("DESTROY stops the level, and needs no RAX", () => {
    let ticks = 0
    let stopped = -1
    const { failure } = runGuestProgram({
      strategy,
      vcpus: 2,
      *boot(guest) {
        const client = yield* setUp(guest)
        yield* startAp(guest, client, 1)
        while (ticks < 50) yield* works(client)
        expect(yield* client.ghcb.apCreation(DESTROY, GUEST_VMPL, 1, 0, -1)).toBe(true)
        for (let i = 0; i < 20; i++) yield* works(client)
        stopped = ticks
        for (let i = 0; i < 20; i++) yield* works(client)
        expect(ticks).toBe(stopped)
      },
      *ap(guest, apicId) {
        const client = yield* setUpAp(guest, apicId)
        for (;;) {
          yield* works(client)
          ticks++
        }
      }
    })
    expect(failure).toBeNull()
    expect(stopped).toBeGreaterThanOrEqual(50)
  })

  const sleeps = strategy.key === "planes"
  it.skipIf(sleeps)(
    "run VMPL of a level that was destroyed, or refused, before it ever ran is told, and the guest goes on",
    () => {
      const { failure, finished } = runGuestProgram({
        strategy,
        *boot(guest) {
          const client = yield* setUp(guest)
          const { ghcb } = client
          const page = guest.page(BLOCK.VMSA)
          expect(yield* ghcb.apCreation(CREATE_ON_INIT, 3, 0, page, SEV_FEATURES.SNPActive)).toBe(true)
          expect(yield* ghcb.apCreation(DESTROY, 3, 0, 0, -1)).toBe(true)
          for (let i = 0; i < 2; i++) {
            expect(yield* ghcb.runVmpl(3)).toBe(false)
            yield* works(client)
            // The second time by another way: a VMSA with another injection mode.
            expect(yield* ghcb.apCreation(CREATE_ON_INIT, 3, 0, page, SEV_FEATURES.RestrictedInjection | 1)).toBe(false)
          }
        }
      })
      expect({ failure, finished }).toEqual({ failure: null, finished: [0] })
    }
  )

  it("CREATE_ON_INIT starts nothing until its level is asked for", () => {
    let started = false
    const { failure, finished } = runGuestProgram({
      strategy,
      vcpus: 2,
      *boot(guest) {
        const client = yield* setUp(guest)
        expect(yield* client.ghcb.apCreation(CREATE_ON_INIT, GUEST_VMPL, 1, vmsaPage(guest), 1)).toBe(true)
        for (let i = 0; i < 20; i++) yield* works(client)
        expect(started).toBe(false)
      },
      *ap() {
        started = true
        yield pause()
      }
    })
    expect({ failure, finished, started }).toEqual({ failure: null, finished: [0], started: false })
  })
})
