import { APIC_CALL, APIC_CONFIGURE, APIC_VECTOR, CALLING_AREA, PROTOCOL, X2APIC } from "@vmpl-lab/guest"
import { VMSA } from "@vmpl-lab/sev-es"
import {
  apic,
  apicProtocol,
  BEHAVIOUR,
  CpuInterrupts,
  GuestApic,
  GuestInjection,
  type SvsmBehaviour,
  type SvsmRequest,
  SvsmState,
  takeEventsBelow
} from "@vmpl-lab/svsm"
import { OP, type Program, RFLAGS_IF, vmgexit } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import { resultName, svsmAnswers } from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { READ_REGISTER, WRITE_REGISTER, CONFIGURE, CONFIGURE_VECTOR, QUERY_FEATURES } = APIC_CALL
const { ID, LDR, TPR, PPR, ISR, TMR, IRR, ICR, EOI, SELF_IPI, LVTT } = X2APIC
const { ENABLE, ALL } = APIC_VECTOR
const ASSERT = 1 << 14
const FIXED = ASSERT | 0x41
const NMI = ASSERT | (4 << 8) | 0x41
const NOTHING = { lo: 0, hi: 0, ecx: 0, edx: 0, carry: false }

/** The host serves whatever it is asked for. */
const ghcb = {
  use: () => [].values(),
  *request() {
    yield vmgexit()
    return { ok: true, value: {} }
  }
} as never

/** CPUs with an emulated APIC each. */
const machine = (behaviour: SvsmBehaviour, cpus = 1, first = 0) => {
  const state = new SvsmState()
  state.behaviour = BEHAVIOUR[behaviour]
  state.parameters = { vcpus: first + cpus } as never
  const apics: Array<GuestApic> = []
  for (let apicId = first; apicId < first + cpus; apicId++) {
    const guest = new GuestApic(apicId)
    apics.push(guest)
    state.interrupts[apicId] = new CpuInterrupts(ghcb, 0x9000, guest)
  }
  return { state, apics, guest: apics[0]!, apicId: first }
}
type Machine = ReturnType<typeof machine>

type Halves = readonly [hi: number, lo: number]
const halves = (value: number | Halves): Halves => (typeof value === "number" ? [0, value] : value)

/** Runs a program whose operations need no hardware. */
const run = <T>(program: Program<T>): T => {
  for (;;) {
    const step = program.next(NOTHING)
    if (step.done === true) return step.value
  }
}

/** One call of the protocol on the machine's first CPU. */
const ask = (
  { state, apicId }: Machine,
  call: number,
  rcx: number | Halves,
  rdx: number | Halves = 0,
  on = apicId
): SvsmRequest & { readonly result: string } => {
  const [rcxHi, rcxLo] = halves(rcx)
  const [rdxHi, rdxLo] = halves(rdx)
  const caller = { vmsaGpa: 0x1000, caGpa: 0x2000, apicId: on, vmpl: 2, guestOwned: true }
  const rest = { r8Lo: 0, r8Hi: 0, sevFeatures: 0, vmpl: 2, caller }
  const request = { protocol: PROTOCOL.APIC, call, rcxLo, rcxHi, rdxLo, rdxHi, ...rest }
  const served = apicProtocol.serve(state, request)
  const result = resultName(typeof served === "number" ? served : run(served))
  return Object.assign(request, { result })
}
/** Results of several calls, each once. */
const results = (
  behaviour: SvsmBehaviour,
  call: number,
  ...calls: ReadonlyArray<readonly [rcx: number | Halves, rdx?: number | Halves]>
): string => [...new Set(calls.map(([rcx, rdx]) => ask(machine(behaviour), call, rcx, rdx).result))].join(", ")

/** A CPU with APIC ID 0x15 that has 0x41 in service, 0x60 requested, and a TPR of 0x30. */
const busy = (behaviour: SvsmBehaviour): Machine => {
  const one = machine(behaviour, 1, 0x15)
  ask(one, CONFIGURE_VECTOR, ENABLE | ALL)
  one.guest.post(0x41)
  one.guest.take(one.guest.next())
  one.guest.post(0x60)
  ask(one, WRITE_REGISTER, TPR, 0x30)
  return one
}
const hex = (value: number): string => `0x${value.toString(16)}`
const value = (behaviour: SvsmBehaviour, msr: number): string => {
  const { result, rdxLo, rdxHi } = ask(busy(behaviour), READ_REGISTER, msr)
  return result === "SUCCESS" && rdxHi === 0 ? hex(rdxLo) : result
}

answer("apic/absent", (_, behaviour) => {
  const state = new SvsmState()
  state.behaviour = BEHAVIOUR[behaviour]
  const calls = [...Object.values(APIC_CALL), 5]
  return [...new Set(calls.map((call) => ask({ ...machine(behaviour), state }, call, 0).result))].join(", ")
})
answer("apic/unknown", (_, behaviour) => ask(machine(behaviour), 5, 0).result)
answer("apic/features", (_, behaviour) => {
  const { result, rcxLo, rcxHi } = ask(machine(behaviour), QUERY_FEATURES, [7, 7])
  return `${result}, RCX = ${rcxLo + rcxHi}`
})
answer("apic/state-above-4g", (_, behaviour) =>
  [READ_REGISTER, WRITE_REGISTER].map((call) => results(behaviour, call, [[1, TPR]])).join(", ")
)

answer("apic/configure-query", (_, behaviour) => {
  const one = machine(behaviour)
  const { result, rcxLo } = ask(one, CONFIGURE, APIC_CONFIGURE.QUERY)
  expect([one.state.apicUsers, one.state.interrupts[0]!.guestApic]).toEqual([1, one.guest])
  return `${result}, RCX = ${rcxLo}`
})
answer("apic/configure-query-off", (_, behaviour) => {
  const two = machine(behaviour, 2)
  ask(two, CONFIGURE, APIC_CONFIGURE.DEREGISTER)
  expect(two.state.interrupts[1]!.guestApic).not.toBeNull()
  const { result } = ask(two, CONFIGURE, APIC_CONFIGURE.QUERY, 0, 1)
  return two.state.interrupts[1]!.guestApic === null ? `${result}, off on that CPU too` : result
})
answer("apic/configure-lower", (_, behaviour) => {
  const one = machine(behaviour)
  ask(one, CONFIGURE, APIC_CONFIGURE.REGISTER)
  const { result } = ask(one, CONFIGURE, APIC_CONFIGURE.DEREGISTER)
  return `${result}, ${one.state.apicUsers} left, ${one.state.interrupts[0]!.guestApic === null ? "off" : "on"}`
})
answer("apic/configure-last", (_, behaviour) => {
  const one = machine(behaviour)
  const { result } = ask(one, CONFIGURE, APIC_CONFIGURE.DEREGISTER)
  return `${result}, then ${ask(one, QUERY_FEATURES, 0).result}`
})
answer("apic/configure-below", (_, behaviour) => {
  const two = machine(behaviour, 2)
  ask(two, CONFIGURE, APIC_CONFIGURE.DEREGISTER)
  const { result } = ask(two, CONFIGURE, APIC_CONFIGURE.DEREGISTER, 0, 1)
  return `${result}, ${two.state.apicUsers} left`
})
answer("apic/configure-raise", (_, behaviour) => {
  const one = machine(behaviour)
  const { result } = ask(one, CONFIGURE, APIC_CONFIGURE.REGISTER)
  return `${result}, ${one.state.apicUsers} users`
})
answer("apic/configure", (_, behaviour) => results(behaviour, CONFIGURE, [3], [[1, 0]], [[1, 2]]))
answer("apic/register", (_, behaviour) => {
  const one = machine(behaviour)
  one.state.apicUsers = 0
  return ask(one, CONFIGURE, APIC_CONFIGURE.REGISTER).result
})
answer("apic/register-wrap", (_, behaviour) => {
  const one = machine(behaviour)
  one.state.apicUsers = 0xffff_ffff
  const { result } = ask(one, CONFIGURE, APIC_CONFIGURE.REGISTER)
  expect(one.state.apicUsers).toBe(0xffff_ffff)
  return result
})

answer("apic/read-id", (_, behaviour) => value(behaviour, ID))
answer("apic/read-ldr", (_, behaviour) => value(behaviour, LDR))
answer("apic/read-tpr", (_, behaviour) => value(behaviour, TPR))
answer("apic/read-ppr", (_, behaviour) => value(behaviour, PPR))
answer("apic/read-ppr-tpr", (_, behaviour) => {
  const one = busy(behaviour)
  ask(one, WRITE_REGISTER, TPR, 0x45)
  return hex(ask(one, READ_REGISTER, PPR).rdxLo)
})
answer("apic/read-isr", (_, behaviour) => value(behaviour, ISR + 2))
answer("apic/read-irr", (_, behaviour) => value(behaviour, IRR + 3))
answer("apic/read-tmr", (_, behaviour) => value(behaviour, TMR + 2))
answer("apic/read-edges", (_, behaviour) =>
  results(behaviour, READ_REGISTER, ...[ISR, ISR + 7, TMR, TMR + 7, IRR, IRR + 7].map((msr): [number] => [msr]))
)
answer("apic/read-icr", (_, behaviour) => {
  const one = machine(behaviour)
  ask(one, WRITE_REGISTER, ICR, [9, FIXED])
  const { result, rdxLo, rdxHi } = ask(one, READ_REGISTER, ICR)
  expect(result).toBe("SUCCESS")
  return rdxHi === 9 && rdxLo === FIXED ? "as written" : hex(rdxLo)
})
answer("apic/read-eoi", (_, behaviour) => results(behaviour, READ_REGISTER, [EOI], [SELF_IPI]))
answer("apic/read-else", (_, behaviour) =>
  results(behaviour, READ_REGISTER, [LVTT], [0], [0x800], [0x803], [0x80f], [0x828], [0x831], [0x840])
)

answer("apic/write-tpr", (_, behaviour) => {
  const one = machine(behaviour)
  const { result } = ask(one, WRITE_REGISTER, TPR, 0xff)
  return `${result}, TPR = ${hex(one.guest.tpr)}`
})
answer("apic/write-tpr-wide", (_, behaviour) => results(behaviour, WRITE_REGISTER, [TPR, 0x100], [TPR, [1, 0]]))
answer("apic/write-eoi", (_, behaviour) => {
  const one = busy(behaviour)
  const { result } = ask(one, WRITE_REGISTER, EOI, 0)
  return `${result}, ISR = ${ask(one, READ_REGISTER, ISR + 2).rdxLo}`
})
answer("apic/write-eoi-none", (_, behaviour) => results(behaviour, WRITE_REGISTER, [EOI, 0]))
answer("apic/write-eoi-value", (_, behaviour) => results(behaviour, WRITE_REGISTER, [EOI, 1], [EOI, [1, 0]]))
answer("apic/write-self-ipi", (_, behaviour) => {
  const one = machine(behaviour)
  const { result } = ask(one, WRITE_REGISTER, SELF_IPI, 0x51)
  return `${result}, ${hex(one.guest.next())} is next`
})
answer("apic/write-self-ipi-wide", (_, behaviour) =>
  results(behaviour, WRITE_REGISTER, [SELF_IPI, 0x141], [SELF_IPI, [1, 0x41]])
)
answer("apic/write-icr", (_, behaviour) => {
  const two = machine(behaviour, 2)
  const { result } = ask(two, WRITE_REGISTER, ICR, [1, FIXED])
  return `${result}, ${two.apics.map((guest) => (guest.next() < 0 ? "none" : hex(guest.next()))).join(" and ")} are next`
})
const nmiOf = (behaviour: SvsmBehaviour, icr: Halves): string => {
  const two = machine(behaviour, 2)
  expect(ask(two, WRITE_REGISTER, ICR, icr).result).toBe("SUCCESS")
  return two.apics[1]!.nmi ? "an NMI" : hex(two.apics[1]!.next())
}
answer("apic/write-icr-nmi", (_, behaviour) => nmiOf(behaviour, [1, NMI]))
answer("apic/write-icr-nmi-others", (_, behaviour) => nmiOf(behaviour, [0, NMI | (3 << 18)]))
answer("apic/write-icr-nmi-logical", (_, behaviour) => nmiOf(behaviour, [0b10, NMI | (1 << 11)]))
answer("apic/write-icr-mode", (_, behaviour) =>
  results(
    behaviour,
    WRITE_REGISTER,
    ...[1, 2, 3, 5, 6, 7].map((mode): [number, Halves] => [ICR, [0, 0x4041 | (mode << 8)]])
  )
)
answer("apic/write-icr-reserved", (_, behaviour) =>
  results(
    behaviour,
    WRITE_REGISTER,
    ...[12, 13, 16, 17, 20, 31].map((bit): [number, Halves] => [ICR, [0, (FIXED | (1 << bit)) >>> 0]])
  )
)
answer("apic/write-read-only", (_, behaviour) =>
  results(
    behaviour,
    WRITE_REGISTER,
    ...[ID, LDR, PPR, ISR, ISR + 7, TMR, TMR + 7, IRR, IRR + 7].map((msr): [number] => [msr])
  )
)
answer("apic/write-else", (_, behaviour) => results(behaviour, WRITE_REGISTER, [LVTT], [0], [0x800], [0x80f], [0x840]))

/** Vectors of the host that pass after some CONFIGURE_VECTOR. */
const passing = (behaviour: SvsmBehaviour, ...configured: ReadonlyArray<number>): string => {
  const one = machine(behaviour)
  for (const rcx of configured) expect(ask(one, CONFIGURE_VECTOR, rcx).result).toBe("SUCCESS")
  const vectors = Array.from({ length: 256 }, (_, vector) => vector).filter((vector) => one.guest.post(vector))
  if (vectors.length === 0) return "none"
  const [first, last] = [vectors[0]!, vectors.at(-1)!]
  expect(vectors).toHaveLength(last - first + 1)
  return first === last ? hex(first) : `${first} to ${last}`
}
answer("apic/vector-none", (_, behaviour) => passing(behaviour))
answer("apic/vector", (_, behaviour) => passing(behaviour, ENABLE | 0x51))
answer("apic/vector-low", (_, behaviour) => passing(behaviour, ENABLE | 0x11))
answer("apic/vector-off", (_, behaviour) => passing(behaviour, ENABLE | 0x51, ENABLE | 0x61, 0x51))
answer("apic/vector-all", (_, behaviour) => passing(behaviour, ENABLE | ALL))
answer("apic/vector-all-off", (_, behaviour) => passing(behaviour, ENABLE | ALL, ENABLE | 0x11, ALL))
answer("apic/vector-bits", (_, behaviour) =>
  results(behaviour, CONFIGURE_VECTOR, [ENABLE | 0x400], [ENABLE | 0x8000], [0x8000_0000], [[1, ENABLE]])
)
answer("apic/in-service", (_, behaviour) => {
  const { guest } = machine(behaviour)
  for (let at = 0; at < 16; at++) guest.take(0x10 * at + 1)
  guest.endOfInterrupt()
  guest.take(0xe8)
  guest.postOwn(0xff)
  return guest.next() < 0 ? "waits" : "is taken"
})
answer("apic/event-31", (_, behaviour) => {
  const bytes = new Map<number, number>()
  const doorbell = 0x9000
  const one = machine(behaviour)
  ask(one, CONFIGURE_VECTOR, ENABLE | ALL)
  // Level 2 has events; its descriptor says: several vectors, 31 among them.
  const program = takeEventsBelow(doorbell, 2, (vector) => one.guest.post(vector))
  let step = program.next(NOTHING)
  let seen = 0
  while (step.done !== true) {
    const { address, op } = step.value as { readonly address: number; readonly op: number }
    const isFirst = seen++ === 0
    if (isFirst) bytes.set(address, 0b10)
    const descriptor = doorbell + 0x40 + 0x40
    bytes.set(descriptor + 1, bytes.get(descriptor + 1) ?? 1 << 6)
    bytes.set(descriptor + 3, bytes.get(descriptor + 3) ?? 1 << 7)
    const lo = bytes.get(address) ?? 0
    if (op !== OP.READ) bytes.set(address, 0)
    step = program.next({ ...NOTHING, lo })
  }
  return one.guest.next() === 31 ? "is requested" : "is lost"
})

/** Values that alternate injection leaves in byte 2 of the calling area, or null where it does not write there. */
const lazyByte = (behaviour: SvsmBehaviour, ...vectors: ReadonlyArray<number>): string => {
  const { guest } = machine(behaviour)
  for (const vector of vectors) guest.postOwn(vector)
  const injection = new GuestInjection(guest, BEHAVIOUR[behaviour].lazyEoi)
  const program = injection.refresh({ vmsaGpa: 0x1000, caGpa: 0x2000, apicId: 0, vmpl: 2, guestOwned: false })
  let byte = "left alone"
  let step = program.next(NOTHING)
  while (step.done !== true) {
    const { op, address, lo } = step.value as { readonly op: number; readonly address: number; readonly lo: number }
    if (op === OP.WRITE && address === 0x2000 + CALLING_AREA.no_eoi_required) byte = `${lo}`
    step = program.next({ ...NOTHING, lo: address === 0x1000 + VMSA.rflags ? RFLAGS_IF : 0 })
  }
  return byte
}
answer("apic/lazy-one", (_, behaviour) => lazyByte(behaviour, 0x41))
answer("apic/lazy-two", (_, behaviour) => lazyByte(behaviour, 0x41, 0x51))
answer("apic/lazy-cleared", (_, behaviour) => {
  const { guest } = machine(behaviour)
  guest.postOwn(0x41)
  const injection = new GuestInjection(guest, BEHAVIOUR[behaviour].lazyEoi)
  const served = { vmsaGpa: 0x1000, caGpa: 0x2000, apicId: 0, vmpl: 2, guestOwned: false }
  const withInterrupts = (program: Program): void => {
    for (let step = program.next(NOTHING); step.done !== true; ) {
      const { address } = step.value as { readonly address: number }
      step = program.next({ ...NOTHING, lo: address === 0x1000 + VMSA.rflags ? RFLAGS_IF : 0 })
    }
  }
  withInterrupts(injection.refresh(served))
  expect(guest.read(ISR + 2)).toBe(2)
  // The guest has cleared byte 2: all of what is read is 0.
  withInterrupts(injection.returned(served))
  return guest.read(ISR + 2) === 0 ? "ends the interrupt" : "means nothing"
})
// The query's answer hangs on the CPU that asks.
answer("query-protocol/apic", (_, behaviour) => {
  const there = machine(behaviour)
  const without = machine(behaviour)
  without.state.interrupts[0]!.guestApic = null
  const offered = ({ state }: Machine): string => {
    const caller = { vmsaGpa: 0x1000, caGpa: 0x2000, apicId: 0, vmpl: 2, guestOwned: true }
    return apicProtocol.versions(state, { caller } as never) === null ? "no" : "yes"
  }
  expect(apic(there.state, { call: 5, caller: { apicId: 0, vmpl: 2 } } as never)).toBeGreaterThan(0)
  return `${offered(there)} with, ${offered(without)} without`
})

check()
