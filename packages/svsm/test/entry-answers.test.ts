import { CALLING_AREA, CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, VMSA } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { expect } from "vitest"
import { CA, GUEST_VMSA, OTHER_CA, PAGE, ScriptedHost, UNVALIDATED } from "../../../test/support/scriptedHost.ts"
import { core, NEW, NEW_CA, pend, putVmsa, svsmAnswers, writeList } from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { QUERY_PROTOCOL, PVALIDATE, CREATE_VCPU } = CORE_CALL
const NO_CALL = 99
const VALIDATE = 4
const hex = (value: number): string => `0x${value.toString(16)}`

/** Offsets in a page that the SVSM touched, by what it did. */
const touched = (host: ScriptedHost, gpa: number, kind: number): ReadonlyArray<number> =>
  host.seen
    .filter(({ operation: { op, address } }) => op === kind && address >= gpa && address < gpa + 0x1000)
    .map(({ operation: { address } }) => address - gpa)

answer("entry/pending-1", (host) => core(host, QUERY_PROTOCOL, { rcx: 1 }))
answer("entry/pending-255", (host) => {
  pend(host, GUEST_VMSA, CA, QUERY_PROTOCOL)
  host.poke(CA).setUint8(0, 0xff)
  const { result, pending } = host.enter(CA)
  expect(pending).toBe(0)
  return result === SVSM_RESULT.INVALID_FORMAT ? "INVALID_FORMAT" : "SUCCESS"
})
answer("entry/pending-2-exit", (host) => {
  pend(host, GUEST_VMSA, CA, QUERY_PROTOCOL)
  host.poke(CA).setUint8(0, 2)
  const { result, pending } = host.enter(CA, EXIT.HLT)
  expect(pending).toBe(2)
  return result === QUERY_PROTOCOL ? "not served" : "served"
})
answer("entry/reserved", (host) => {
  const view = host.poke(CA)
  for (let at = 2; at < 8; at++) view.setUint8(at, 0xc0 + at)
  const result = core(host, QUERY_PROTOCOL, { rcx: 1 })
  const kept = Array.from({ length: 6 }, (_, i) => host.peek(CA).getUint8(2 + i) === 0xc2 + i)
  return `${result}, ${kept.every((same) => same) ? "kept" : "changed"}`
})
answer("entry/behind", (host) => {
  writeList(host, [UNVALIDATED + VALIDATE], 1, 0, CA + CALLING_AREA.SIZE)
  return core(host, PVALIDATE, { rcx: CA + CALLING_AREA.SIZE })
})
answer("entry/inside", (host) => core(host, PVALIDATE, { rcx: CA }))
answer("entry/svme", (host) => {
  const during: Array<boolean> = []
  host.meddle = ({ op, address }) => {
    if ((op !== OP.READ && op !== OP.WRITE) || address === GUEST_VMSA + VMSA.efer) return
    during.push((host.register("efer") & EFER_SVME) !== 0)
  }
  core(host, QUERY_PROTOCOL, { rcx: 1 })
  expect(during.length).toBeGreaterThan(4)
  const after = (host.register("efer") & EFER_SVME) !== 0
  return `${during.some((on) => on) ? "set" : "clear"}, then ${after ? "set" : "clear"}`
})
answer("entry/svme-spurious", (host) => {
  pend(host, GUEST_VMSA, CA, QUERY_PROTOCOL)
  host.poke(CA).setUint8(0, 0)
  host.enter(CA)
  return (host.register("efer") & EFER_SVME) !== 0 ? "set again" : "clear"
})
answer("entry/last", (host) => {
  core(host, QUERY_PROTOCOL, { rcx: 1 })
  const last = host.seen.filter(({ operation: { op } }) => op === OP.WRITE).at(-1)!
  return last.operation.address === GUEST_VMSA + VMSA.efer ? "EFER.SVME" : hex(last.operation.address)
})
answer("entry/rax", (host) => {
  host.call(PROTOCOL.CORE, NO_CALL)
  const view = host.peek(GUEST_VMSA)
  return `${hex(view.getUint32(VMSA.rax, true))}, upper half ${view.getUint32(VMSA.rax + 4, true)}`
})
answer("entry/registers", (host) => {
  const odd = [0xffff_ffff, 0xfedc_ba98] as const
  host.call(PROTOCOL.CORE, NO_CALL, { rcx: odd, rdx: odd, r8: odd })
  const written = touched(host, GUEST_VMSA, OP.WRITE)
  const offsets = [VMSA.rcx, VMSA.rdx, VMSA.r8]
  const view = host.peek(GUEST_VMSA)
  const same = offsets.every((at) => view.getUint32(at, true) === odd[1] && view.getUint32(at + 4, true) === odd[0])
  return offsets.every((at) => written.includes(at)) && same ? "written back, all 64 bits" : "left alone"
})
answer("entry/r9", (host) => {
  core(host, CORE_CALL.CONFIGURE_VTOM, { rcx: 0x1e })
  const all = [...touched(host, GUEST_VMSA, OP.READ), ...touched(host, GUEST_VMSA, OP.WRITE)]
  return all.includes(VMSA.r9) ? "touched" : "neither read nor written"
})
answer("entry/features", (host) => {
  core(host, QUERY_PROTOCOL, { rcx: 1 })
  return touched(host, GUEST_VMSA, OP.READ).includes(VMSA.sev_features) ? "read with the registers" : "not read"
})
answer("entry/not-run", (host) => {
  pend(host, GUEST_VMSA, CA, QUERY_PROTOCOL)
  host.answer(1)
  expect(host.run().code).toBe(EXIT.HLT)
  expect(host.peek(CA).getUint8(0)).toBe(1)
  host.expectRunsGuest()
  return "halts, then asks again"
})
answer("entry/no-vmsa", (host) => {
  const { state } = host
  const served = state.running[0]
  state.running[0] = undefined
  host.answer()
  for (let i = 0; i < 3; i++) expect(host.run().code).toBe(EXIT.HLT)
  state.running[0] = served
  host.expectRunsGuest()
  return "idles until there is one"
})
answer("entry/replaced", (host) => {
  putVmsa(host, NEW)
  expect(core(host, CREATE_VCPU, { rcx: NEW, rdx: NEW_CA, r8: 0 })).toBe("SUCCESS")
  pend(host, NEW, NEW_CA, QUERY_PROTOCOL, { rcx: 1 })
  pend(host, GUEST_VMSA, CA, QUERY_PROTOCOL, { rcx: 1 })
  host.answer()
  host.expectRunsGuest()
  return `${host.peek(NEW_CA).getUint8(0) === 0 ? "the newer" : "the older"} alone`
})

answer("result/values", () => {
  const { INCOMPLETE, UNSUPPORTED_PROTOCOL, UNSUPPORTED_CALL, INVALID_ADDRESS, INVALID_FORMAT } = SVSM_RESULT
  const { INVALID_PARAMETER, INVALID_REQUEST, BUSY, FAIL_BASE, SUCCESS } = SVSM_RESULT
  const failures: Array<number> = [INCOMPLETE, UNSUPPORTED_PROTOCOL, UNSUPPORTED_CALL, INVALID_ADDRESS, INVALID_FORMAT]
  failures.push(INVALID_PARAMETER, INVALID_REQUEST, BUSY)
  expect(failures).toEqual(failures.map((_, i) => 0x8000_0000 + i))
  return [SUCCESS, INCOMPLETE, BUSY, FAIL_BASE].map(hex).join(", ")
})
answer("result/protocols", () => [PROTOCOL.CORE, PROTOCOL.ATTESTATION, PROTOCOL.VTPM, PROTOCOL.APIC].join(", "))
answer("result/reserved", (_, behaviour) => {
  const address = fc.constantFrom(0, CA, PAGE, OTHER_CA, UNVALIDATED, GUEST_VMSA, 2 ** 40, PAGE + 4, PAGE + 8)
  const codes = new Set<number>()
  const host = new ScriptedHost(behaviour).boot()
  fc.assert(
    fc.property(fc.nat(4), fc.nat(9), address, address, fc.nat(5), (protocol, call, rcx, rdx, r8) => {
      // The guest's own VMSA must stay the one that is called from.
      if (protocol === 0 && (call === CREATE_VCPU || call === CORE_CALL.REMAP_CA)) return
      codes.add(host.call(protocol, call, { rcx, rdx, r8 }).result)
    }),
    { numRuns: 400, seed: 11 }
  )
  host.state.panics.clear()
  expect(codes.size).toBeGreaterThan(4)
  const isKnown = (code: number): boolean =>
    code === 0 || (code >= 0x8000_0000 && code <= 0x8000_0007) || (code >= 0x8000_1001 && code <= 0x8000_1011)
  return [...codes].every(isKnown)
    ? "none"
    : [...codes]
        .filter((code) => !isKnown(code))
        .map(hex)
        .join()
})

check()
