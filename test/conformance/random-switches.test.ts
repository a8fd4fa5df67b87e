import { AP_TRAMPOLINE_GPA, apVmsa, BLOCK, CORE_CALL, PROTOCOL, runVmplMsr, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { PERMISSION } from "@vmpl-lab/rmp"
import { AP_CREATION, VMSA } from "@vmpl-lab/sev-es"
import { type Program, pause, readRegister, rmpadjust, writeBytes } from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Client, type Guest, runGuestProgram, setUp } from "../support/guestRun.ts"
import { OTHERS, readAll, type Values, writeAll } from "../support/registers.ts"
import { overlaps, watchEntries } from "../support/watchEntries.ts"

const LEVEL = 3

/** Gives the boot processor a VMPL3, whose VMSA the SVSM makes for a vCPU that never starts. */
function* addLevel(guest: Guest, { ghcb, svsm }: Client): Program {
  const vmsaGpa = guest.page(BLOCK.VMSA, 1)
  const { lo: sevFeatures } = yield readRegister(VMSA.sev_features)
  const vmsa = { vmpl: LEVEL, sevFeatures, codeBase: AP_TRAMPOLINE_GPA, rip: 0, argument: LEVEL }
  yield writeBytes(vmsaGpa, apVmsa(vmsa))
  const rdx = guest.page(BLOCK.CALLING_AREA, 1)
  expect(yield* svsm.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, { rcx: vmsaGpa, rdx, r8: 1 })).toBe(0)
  yield rmpadjust(AP_TRAMPOLINE_GPA, LEVEL, PERMISSION.ALL, false)
  expect(yield* ghcb.apCreation(AP_CREATION.CREATE_ON_INIT, LEVEL, 0, vmsaGpa, sevFeatures)).toBe(true)
}

const word = fc.integer({ min: 0, max: 0xffff_ffff })
const values = fc.array(word, { minLength: 2 * OTHERS.length, maxLength: 2 * OTHERS.length })
const step = fc.record({
  own: values,
  other: values,
  act: fc.constantFrom("level", "call", "unknown call", "no such level", "pause")
})

describe.each(STRATEGIES)("under $key $variant three levels of a vCPU", (strategy) => {
  it("keep their registers through random switches, one at a time, and each is entered as often as asked", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 15 }), fc.boolean(), (steps, sameCore) => {
        const mine: Array<Values> = []
        const theirs: Array<Values> = []
        const wrote: Array<Values> = []
        const results: Array<number> = []
        let other: Values = steps[0]!.other
        let entries: ReturnType<typeof watchEntries> | null = null
        const { failure, finished } = runGuestProgram({
          strategy,
          vcpus: 2,
          placement: sameCore ? "same-core" : "spread",
          prepare: (machine) => {
            entries = watchEntries(machine)
          },
          *boot(guest) {
            const client = yield* setUp(guest)
            yield* addLevel(guest, client)
            for (const { own, other: next, act } of steps) {
              other = next
              yield* writeAll(own)
              if (act === "level") expect(yield* client.ghcb.runVmpl(LEVEL)).toBe(true)
              else if (act === "no such level") expect(yield* client.ghcb.runVmpl(1)).toBe(false)
              else if (act === "pause") yield pause()
              else {
                const call = act === "call" ? CORE_CALL.QUERY_PROTOCOL : 99
                results.push(yield* client.svsm.call(PROTOCOL.CORE, call, { rcx: 1 }))
              }
              mine.push(yield* readAll())
            }
          },
          // VMPL3: each time it runs, its registers are as it left them.
          *ap() {
            for (;;) {
              const left = other
              wrote.push(left)
              yield* writeAll(left)
              expect(yield* runVmplMsr(2)).toBe(0)
              theirs.push(yield* readAll())
            }
          }
        })
        expect({ failure, finished }).toEqual({ failure: null, finished: [0] })
        expect(mine).toEqual(steps.map(({ own }) => own))
        const visits = steps.filter(({ act }) => act === "level").length
        expect([wrote.length, theirs.length]).toEqual([visits, Math.max(0, visits - 1)])
        expect(theirs).toEqual(wrote.slice(0, -1))
        const calls = steps.filter(({ act }) => act.endsWith("call"))
        expect(results).toEqual(
          calls.map(({ act }) => (act === "call" ? SVSM_RESULT.SUCCESS : SVSM_RESULT.UNSUPPORTED_CALL))
        )
        expect(entries!.taken).toEqual([])
        expect(overlaps(entries!.inGuest)).toEqual([])
      }),
      { seed: 1, numRuns: 15 }
    )
  })
})
