import { SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { SVSM_BEHAVIOURS } from "@vmpl-lab/svsm"
import { expect, it } from "vitest"
import { HostileGuest, isResult } from "../support/hostileGuest.ts"
import { SVSM } from "../support/scriptedHost.ts"

/** Calls in all: over two behaviours and so many seeds. */
const CALLS = 100_000
const SEEDS = Array.from({ length: 25 }, (_, i) => i + 1)
const CALLS_PER_GUEST = CALLS / (SEEDS.length * SVSM_BEHAVIOURS.length)
const CALLS_PER_SEARCH = 500

const { SUCCESS, INVALID_ADDRESS, INVALID_PARAMETER, FAIL_BASE } = SVSM_RESULT

it.each(SVSM_BEHAVIOURS)(
  `as %s survives ${CALLS / 2} calls of a hostile guest: it writes and tells nothing but what is the caller's`,
  (behaviour) => {
    const seen = new Set<number>()
    for (const seed of SEEDS) {
      const guest = new HostileGuest(seed, behaviour)
      for (let call = 1; call <= CALLS_PER_GUEST; call++) {
        const result = guest.call()
        if (result !== null) {
          seen.add(result)
          if (!isResult(result)) throw new Error(`seed ${seed}, call ${call}: result 0x${result.toString(16)}`)
        }
        if (call % CALLS_PER_SEARCH === 0) expect([seed, call, guest.leaks()]).toEqual([seed, call, []])
      }
      expect([seed, guest.trespasses]).toEqual([seed, []])
      for (let gpa = SVSM.gpa; gpa < SVSM.gpa + SVSM.size; gpa += PAGE_SIZE) {
        expect(guest.host.entry(gpa).perms.slice(1)).toEqual([0, 0, 0])
      }
    }
    // The calls were good enough to get somewhere.
    for (const result of [SUCCESS, INVALID_ADDRESS, INVALID_PARAMETER, FAIL_BASE + 0x10]) {
      expect(seen.has(result)).toBe(true)
    }
  },
  300_000
)
