/** What becomes of an emulated APIC that nobody needs any more: the host has it from then on. */
import { APIC_CALL, APIC_CONFIGURE, CALLING_AREA, X2APIC } from "@vmpl-lab/guest"
import { DOORBELL_DESCRIPTOR, INJECT_NMI, injectInterrupt, SEV_FEATURES, toNumber, VMSA } from "@vmpl-lab/sev-es"
import type { Operation } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import { svsmAnswers } from "../../../test/support/svsmAnswers.ts"
import { ask, CA_GPA, DESCRIPTOR, type Machine, machine, VMSA_GPA } from "./apicMachine.ts"

const { answer, check } = svsmAnswers()
const { SNPActive, AlternateInjection } = SEV_FEATURES
const { IRR, ISR } = DOORBELL_DESCRIPTOR
const MULTIPLE_AND = (rest: number): number => ((1 << 14) | rest) >>> 0

const deregister = (one: Machine, between?: (operation: Operation) => void): string =>
  ask(one, APIC_CALL.CONFIGURE, APIC_CONFIGURE.DEREGISTER, between === undefined ? {} : { between })

/** Vectors of a set of words in the descriptor. */
const vectors = ({ memory }: Machine, at: number, first: number): string =>
  Array.from({ length: 256 - first }, (_, i) => i)
    .filter((bit) => (memory.getUint8(DESCRIPTOR + at + (bit >> 3)) & (1 << (bit & 7))) !== 0)
    .map((bit) => `0x${(first + bit).toString(16)}`)
    .join(" and ")
const status = ({ memory }: Machine): number => memory.getUint32(DESCRIPTOR, true)

answer("apic/hand-over-vectors", (_, behaviour) => {
  const one = machine(behaviour)
  expect(deregister(one)).toBe("SUCCESS")
  expect(one.cpu.guestApic).toBeNull()
  expect(status(one)).toBe(MULTIPLE_AND(1 << 31))
  return `in service ${vectors(one, ISR, 0)}, requested 0x1f and ${vectors(one, IRR, 32)}`
})
answer("apic/hand-over-exit", (_, behaviour) => {
  const one = machine(behaviour)
  deregister(one)
  return one.exits.join("; ")
})
answer("apic/hand-over-shadow", (_, behaviour) => {
  const one = machine(behaviour)
  one.memory.setUint32(VMSA_GPA + VMSA.rflags, 2, true)
  one.memory.setUint32(VMSA_GPA + VMSA.vintr_ctrl, 1 << 10, true)
  deregister(one)
  return one.exits.join("; ")
})
answer("apic/hand-over-event", (_, behaviour) => {
  const one = machine(behaviour)
  one.guest.postOwn(0x91)
  one.guest.take(0x91)
  one.memory.setUint32(VMSA_GPA + VMSA.event_inj, injectInterrupt(0x91), true)
  expect(deregister(one)).toBe("SUCCESS")
  expect(one.memory.getUint32(VMSA_GPA + VMSA.event_inj, true)).toBe(0)
  return `requested ${vectors(one, IRR, 32)}, in service ${vectors(one, ISR, 0)}`
})
answer("apic/hand-over-nmi", (_, behaviour) => {
  const told = [true, false].map((waits) => {
    const one = machine(behaviour)
    one.guest.nmi = waits
    if (!waits) one.memory.setUint32(VMSA_GPA + VMSA.event_inj, INJECT_NMI, true)
    deregister(one)
    return (status(one) & (1 << 8)) !== 0
  })
  expect(told).toEqual([true, true])
  const none = machine(behaviour)
  deregister(none)
  return (status(none) & (1 << 8)) === 0 ? "told, where there is one" : "told always"
})
answer("apic/hand-over-host", (_, behaviour) => {
  const one = machine(behaviour)
  one.memory.setUint32(DESCRIPTOR, 0x71, true)
  let brought = false
  // While the words are being filled, the host brings another one.
  deregister(one, ({ address }) => {
    if (brought || address !== DESCRIPTOR + IRR + 8) return
    brought = true
    one.memory.setUint8(DESCRIPTOR + IRR + 8, one.memory.getUint8(DESCRIPTOR + IRR + 8) | 0x2)
  })
  expect(brought).toBe(true)
  return `requested ${vectors(one, IRR, 32)}`
})
answer("apic/hand-over-features", (_, behaviour) => {
  const features = [true, false].map((guestOwned) => {
    const one = machine(behaviour, { guestOwned })
    deregister(one)
    return [one.memory.getUint32(VMSA_GPA + VMSA.sev_features, true), one.state.startUpFeatures]
  })
  expect(features).toEqual([
    [SNPActive, SNPActive | AlternateInjection],
    [SNPActive, SNPActive]
  ])
  return "cleared"
})
answer("apic/hand-over-lazy", (_, behaviour) => {
  const one = machine(behaviour)
  deregister(one)
  const byte = one.memory.getUint8(CA_GPA + CALLING_AREA.no_eoi_required)
  return byte === 7 ? "left alone" : `${byte}`
})
answer("apic/hand-over-refused", (host, behaviour) => {
  const one = machine(behaviour, { refuses: true })
  const before = { requested: one.guest.requested, inService: one.guest.inService }
  const result = deregister(one)
  for (const [why, times] of one.state.panics) host.state.panics.set(why, times)
  expect(one.exits).toHaveLength(1)
  expect(one.memory.getUint32(VMSA_GPA + VMSA.sev_features, true)).toBe(SNPActive | AlternateInjection)
  expect({ requested: one.guest.requested, inService: one.guest.inService }).toEqual(before)
  expect(toNumber(status(one), one.memory.getUint32(DESCRIPTOR + IRR, true))).toBe(0)
  expect(vectors(one, ISR, 0)).toBe("")
  expect(ask(one, APIC_CALL.QUERY_FEATURES, 0)).toBe("SUCCESS")
  // Whoever asks later may have it.
  expect(ask(one, APIC_CALL.CONFIGURE, APIC_CONFIGURE.QUERY)).toBe(result)
  return `${result}, the emulation goes on`
})
answer("apic/hand-over-early", (_, behaviour) => {
  const one = machine(behaviour)
  one.state.apicUsers = 2
  expect(deregister(one)).toBe("SUCCESS")
  return one.exits.length === 0 && one.cpu.guestApic === one.guest ? "not told" : one.exits.join()
})
answer("apic/other-level", (_, behaviour) => {
  const one = machine(behaviour, { vmpl: 3 })
  const calls = Object.values(APIC_CALL).map((call) => ask(one, call, X2APIC.TPR))
  expect(one.exits).toEqual([])
  return behaviour === "coconut" ? "it cannot run" : [...new Set(calls)].join(", ")
})

check()
