import { SECRETS } from "@vmpl-lab/sev-es"
import { cpuid, type Program, pvalidate, read, write } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { accept, bootMachine, type Guest, setUp } from "../../../test/support/guestRun.ts"
import { BLOCK, bootProcessor, type GuestPlan } from "../src/index.ts"

const planOf = (guest: Guest): GuestPlan => ({
  vcpus: 1,
  secretsGpa: guest.secretsGpa,
  heapGpa: guest.page(0),
  ring: guest.ring,
  calls: () => new Uint8Array(0),
  report: guest.machine.log
})

const field = (name: keyof typeof SECRETS, size: number, lo: number) =>
  function* (guest: Guest): Program {
    yield write(guest.secretsGpa + SECRETS[name], size, lo)
  }

/** What somebody did to the guest before its boot code runs, and the reason it gives. */
const CASES: ReadonlyArray<readonly [string, (guest: Guest) => Program, string]> = [
  ["there is no SVSM", field("svsm_size", 8, 0), "reason set 1, reason 7"],
  ["the SVSM claims that the guest runs at VMPL0", field("svsm_guest_vmpl", 1, 0), "reason set 1, reason 8"],
  ["the calling area is off by 8", field("svsm_caa", 8, 0x80_f008), "reason set 1, reason 9"],
  ["the calling area is off by half a page", field("svsm_caa", 8, 0x80_f800), "reason set 1, reason 9"],
  [
    "a page of its heap is validated already",
    (guest) => accept(guest, [guest.page(BLOCK.LIST)]),
    "reason set 1, reason 2"
  ],
  [
    "it touches a page that nobody validated",
    function* (guest) {
      yield* setUp(guest)
      yield read(guest.page(BLOCK.TOGGLED), 8)
    },
    "reason set 1, reason 2"
  ]
]

describe("the guest's boot code gives up, and KVM's detail says why, when", () => {
  it.each(CASES)("%s", (_, spoil, reason) => {
    const { failure, finished } = bootMachine(function* (guest) {
      yield* spoil(guest)
      yield* bootProcessor(planOf(guest))
    })
    expect(failure).toBe(`KVM_SYSTEM_EVENT_SEV_TERM: guest at VMPL2 terminates: ${reason}`)
    expect(finished).toEqual([])
  })

  it("nothing is wrong: then it does not", () => {
    const { failure, finished, machine } = bootMachine((guest) => bootProcessor(planOf(guest)))
    expect([failure, finished, machine.log.started]).toEqual([null, [0], 1])
  })
})

describe("without a #VC handler", () => {
  it("the vCPU shuts down on an intercept or on a page that is not validated", () => {
    for (const operation of [cpuid(0), null]) {
      const { failure } = bootMachine(function* (guest) {
        yield operation ?? read(guest.page(BLOCK.TOGGLED), 8)
      })
      expect(failure).toBe("KVM_EXIT_SHUTDOWN: VMPL2 of APIC ID 0 shut down")
    }
  })

  it("an exception that nobody catches shuts it down too", () => {
    const { failure } = bootMachine(function* (guest) {
      yield pvalidate(guest.page(BLOCK.LIST), true)
    })
    expect(failure).toBe("KVM_EXIT_SHUTDOWN: VMPL2 of APIC ID 0 shut down")
  })
})
