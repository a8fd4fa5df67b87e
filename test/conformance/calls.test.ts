import { BLOCK, CORE_CALL, PROTOCOL, pvalidateList, type Ring } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { MSR_GHCB, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { IMAGE } from "@vmpl-lab/svsm"
import { OP, type Program, rdmsr, readRegister, writeBytes } from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Client, type Guest, runGuestProgram, setUp, setUpAp, startAp } from "../support/guestRun.ts"
import { OTHERS, readAll, type Values, writeAll } from "../support/registers.ts"
import { replaced, svsmBase, traced, wrapProgram } from "../support/wrapped.ts"

const RINGS: ReadonlyArray<Ring> = ["page", "msr"]

/** In R8 with the caller's APIC ID: one of the calls that a test counts. */
const MARK = 0x100

describe.each(STRATEGIES)("calls under $key $variant", (strategy) => {
  it.each(RINGS)("are served once each and in order, rung by %s", (ring) => {
    const calls = 60
    const served: Array<number> = []
    const answers: Array<ReadonlyArray<number>> = []
    const { failure, finished, machine } = runGuestProgram({
      strategy,
      ring,
      prepare: (machine) => {
        const base = svsmBase(machine)
        // The SVSM reads R8 of the guest's VMSA once for each call that it takes up; the guest numbers its calls there.
        wrapProgram(machine, base + IMAGE.BOOT_ENTRY, (program) =>
          traced(program, ({ op, address }, { lo }) => {
            if (op === OP.READ && address === base + IMAGE.GUEST_VMSA + VMSA.r8) served.push(lo)
          })
        )
      },
      *boot(guest) {
        const { svsm } = yield* setUp(guest)
        served.length = 0
        guest.machine.log.ready(0)
        for (let number = 0; number < calls; number++) {
          const version = 1 + (number % 2)
          const result = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: version, r8: number })
          const rcx = yield readRegister(VMSA.rcx)
          answers.push([number, result, rcx.hi, rcx.lo])
          expect((yield readRegister(VMSA.r8)).lo).toBe(number)
        }
      }
    })
    expect({ failure, finished }).toEqual({ failure: null, finished: [0] })
    const numbers = Array.from({ length: calls }, (_, number) => number)
    expect(served).toEqual(numbers)
    // Version 1 of the core protocol is there, version 2 is not.
    expect(answers).toEqual(numbers.map((n) => (n % 2 === 0 ? [n, 0, 1, 1] : [n, 0, 0, 0])))
    expect(machine.meter.roundTrip.ns).toHaveLength(calls)
    expect(machine.meter.oneWay.ns).toHaveLength(2 * calls)
  })

  it("run on all vCPUs at once, each served once by the SVSM of its own vCPU", () => {
    const vcpus = 3
    const rounds = 25
    const servedBy: Array<ReadonlyArray<number>> = []
    const results = new Map<number, Array<number>>()
    const toggle = function* (guest: Guest, apicId: number, { svsm }: Client): Program {
      results.set(apicId, [])
      const list = guest.page(BLOCK.LIST, apicId)
      for (let i = 0; i < rounds; i++) {
        // Validate and rescind in turn: a call served twice, or skipped, changes a result.
        yield writeBytes(list, pvalidateList([{ gpa: guest.page(BLOCK.TOGGLED, apicId), validate: i % 2 === 0 }]))
        results
          .get(apicId)!
          .push(yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: list, r8: MARK + apicId }))
      }
    }
    const { failure, finished } = runGuestProgram({
      strategy,
      vcpus,
      prepare: (machine) => {
        const base = svsmBase(machine)
        for (const [entry, firstId] of [
          [IMAGE.BOOT_ENTRY, 0],
          [IMAGE.AP_ENTRY, 1]
        ] as const) {
          wrapProgram(machine, base + entry, (program, instance) =>
            traced(program, ({ op, address }, { lo }) => {
              const isR8 = op === OP.READ && address % PAGE_SIZE === VMSA.r8
              if (isR8 && lo >= MARK) servedBy.push([firstId + instance, lo - MARK])
            })
          )
        }
      },
      *boot(guest) {
        const client = yield* setUp(guest)
        for (let id = 1; id < vcpus; id++) expect(yield* startAp(guest, client, id)).toEqual([0, true])
        yield* toggle(guest, 0, client)
      },
      *ap(guest, apicId) {
        yield* toggle(guest, apicId, yield* setUpAp(guest, apicId))
      }
    })
    expect({ failure, finished: [...finished].sort() }).toEqual({ failure: null, finished: [0, 1, 2] })
    for (let id = 0; id < vcpus; id++) expect(results.get(id)).toEqual(Array(rounds).fill(0))
    expect(servedBy).toHaveLength(vcpus * rounds)
    expect(servedBy.filter(([by, caller]) => by !== caller)).toEqual([])
  })

  it.each(RINGS)("leave the other registers of both levels and both GHCB MSRs alone, rung by %s", (ring) => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff })
    const values = fc.array(word, { minLength: 2 * OTHERS.length, maxLength: 2 * OTHERS.length })
    // Calls that succeed and fail, and a level that is not there.
    const step = fc.record({ guest: values, svsm: values, call: fc.constantFrom("query", "remap", "unknown", "level") })
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 10 }), (steps) => {
        const below: Array<unknown> = []
        const above: Array<Values> = []
        const wrote: Array<Values> = []
        let current: Values | null = null
        const { failure } = runGuestProgram({
          strategy,
          ring,
          prepare: (machine) =>
            wrapProgram(machine, svsmBase(machine) + IMAGE.BOOT_ENTRY, (program) =>
              replaced(program, function* (operation) {
                const before = operation.op === OP.VMGEXIT ? current : null
                if (before !== null) yield* writeAll(before)
                yield operation
                if (before === null) return
                wrote.push(before)
                above.push(yield* readAll())
              })
            ),
          *boot(guest) {
            const { ghcb, svsm } = yield* setUp(guest)
            for (const { guest: own, svsm: other, call } of steps) {
              current = other
              yield* writeAll(own)
              if (call === "level") yield* ghcb.runVmpl(3)
              else {
                const number = { query: CORE_CALL.QUERY_PROTOCOL, remap: CORE_CALL.REMAP_CA, unknown: 99 }[call]
                yield* svsm.call(PROTOCOL.CORE, number, { rcx: 0x123 })
              }
              const msr = yield rdmsr(MSR_GHCB)
              below.push([msr.hi, msr.lo], yield* readAll())
            }
            expect(below).toEqual(steps.flatMap((done) => [[0, ghcb.gpa], done.guest]))
          }
        })
        expect(failure).toBeNull()
        expect(above).toEqual(wrote)
        expect(below).toHaveLength(2 * steps.length)
      }),
      { seed: 1, numRuns: 12 }
    )
  })
})
