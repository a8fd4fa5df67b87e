import { AP_TRAMPOLINE_GPA, BLOCK, CORE_CALL, PROTOCOL, pageStateChange } from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import { PERMISSION } from "@vmpl-lab/rmp"
import { PSC_OP } from "@vmpl-lab/sev-es"
import { hlt, type Program, pause, rmpadjust } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { type Client, type Guest, runGuestProgram, setUp, setUpAp, startAp } from "../support/guestRun.ts"

/** What the target vCPU is doing at VMPL2 when another vCPU has its VMPL3 started. */
const BUSY: { readonly [what: string]: (guest: Guest, client: Client) => Program } = {
  "in guest mode": function* () {
    for (let i = 0; i < 100; i++) yield pause()
  },
  "in user space, for a page state change": function* (guest) {
    yield* pageStateChange(guest.page(BLOCK.TOGGLED, 1), PSC_OP.SHARED)
  },
  "in the host, for an SVSM call": function* (_, { svsm }) {
    yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
  }
}

/** A plane does not preempt one of a lower number: VMPL3 runs when VMPL2 halts. */
const waitsForHalt = (strategy: Strategy): boolean => strategyName(strategy) === "planes/kernel"

describe.each(STRATEGIES)("under $key $variant", (strategy) => {
  it.each(Object.entries(BUSY))("a creation reaches a vCPU that is %s, at whatever moment", (_, busy) => {
    for (let delay = 0; delay < 300; delay += 3) {
      let ran3 = false
      let started = 0
      let startRequested = false
      const { failure } = runGuestProgram({
        strategy,
        vcpus: 2,
        untilNs: 70_000_000,
        *boot(guest) {
          const client = yield* setUp(guest)
          yield* startAp(guest, client, 1)
          yield rmpadjust(AP_TRAMPOLINE_GPA, 3, PERMISSION.ALL, false)
          const other: Guest = { ...guest, page: (offset) => guest.page(offset, 0) }
          for (let i = 0; i < delay; i++) yield pause()
          expect(yield* startAp(other, client, 1, 3)).toEqual([0, true])
          startRequested = true
        },
        *ap(guest, apicId) {
          if (started++ > 0) {
            ran3 = true
            return
          }
          const client = yield* setUpAp(guest, apicId)
          while (!ran3) {
            yield* busy(guest, client)
            if (waitsForHalt(strategy) && startRequested) yield hlt()
          }
        }
      })
      expect([delay, failure, ran3]).toEqual([delay, null, true])
    }
  })
})
