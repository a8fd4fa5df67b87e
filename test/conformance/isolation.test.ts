import { AP_TRAMPOLINE_GPA, apVmsa, BLOCK, CORE_CALL, GUEST_VMPL, PROTOCOL } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { ACCESS, PAGE_4K, PERMISSION } from "@vmpl-lab/rmp"
import { AP_CREATION, GHCB, PAGE_SIZE, VMSA, VMSA_STATE_SIZE } from "@vmpl-lab/sev-es"
import { IMAGE } from "@vmpl-lab/svsm"
import {
  GuestException,
  type Operation,
  pause,
  pvalidate,
  read,
  readBytes,
  readRegister,
  readShared,
  rmpadjust,
  write,
  writeBytes,
  writeShared,
  xchg8,
  zeroPage
} from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { type Guest, runGuestProgram, setUp, setUpAp, startAp } from "../support/guestRun.ts"
import { overlaps, watchEntries } from "../support/watchEntries.ts"

/** The first guest of a host gets the first ASID. */
const GUEST_ASID = 1

/** Pages of the SVSM that hold something once the guest runs. The guest's VMSA is one of them. */
const PAGES = [IMAGE.CODE, IMAGE.PARAMETERS, IMAGE.ONLINE, IMAGE.GUEST_VMSA] as const

/** Private bytes of the SVSM, but for what the hardware itself saves into the guest's VMSA. */
const svsmBytes = ({ machine, svsm }: Guest): ReadonlyArray<string> =>
  PAGES.map((page) => {
    const pfn = machine.vmm.memory.privateFrameIfPresent((svsm.gpa + page) / PAGE_SIZE)
    const view = machine.hardware.memory.read(pfn, GUEST_ASID)
    const from = page === IMAGE.GUEST_VMSA ? VMSA_STATE_SIZE : 0
    return Buffer.from(view.buffer, view.byteOffset + from, PAGE_SIZE - from).toString("hex")
  })

const ATTEMPTS: ReadonlyArray<readonly [string, (gpa: number) => Operation]> = [
  ["a load", (gpa) => read(gpa + 0x100, 8)],
  ["a store", (gpa) => write(gpa + 0xf00, 8, 1, 2)],
  ["an exchange", (gpa) => xchg8(gpa + 0xf00, 1)],
  ["a copy out", (gpa) => readBytes(gpa, new Uint8Array(PAGE_SIZE))],
  ["a copy in", (gpa) => writeBytes(gpa, new Uint8Array(PAGE_SIZE).fill(0xaa))],
  ["a page clear", (gpa) => zeroPage(gpa)]
]

describe.each(STRATEGIES)("under $key $variant the SVSM's memory", (strategy) => {
  it.each(ATTEMPTS)("stops %s by VMPL2, and stays as it was", (_, attempt) => {
    for (const page of PAGES) {
      let before: ReadonlyArray<string> = []
      let passed = false
      const { failure, finished, guest } = runGuestProgram({
        strategy,
        *boot(guest) {
          yield* setUp(guest)
          before = svsmBytes(guest)
          yield attempt(guest.svsm.gpa + page)
          passed = true
        }
      })
      const gpa = (guest.svsm.gpa + page).toString(16).slice(0, -3)
      expect(failure).toMatch(new RegExp(`^KVM_EXIT_MEMORY_FAULT: VMPL2 may not access GPA 0x${gpa}`))
      expect([passed, finished]).toEqual([false, []])
      expect(svsmBytes(guest)).toEqual(before)
    }
  })

  it("does not change by a store with C=0, and reads as ciphertext at best", () => {
    let plain = 0
    let seen: number | null = null
    const load = runGuestProgram({
      strategy,
      *boot(guest) {
        yield* setUp(guest)
        const pfn = guest.machine.vmm.memory.privateFrameIfPresent(guest.svsm.gpa / PAGE_SIZE)
        plain = guest.machine.hardware.memory.read(pfn, GUEST_ASID).getUint32(0x100, true)
        seen = (yield readShared(guest.svsm.gpa + 0x100, 4)).lo
      }
    })
    expect(plain).not.toBe(0)
    if (seen === null) expect(load.failure).toContain("is accessed as shared but is not")
    expect(seen).not.toBe(plain)

    let before: ReadonlyArray<string> = []
    const store = runGuestProgram({
      strategy,
      *boot(guest) {
        yield* setUp(guest)
        before = svsmBytes(guest)
        yield writeShared(guest.svsm.gpa, 8, 1, 1)
      }
    })
    expect(store.failure).toContain("is accessed as shared but is not")
    expect(svsmBytes(store.guest)).toEqual(before)
  })

  it("is shared where the SVSM shared it, though its level's VM object did so before VMPL2's existed", () => {
    let version = 0
    const { failure, finished } = runGuestProgram({
      strategy,
      *boot(guest) {
        yield* setUp(guest)
        version = (yield readShared(guest.svsm.gpa + IMAGE.PER_CPU + GHCB.protocol_version, 2)).lo
      }
    })
    expect({ failure, finished, version }).toEqual({ failure: null, finished: [0], version: 2 })
  })

  it("gives no rights away to RMPADJUST or PVALIDATE at VMPL2", () => {
    const answers: Array<unknown> = []
    const { failure, finished } = runGuestProgram({
      strategy,
      *boot(guest) {
        yield* setUp(guest)
        for (const target of [0, 1, 2, 3])
          answers.push((yield rmpadjust(guest.svsm.gpa, target, PERMISSION.READ, true)).lo)
        try {
          yield pvalidate(guest.svsm.gpa, false)
        } catch (exception) {
          answers.push(exception)
        }
      }
    })
    expect({ failure, finished }).toEqual({ failure: null, finished: [0] })
    // FAIL_PERMISSION for every level, then #GP.
    expect(answers).toEqual([2, 2, 2, 2, new GuestException("#GP")])
  })

  it("is not fetched from by a VMPL2 whose VMSA points there", () => {
    const { failure, guest } = runGuestProgram({
      strategy,
      vcpus: 2,
      *boot(guest) {
        const { ghcb, svsm } = yield* setUp(guest)
        const vmsaGpa = guest.page(BLOCK.VMSA, 1)
        const { lo: sevFeatures } = yield readRegister(VMSA.sev_features)
        const options = { vmpl: GUEST_VMPL, sevFeatures, codeBase: guest.svsm.gpa, rip: IMAGE.BOOT_ENTRY, argument: 1 }
        yield writeBytes(vmsaGpa, apVmsa(options))
        const rdx = guest.page(BLOCK.CALLING_AREA, 1)
        expect(yield* svsm.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, { rcx: vmsaGpa, rdx, r8: 1 })).toBe(0)
        expect(yield* ghcb.apCreation(AP_CREATION.CREATE, GUEST_VMPL, 1, vmsaGpa, sevFeatures)).toBe(true)
      }
    })
    expect(failure).toContain(`VMPL2 may not access GPA 0x${(guest.svsm.gpa + IMAGE.BOOT_ENTRY).toString(16)}`)
  })
})

describe.each(STRATEGIES)("under $key $variant a guest vCPU", (strategy) => {
  it.each(["spread", "same-core"] as const)("is in guest mode at one level at a time, placement %s", (placement) => {
    const vcpus = 3
    let watched: ReturnType<typeof watchEntries> | null = null
    const { failure, finished } = runGuestProgram({
      strategy,
      vcpus,
      placement,
      prepare: (machine) => {
        watched = watchEntries(machine)
      },
      *boot(guest) {
        const client = yield* setUp(guest)
        for (let id = 1; id < vcpus; id++) expect(yield* startAp(guest, client, id)).toEqual([0, true])
        for (let i = 0; i < 20; i++) yield* client.svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
      },
      *ap(guest, apicId) {
        const { svsm } = yield* setUpAp(guest, apicId)
        for (let i = 0; i < 20; i++) yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
      }
    })
    expect({ failure, finished: finished.length }).toEqual({ failure: null, finished: vcpus })
    const { inGuest, taken } = watched!
    expect(taken).toEqual([])
    expect(overlaps(inGuest)).toEqual([])
    for (let id = 0; id < vcpus; id++) {
      const stretches = inGuest.filter(({ apicId }) => apicId === id)
      expect(stretches.length).toBeGreaterThan(2 * 20)
      expect(new Set(stretches.map(({ vmpl }) => vmpl))).toEqual(new Set([0, 2]))
    }
  })

  it("does not run a page that is no VMSA: VMRUN answers VMEXIT_INVALID", () => {
    const { failure, guest } = runGuestProgram({
      strategy,
      vcpus: 2,
      *boot(guest) {
        const { ghcb } = yield* setUp(guest)
        const vmsaGpa = guest.page(BLOCK.VMSA, 1)
        const vmsa = { vmpl: GUEST_VMPL, sevFeatures: 1, codeBase: AP_TRAMPOLINE_GPA, rip: 0, argument: 1 }
        // Perfect bytes, but nobody at VMPL0 has set the page's VMSA bit; RMPADJUST here ignores it.
        yield writeBytes(vmsaGpa, apVmsa(vmsa))
        yield rmpadjust(vmsaGpa, 3, PERMISSION.READ, true)
        expect(yield* ghcb.apCreation(AP_CREATION.CREATE, GUEST_VMPL, 1, vmsaGpa, 1)).toBe(true)
      }
    })
    expect(failure).toMatch(/VMRUN of VMPL2 of APIC ID 1: VMEXIT_INVALID/)
    const pfn = guest.machine.vmm.memory.privateFrameIfPresent(guest.page(BLOCK.VMSA, 1) / PAGE_SIZE)
    const { rmp } = guest.machine.hardware
    expect(rmp.entry(pfn)).toMatchObject({ vmsa: false, validated: true, asid: GUEST_ASID })
    expect(rmp.checkGuest(GUEST_ASID, 2, 0, ACCESS.WRITE, true, rmp.entry(pfn).gfn, pfn, PAGE_4K)).toBe(0)
  })

  it("does not share its VMSA with another one that runs: VMRUN answers VMEXIT_BUSY", () => {
    const { failure } = runGuestProgram({
      strategy,
      vcpus: 3,
      *boot(guest) {
        const client = yield* setUp(guest)
        yield* startAp(guest, client, 1)
        const vmsaGpa = guest.page(BLOCK.VMSA, 1)
        expect(yield* client.ghcb.apCreation(AP_CREATION.CREATE, GUEST_VMPL, 2, vmsaGpa, 1)).toBe(true)
        for (let i = 0; i < 1000; i++) yield pause()
      },
      *ap() {
        for (let i = 0; i < 100_000; i++) yield pause()
      }
    })
    expect(failure).toMatch(/VMRUN of VMPL2 of APIC ID 2: VMEXIT_BUSY/)
  })
})
