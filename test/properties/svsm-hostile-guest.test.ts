import {
  ACCEPTANCE,
  MIGRATION_CALL,
  MIGRATION_PROTOCOL,
  MIGRATION_RESULT,
  PROTOCOL,
  SVSM_RESULT
} from "@vmpl-lab/guest"
import { PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { SVSM_BEHAVIOURS, type SvsmBehaviour } from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import { VIDEO_MEMORY } from "../support/hostile/Arguments.ts"
import { SVSM } from "../support/hostile/Layout.ts"
import type { HostileMachine } from "../support/hostile/Machine.ts"
import { LEAKS, type Leak, SERVICE, SHIPPED_LEAKS } from "../support/hostile/Services.ts"
import { type TwinOptions, Twins } from "../support/hostile/Twins.ts"

/** Calls in all, over both behaviours and so many seeds; each is made before two SVSMs. */
const CALLS = 100_000
const SEEDS = Array.from({ length: 25 }, (_, i) => i + 1)
const CALLS_PER_SEED = CALLS / (SEEDS.length * SVSM_BEHAVIOURS.length)

const { SUCCESS, INVALID_ADDRESS, INVALID_PARAMETER, INVALID_REQUEST, FAIL_BASE } = SVSM_RESULT

/** Of the seeds some have a guest at VMPL1, some a host that lies; COCONUT-SVSM is made for VMPL2. */
const twinsOf = (seed: number, behaviour: SvsmBehaviour, more: Partial<TwinOptions> = {}): Twins =>
  new Twins({
    seed,
    behaviour,
    guestVmpl: behaviour === "specification" && seed % 3 === 1 ? 1 : 2,
    isHostHostile: seed % 4 >= 2,
    isMigrating: seed % 5 === 0,
    ...more
  })

const expectOwnMemory = (machine: HostileMachine): void => {
  for (let gpa = SVSM.gpa; gpa < SVSM.gpa + SVSM.size; gpa += PAGE_SIZE) {
    const { assigned, perms } = machine.entry(gpa)
    if (assigned) expect(perms.slice(1)).toEqual([0, 0, 0])
  }
}

describe.each(SVSM_BEHAVIOURS)("as %s", (behaviour) => {
  it(`survives ${CALLS / 2} calls of a hostile guest: it writes what is the caller's and shows nothing of its secrets`, () => {
    const seen = new Map<string, number>()
    let calls = 0
    for (const seed of SEEDS) {
      const twins = twinsOf(seed, behaviour)
      const [guest] = twins.guests
      twins.run(CALLS_PER_SEED)
      calls += guest.calls
      expect([seed, twins.leak, guest.machine.watch.trespasses]).toEqual([seed, null, []])
      expectOwnMemory(guest.machine)
      for (const [key, times] of guest.results) seen.set(key, (seen.get(key) ?? 0) + times)
    }
    expect(calls).toBe(CALLS / 2)
    // The calls were good enough to get somewhere, with each protocol.
    const answers = (protocol: number, result: number): number =>
      seen.get(`${protocol.toString(16)} ${result.toString(16)}`) ?? 0
    const { CORE, ATTESTATION, VTPM, APIC, UEFI_MM } = PROTOCOL
    const { SAFE } = SERVICE
    for (const protocol of [CORE, ATTESTATION, VTPM, APIC, UEFI_MM, ACCEPTANCE.PROTOCOL, MIGRATION_PROTOCOL, SAFE]) {
      expect(answers(protocol, SUCCESS), `protocol ${protocol}`).toBeGreaterThan(50)
      expect(answers(protocol, INVALID_PARAMETER), `protocol ${protocol}`).toBeGreaterThan(20)
    }
    for (const result of [INVALID_ADDRESS, FAIL_BASE + 0x10]) {
      expect(answers(PROTOCOL.CORE, result)).toBeGreaterThan(20)
    }
    expect(answers(PROTOCOL.ATTESTATION, INVALID_REQUEST)).toBeGreaterThan(20)
    for (const result of [MIGRATION_RESULT.NOT_AUTHENTIC, MIGRATION_RESULT.OUT_OF_SEQUENCE]) {
      expect(answers(MIGRATION_PROTOCOL, result)).toBeGreaterThan(2)
    }
    // Guests were on their way to the end: they left, and came back.
    for (const call of [MIGRATION_CALL.STOP, MIGRATION_CALL.EXPORT_STATE, MIGRATION_CALL.RESUME]) {
      expect(seen.get(`moved ${call}`) ?? 0, `call ${call}`).toBeGreaterThan(0)
    }
  }, 300_000)
})

describe("the comparison of two SVSMs that differ in their secrets finds", () => {
  it.each(Object.keys(LEAKS) as ReadonlyArray<Leak>)("a service that %s", (leak) => {
    const twins = twinsOf(2, "specification", { leak })
    twins.run(CALLS_PER_SEED)
    expect(twins.leak).not.toBeNull()
  })

  it.each(Object.keys(SHIPPED_LEAKS) as ReadonlyArray<Leak>)("an SVSM that %s", (leak) => {
    const isMigrating = leak === "seals no record for the other side"
    const isFound = [3, 7, 9, 11].some((seed) => {
      const twins = twinsOf(seed, "specification", { leak, isMigrating })
      twins.run(CALLS_PER_SEED)
      return twins.leak !== null
    })
    expect(isFound).toBe(true)
  })

  it("what COCONUT-SVSM does not clear: pages where PCs had their video memory", () => {
    const leaks = [1, 2, 3].map((seed) => {
      const twins = twinsOf(seed, "coconut", { pages: VIDEO_MEMORY })
      twins.run(CALLS_PER_SEED)
      return twins.leak
    })
    expect(leaks.some((leak) => leak !== null)).toBe(true)
  }, 60_000)

  it("a byte of a VMSA, of a page and of what the host may read", () => {
    const change: ReadonlyArray<(machine: HostileMachine) => void> = [
      (machine) => machine.view(machine.state.registry[1]!.vmsaGpa).setUint8(VMSA.rbx, 1),
      (machine) => machine.view(0x1_0000).setUint8(1, 1),
      (machine) => machine.host.write8(machine.frame(SVSM.gpa + SVSM.size - PAGE_SIZE) * PAGE_SIZE, 1)
    ]
    for (const [i, differ] of change.entries()) {
      const twins = twinsOf(i + 1, "specification")
      twins.run(20)
      const { machine } = twins.guests[1]
      if (i === 2)
        for (const one of twins.guests)
          one.machine.setEntry(SVSM.gpa + SVSM.size - PAGE_SIZE, { assigned: false, validated: false })
      if (i === 2)
        for (const one of twins.guests)
          one.machine.host.write8(machine.frame(SVSM.gpa + SVSM.size - PAGE_SIZE) * PAGE_SIZE, 2)
      differ(machine)
      twins.run(20)
      expect(twins.leak).toContain("byte")
    }
  })
})

it("the watch finds what the SVSM does without holding the pages that it works with", () => {
  const trouble = SEEDS.some((seed) => {
    const twins = twinsOf(seed, "specification")
    for (const { machine } of twins.guests) Object.assign(machine.state.held, { findIndex: () => -1 })
    try {
      twins.run(CALLS_PER_SEED)
    } catch {
      return true
    }
    return twins.guests[0].machine.watch.trespasses.length > 0
  })
  expect(trouble).toBe(true)
}, 120_000)
