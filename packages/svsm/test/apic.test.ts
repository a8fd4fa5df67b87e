import { APIC_CALL, APIC_CONFIGURE, APIC_VECTOR, PROTOCOL, SVSM_RESULT, X2APIC } from "@vmpl-lab/guest"
import { apic, apicProtocol, CpuInterrupts, GuestApic, type SvsmRequest, SvsmState } from "@vmpl-lab/svsm"
import { OP, type Program } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"

const { SUCCESS, UNSUPPORTED_PROTOCOL, UNSUPPORTED_CALL, INVALID_PARAMETER, INVALID_ADDRESS, FAIL_BASE } = SVSM_RESULT

const request = (call: number, { rcx = 0, rcxHi = 0, rdx = 0, rdxHi = 0 } = {}) => ({
  protocol: PROTOCOL.APIC,
  call,
  rcxLo: rcx,
  rcxHi,
  rdxLo: rdx,
  rdxHi,
  r8Lo: 0,
  r8Hi: 0,
  sevFeatures: 0,
  vmpl: 2,
  caller: { vmsaGpa: 0x1000, caGpa: 0x2000, apicId: 5, vmpl: 2, guestOwned: true }
})

const withApic = () => {
  const state = new SvsmState()
  const guest = new GuestApic(5)
  // The GHCB is for the SVSM's own interrupts, and for the end of the emulation.
  state.interrupts[5] = new CpuInterrupts(undefined as never, -1, guest)
  return { state, guest }
}

const allowAll = (state: SvsmState) =>
  apic(state, request(APIC_CALL.CONFIGURE_VECTOR, { rcx: APIC_VECTOR.ENABLE | APIC_VECTOR.ALL }))

/** The protocol's program for a call that is not answered at once. */
const serveApic = (state: SvsmState, asked: SvsmRequest): Program<number> => {
  const served = apicProtocol.serve(state, asked)
  if (typeof served === "number") throw new Error(`answered ${served} at once`)
  return served
}

describe("the APIC protocol", () => {
  it("is not there on a CPU without an emulated APIC", () => {
    for (const call of Object.values(APIC_CALL)) {
      expect(apic(new SvsmState(), request(call))).toBe(UNSUPPORTED_PROTOCOL)
    }
  })

  it("has no features and no sixth call", () => {
    const { state } = withApic()
    const query = request(APIC_CALL.QUERY_FEATURES, { rcx: 7, rcxHi: 7 })
    expect([apic(state, query), query.rcxLo, query.rcxHi]).toEqual([SUCCESS, 0, 0])
    expect(apic(state, request(5))).toBe(UNSUPPORTED_CALL)
  })

  it("counts its users, and takes no more once there is none", () => {
    const { state } = withApic()
    const configure = (rcx: number, rcxHi = 0) => {
      const asked = request(APIC_CALL.CONFIGURE, { rcx, rcxHi })
      return [apic(state, asked), asked.rcxLo]
    }
    expect(configure(APIC_CONFIGURE.REGISTER)[0]).toBe(SUCCESS)
    expect(state.apicUsers).toBe(2)
    expect(configure(APIC_CONFIGURE.QUERY)).toEqual([SUCCESS, APIC_CONFIGURE.QUERY])
    expect(configure(3)[0]).toBe(INVALID_PARAMETER)
    expect(configure(APIC_CONFIGURE.QUERY, 1)[0]).toBe(INVALID_PARAMETER)
    expect(configure(APIC_CONFIGURE.DEREGISTER)[0]).toBe(SUCCESS)
    expect(configure(APIC_CONFIGURE.DEREGISTER)[0]).toBe(SUCCESS)
    expect(configure(APIC_CONFIGURE.REGISTER)[0]).toBe(FAIL_BASE)
  })

  it.each([
    ["ID", X2APIC.ID, 5],
    ["LDR", X2APIC.LDR, 1 << 5],
    ["TPR", X2APIC.TPR, 0],
    ["PPR", X2APIC.PPR, 0x40],
    ["ISR", X2APIC.ISR + 2, 2],
    ["TMR", X2APIC.TMR + 2, 0],
    ["IRR", X2APIC.IRR + 3, 1]
  ] as const)("reads %s", (_, msr, value) => {
    const { state, guest } = withApic()
    allowAll(state)
    guest.post(0x41)
    guest.take(guest.next())
    guest.post(0x60)
    const read = request(APIC_CALL.READ_REGISTER, { rcx: msr })
    expect([apic(state, read), read.rdxLo]).toEqual([SUCCESS, value])
  })

  it.each([
    ["EOI, read", APIC_CALL.READ_REGISTER, { rcx: X2APIC.EOI }, INVALID_PARAMETER],
    ["self IPI, read", APIC_CALL.READ_REGISTER, { rcx: X2APIC.SELF_IPI }, INVALID_PARAMETER],
    ["the timer, read", APIC_CALL.READ_REGISTER, { rcx: X2APIC.LVTT }, INVALID_ADDRESS],
    ["an MSR above 32 bits", APIC_CALL.READ_REGISTER, { rcx: X2APIC.ID, rcxHi: 1 }, INVALID_ADDRESS],
    ["EOI of 1", APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.EOI, rdx: 1 }, INVALID_PARAMETER],
    ["TPR of 9 bits", APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.TPR, rdx: 0x100 }, INVALID_PARAMETER],
    ["TPR with an upper half", APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.TPR, rdxHi: 1 }, INVALID_PARAMETER],
    ["ID, written", APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.ID }, INVALID_PARAMETER],
    ["the timer, written", APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.LVTT }, INVALID_ADDRESS],
    ["a reserved bit of the vector", APIC_CALL.CONFIGURE_VECTOR, { rcx: 1 << 10 }, INVALID_PARAMETER]
  ] as const)("refuses %s", (_, call, registers, result) => {
    const { state } = withApic()
    expect(apic(state, request(call, registers))).toBe(result)
  })

  it("lets pass what the guest allows", () => {
    const { state, guest } = withApic()
    const configure = (rcx: number) => apic(state, request(APIC_CALL.CONFIGURE_VECTOR, { rcx }))
    expect(guest.post(0x51)).toBe(false)
    configure(APIC_VECTOR.ENABLE | 0x51)
    expect([guest.post(0x51), guest.post(0x52)]).toEqual([true, false])
    configure(APIC_VECTOR.ENABLE | APIC_VECTOR.ALL)
    expect([guest.post(31), guest.post(0xff), guest.post(30)]).toEqual([true, true, false])
    configure(0x51)
    expect(guest.post(0x51)).toBe(false)
  })
})

describe("the ICR", () => {
  const cpus = (count: number) => {
    const state = new SvsmState()
    state.parameters = { vcpus: count } as never
    const apics = Array.from({ length: count }, (_, apicId) => {
      const guest = new GuestApic(apicId)
      const ghcb = { use: () => [].values() }
      state.interrupts[apicId] = new CpuInterrupts(ghcb as never, -1, guest)
      return guest
    })
    return { state, apics }
  }
  const FIXED = 0x4000

  it.each([
    ["one", FIXED | 0x41, 2, [2]],
    ["one that does not exist", FIXED | 0x41, 9, []],
    ["itself", FIXED | 0x41 | (1 << 18), 0, [0]],
    ["all", FIXED | 0x41 | (2 << 18), 0, [0, 1, 2]],
    ["all others", FIXED | 0x41 | (3 << 18), 0, [1, 2]],
    ["all, by destination", FIXED | 0x41, 0xffff_ffff, [0, 1, 2]],
    ["a logical set", FIXED | 0x41 | (1 << 11), 0b110, [1, 2]],
    ["another cluster's set", FIXED | 0x41 | (1 << 11), 0x1_0006, []]
  ] as const)("sends to %s, and rings the CPUs of the others", (_, lo, hi, expected) => {
    const { state, apics } = cpus(3)
    const asked = { ...request(APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.ICR, rdx: lo, rdxHi: hi }) }
    const program = serveApic(state, { ...asked, caller: { ...asked.caller, apicId: 0 } })
    const rung: Array<number> = []
    let step = program.next({ lo: 0, hi: 0, ecx: 0, edx: 0, carry: false })
    while (step.done !== true) {
      if (step.value.op === OP.WRMSR && step.value.address === X2APIC.ICR) rung.push(step.value.hi)
      step = program.next({ lo: 0, hi: 0, ecx: 0, edx: 0, carry: false })
    }
    expect(step.value).toBe(SUCCESS)
    expect(apics.filter((guest) => guest.next() === 0x41).map(({ apicId }) => apicId)).toEqual(expected)
    expect(rung).toEqual(expected.filter((apicId) => apicId !== 0))
  })

  it("reads as it was written", () => {
    const { state } = withApic()
    apic(state, request(APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.ICR, rdx: FIXED | 0x41, rdxHi: 7 }))
    const read = request(APIC_CALL.READ_REGISTER, { rcx: X2APIC.ICR })
    expect([apic(state, read), read.rdxLo, read.rdxHi]).toEqual([SUCCESS, FIXED | 0x41, 7])
  })

  it("takes the lowest vectors and the trigger mode, of which nothing comes", () => {
    const { state, guest } = withApic()
    for (const rdx of [FIXED | 3, FIXED | 0x8003]) {
      expect(apic(state, request(APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.ICR, rdx }))).toBe(SUCCESS)
    }
    apic(state, request(APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.SELF_IPI, rdx: 3 }))
    expect(guest.next()).toBe(-1)
  })

  it("sends an NMI as one", () => {
    const { state, apics } = cpus(1)
    const asked = request(APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.ICR, rdx: FIXED | (4 << 8) })
    serveApic(state, { ...asked, caller: { ...asked.caller, apicId: 0 } }).next()
    expect([apics[0]!.nmi, apics[0]!.next()]).toEqual([true, -1])
  })

  it.each([
    ["SMI", 2 << 8],
    ["INIT", 5 << 8],
    ["start-up", 6 << 8],
    ["a reserved bit", FIXED | 0x41 | (1 << 13)],
    ["an upper reserved bit", FIXED | 0x41 | (1 << 20)]
  ])("refuses %s", (_, rdx) => {
    const { state } = withApic()
    expect(apic(state, request(APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.ICR, rdx }))).toBe(INVALID_PARAMETER)
  })
})

describe("the emulated APIC", () => {
  const posted = (...vectors: ReadonlyArray<number>): GuestApic => {
    const guest = new GuestApic(0)
    for (const vector of vectors) {
      guest.allow(vector, true)
      guest.post(vector)
    }
    return guest
  }

  it("gives the highest class first, and nothing that is not above what is in service", () => {
    const guest = posted(0x41, 0x91, 0x94)
    expect(guest.next()).toBe(0x94)
    guest.take(0x94)
    expect(guest.next()).toBe(-1)
    guest.endOfInterrupt()
    expect(guest.next()).toBe(0x91)
  })

  it("tells what the task priority lets through, and counts what it holds back", () => {
    const guest = posted(0x41, 0x52)
    guest.tpr = 0x50
    expect([guest.next(), guest.passes(0x52), guest.passes(0x60)]).toEqual([0x52, false, true])
    guest.tpr = 0x40
    expect(guest.passes(0x52)).toBe(true)
  })

  it("needs no EOI while nothing stands behind the one vector that is in service or on its way", () => {
    const one = posted(0x41)
    expect([one.needsNoEoi(-1), one.needsNoEoi(0x41)]).toEqual([false, true])
    one.take(0x41)
    expect(one.needsNoEoi(-1)).toBe(true)
    one.allow(0x51, true)
    one.post(0x51)
    expect([one.needsNoEoi(-1), one.needsNoEoi(0x51)]).toEqual([false, false])
  })
})
