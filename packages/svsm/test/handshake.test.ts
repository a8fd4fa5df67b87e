import { CALLING_AREA, CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { CA, GUEST_VMSA, OTHER_CA, pair, ScriptedHost } from "../../../test/support/scriptedHost.ts"

const { SUCCESS, INVALID_FORMAT, UNSUPPORTED_PROTOCOL, UNSUPPORTED_CALL } = SVSM_RESULT
const QUERY = CORE_CALL.QUERY_PROTOCOL
const booted = (): ScriptedHost => new ScriptedHost().boot()

/** Registers of a call that would succeed, with the given state of the calling area and exit code. */
const ring = (host: ScriptedHost, pending: number, exitCode: number = EXIT.VMGEXIT) => {
  host.setRegister("rax", [PROTOCOL.CORE, QUERY])
  host.setRegister("rcx", 1)
  host.poke(CA).setUint8(0, pending)
  return host.enter(CA, exitCode)
}
const UNTOUCHED = { result: pair(PROTOCOL.CORE, QUERY), rcx: 1 }
const SERVED = { result: SUCCESS, rcx: pair(1, 1), pending: 0 }

const svme = (host: ScriptedHost): boolean => (host.register("efer") & EFER_SVME) !== 0

describe("on an entry from the guest", () => {
  it("a pending call is served", () => {
    expect(ring(booted(), 1)).toMatchObject(SERVED)
  })

  it("no pending call is a spurious entry: registers stay as they are", () => {
    const host = booted()
    expect(ring(host, 0)).toMatchObject({ ...UNTOUCHED, pending: 0 })
    expect(svme(host)).toBe(true)
    expect(ring(host, 1)).toMatchObject(SERVED)
  })

  it.each([2, 3, 0x80, 255])("a call_pending of %i is INVALID_FORMAT, and nothing is served", (pending) => {
    expect(ring(booted(), pending)).toMatchObject({ result: INVALID_FORMAT, rcx: 1, pending: 0 })
  })

  it.each([EXIT.INTR, EXIT.HLT, EXIT.NPF, EXIT.CPUID, EXIT.SHUTDOWN, EXIT.PAGE_NOT_VALIDATED, 0])(
    "an exit by 0x%s is no call, though one is pending: it waits for the VMGEXIT",
    (code) => {
      const host = booted()
      for (const pending of [1, 2]) {
        expect(ring(host, pending, code)).toMatchObject({ ...UNTOUCHED, pending })
        expect(svme(host)).toBe(true)
      }
      expect(ring(host, 1)).toMatchObject(SERVED)
    }
  )

  it("only the first byte of the calling area counts", () => {
    const host = booted()
    host.poke(CA).setUint32(0, 0xffff_ff00, true)
    host.poke(CA).setUint32(4, 0xffff_ffff, true)
    expect(ring(host, 0)).toMatchObject(UNTOUCHED)
    expect(ring(host, 1)).toMatchObject(SERVED)
    expect(host.peek(CA).getUint32(0, true)).toBe(0xffff_ff00)
  })
})

describe("while a call is served", () => {
  it("SVME is off, from before the calling area is looked at until everything else is written", () => {
    for (const call of [QUERY, CORE_CALL.REMAP_CA, CORE_CALL.CREATE_VCPU, CORE_CALL.PVALIDATE, 77]) {
      const host = booted()
      expect(svme(host)).toBe(true)
      const during: Array<boolean> = []
      host.meddle = () => during.push(svme(host))
      host.call(PROTOCOL.CORE, call, { rcx: OTHER_CA, rdx: CA })
      expect(svme(host)).toBe(true)
      const touched = host.seen.flatMap(({ operation: { op, address } }, i) =>
        (op === OP.READ || op === OP.WRITE) && address !== GUEST_VMSA + VMSA.efer ? [during[i]] : []
      )
      expect(touched.length).toBeGreaterThan(8)
      expect(touched.every((on) => on === false)).toBe(true)
    }
  })

  it.each([
    ["a call that is served", QUERY, 1],
    ["an unknown call", 99, 1],
    ["INVALID_FORMAT", QUERY, 2]
  ])("%s ends with RAX, call_pending and SVME, in this order", (_, call, pending) => {
    const host = booted()
    host.setRegister("rax", [PROTOCOL.CORE, call])
    host.poke(CA).setUint8(0, pending)
    host.enter(CA)
    const writes = host.seen.filter(({ operation: { op } }) => op === OP.WRITE).map(({ operation }) => operation)
    expect(writes.slice(-3).map(({ address, size, lo }) => [address, size, lo])).toEqual([
      [GUEST_VMSA + VMSA.rax, 8, host.register("rax")],
      [CA + CALLING_AREA.call_pending, 1, 0],
      [GUEST_VMSA + VMSA.efer, 4, EFER_SVME]
    ])
    expect(writes.filter(({ address }) => address === GUEST_VMSA + VMSA.rax)).toHaveLength(1)
    expect(writes[0]).toMatchObject({ address: GUEST_VMSA + VMSA.efer, lo: 0 })
  })

  it("other bits of EFER stay as they were", () => {
    const host = booted()
    host.setRegister("efer", EFER_SVME | 0xd01)
    ring(host, 1)
    expect(host.register("efer")).toBe(EFER_SVME | 0xd01)
  })

  it("what the guest changes in the calling area meanwhile does not matter: RAX was read before", () => {
    const host = booted()
    host.meddle = ({ op, address }) => {
      if (op === OP.READ && address === GUEST_VMSA + VMSA.rcx) host.poke(CA).setUint8(0, 7)
    }
    expect(host.call(PROTOCOL.CORE, QUERY, { rcx: 1 })).toMatchObject(SERVED)
  })
})

describe("when the host does not run the guest", () => {
  it("the SVSM halts, serves nothing, and asks again once it goes on", () => {
    const host = booted()
    host.poke(CA).setUint8(0, 1)
    host.poke(GUEST_VMSA).setUint32(VMSA.guest_exit_code, EXIT.VMGEXIT, true)
    host.answer(1)
    expect(host.run().code).toBe(EXIT.HLT)
    expect(host.peek(CA).getUint8(0)).toBe(1)
    host.expectRunsGuest()
  })

  it("without a VMSA to run it idles until there is one", () => {
    const host = new ScriptedHost()
    const served = host.state.running[0]!
    host.state.running[0] = undefined
    for (let i = 0; i < 3; i++) expect(host.run().code).toBe(EXIT.HLT)
    host.state.running[0] = served
    host.expectRunsGuest()
  })
})

describe("calls that do not exist", () => {
  it.each([2, 3, 4, 0x8000_0000, 0xffff_ffff])("protocol 0x%s is UNSUPPORTED_PROTOCOL for every call", (protocol) => {
    const host = booted()
    for (const call of [0, 1, 6, 0xffff_ffff]) {
      expect(host.call(protocol, call, { rcx: 5, rdx: 6, r8: 7 })).toEqual({
        result: UNSUPPORTED_PROTOCOL,
        rcx: 5,
        rdx: 6,
        r8: 7,
        pending: 0
      })
    }
  })

  it.each([8, 9, 0x8000_0000, 0xffff_ffff])("core call 0x%s is UNSUPPORTED_CALL", (call) => {
    expect(booted().call(PROTOCOL.CORE, call, { rcx: 5, rdx: 6, r8: 7 })).toEqual({
      result: UNSUPPORTED_CALL,
      rcx: 5,
      rdx: 6,
      r8: 7,
      pending: 0
    })
  })
})

describe("QUERY_PROTOCOL", () => {
  it.each([
    ["core, version 1", 0, 1, pair(1, 1)],
    ["core, version 0", 0, 0, 0],
    ["core, version 2", 0, 2, 0],
    ["core, version 2^32 - 1", 0, 0xffff_ffff, 0],
    ["attestation, version 1", 1, 1, pair(1, 1)],
    ["vTPM, version 1", 2, 1, 0],
    ["APIC, version 1", 3, 1, 0],
    ["a protocol of nobody's", 0xffff_ffff, 1, 0]
  ])("%s: always success", (_, protocol, version, rcx) => {
    expect(booted().call(PROTOCOL.CORE, QUERY, { rcx: [protocol, version], rdx: 6, r8: [1, 2] })).toEqual({
      result: SUCCESS,
      rcx,
      rdx: 6,
      r8: pair(1, 2),
      pending: 0
    })
  })
})

it("registers that a call does not return come back whole, all 64 bits", () => {
  const host = booted()
  const odd = [0xffff_ffff, 0xfedc_ba98] as const
  host.call(PROTOCOL.CORE, 99, { rcx: odd, rdx: odd, r8: odd })
  const view = host.peek(GUEST_VMSA)
  for (const name of ["rcx", "rdx", "r8"] as const) {
    expect([view.getUint32(VMSA[name] + 4, true), view.getUint32(VMSA[name], true)]).toEqual([...odd])
  }
  expect(CA % PAGE_SIZE).toBe(0)
})
