import { apVmsa, CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, GHCB_MSR, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { CA, GUEST_VMSA, LIST, OTHER_CA, PAGE, ScriptedHost } from "../../../test/support/scriptedHost.ts"

/** VMPL2 has given its own vCPU a VMSA at VMPL3, at PAGE with the calling area OTHER_CA. */
const withVmpl3 = (): ScriptedHost => {
  const host = new ScriptedHost().boot()
  const view = host.poke(PAGE)
  const sevFeatures = SEV_FEATURES.SNPActive
  const bytes = apVmsa({ vmpl: 3, sevFeatures, codeBase: 0x8000, rip: 0, argument: 0 })
  new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
  const registers = { rcx: PAGE, rdx: OTHER_CA, r8: 0 }
  expect(host.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, registers).result).toBe(SVSM_RESULT.SUCCESS)
  return host
}

/** A level has a call pending in its area, and left by VMGEXIT. */
const pend = (host: ScriptedHost, vmsa: number, area: number): void => {
  host.poke(vmsa).setUint32(VMSA.guest_exit_code, EXIT.VMGEXIT, true)
  host.poke(vmsa).setUint32(VMSA.rax, CORE_CALL.QUERY_PROTOCOL, true)
  host.poke(vmsa).setUint32(VMSA.rax + 4, PROTOCOL.CORE, true)
  host.poke(vmsa).setUint32(VMSA.rcx, 1, true)
  host.poke(area).setUint8(0, 1)
}

/** Lets the SVSM run until it asks the host for a level. @returns that level */
const runTo = (host: ScriptedHost): number => {
  host.answer()
  const { code, request, argument } = host.run()
  expect([code, request]).toEqual([EXIT.VMGEXIT, GHCB_MSR.RUN_VMPL_REQUEST])
  return argument
}

const isServed = (host: ScriptedHost, area: number): boolean => host.peek(area).getUint8(0) === 0

describe("an SVSM CPU with two guest levels", () => {
  it("goes back to the creator after CREATE_VCPU, and to whichever level called after that", () => {
    const host = withVmpl3()
    for (const [vmsa, area, vmpl] of [
      [PAGE, OTHER_CA, 3],
      [GUEST_VMSA, CA, 2],
      [PAGE, OTHER_CA, 3],
      [PAGE, OTHER_CA, 3]
    ] as const) {
      pend(host, vmsa, area)
      expect([runTo(host), isServed(host, area)]).toEqual([vmpl, true])
    }
  })

  it("serves the more privileged level first, and the other one when that is done", () => {
    const host = withVmpl3()
    pend(host, PAGE, OTHER_CA)
    pend(host, GUEST_VMSA, CA)
    expect([runTo(host), isServed(host, CA), isServed(host, OTHER_CA)]).toEqual([2, true, false])
    expect([runTo(host), isServed(host, OTHER_CA)]).toEqual([3, true])
  })

  it("runs the level that it served last when nobody has called", () => {
    const host = withVmpl3()
    expect(runTo(host)).toBe(2)
    pend(host, PAGE, OTHER_CA)
    expect([runTo(host), runTo(host)]).toEqual([3, 3])
  })

  it("leaves EFER.SVME set in both", () => {
    const host = withVmpl3()
    pend(host, PAGE, OTHER_CA)
    runTo(host)
    for (const vmsa of [GUEST_VMSA, PAGE]) {
      expect(host.peek(vmsa).getUint32(VMSA.efer, true) & EFER_SVME).toBe(EFER_SVME)
    }
  })

  it("does not do with VMPL2's memory what VMPL3 could not do itself", () => {
    const host = withVmpl3()
    host.fill(LIST, 0xcc)
    pend(host, PAGE, OTHER_CA)
    for (const [call, rcx] of [
      [CORE_CALL.REMAP_CA, LIST],
      [CORE_CALL.PVALIDATE, LIST],
      [CORE_CALL.DEPOSIT_MEM, LIST],
      [CORE_CALL.WITHDRAW_MEM, LIST],
      [CORE_CALL.CREATE_VCPU, LIST]
    ] as const) {
      pend(host, PAGE, OTHER_CA)
      const vmsa = host.poke(PAGE)
      vmsa.setUint32(VMSA.rax, call, true)
      vmsa.setUint32(VMSA.rcx, rcx, true)
      vmsa.setUint32(VMSA.rdx, 0x3_1000, true)
      runTo(host)
      expect(host.peek(PAGE).getUint32(VMSA.rax, true)).toBe(SVSM_RESULT.INVALID_ADDRESS)
      expect([host.peek(LIST).getUint32(0), host.entry(LIST).perms]).toEqual([0xcccc_cccc, [0xf, 0xf, 0xf, 0]])
    }
  })

  it("refuses VMPL3 a VMSA that is more privileged than itself", () => {
    const host = withVmpl3()
    for (const gpa of [LIST, 0x3_1000]) host.setEntry(gpa, { perms: [0xf, 0xf, 0xf, 0xf] })
    const view = host.poke(LIST)
    const bytes = apVmsa({ vmpl: 2, sevFeatures: SEV_FEATURES.SNPActive, codeBase: 0x8000, rip: 0, argument: 1 })
    new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
    pend(host, PAGE, OTHER_CA)
    const vmsa = host.poke(PAGE)
    vmsa.setUint32(VMSA.rax, CORE_CALL.CREATE_VCPU, true)
    vmsa.setUint32(VMSA.rcx, LIST, true)
    vmsa.setUint32(VMSA.rdx, 0x3_1000, true)
    vmsa.setUint32(VMSA.r8, 1, true)
    expect(runTo(host)).toBe(3)
    expect(host.peek(PAGE).getUint32(VMSA.rax, true)).toBe(SVSM_RESULT.INVALID_PARAMETER)
    expect(host.state.running[1]).toBeUndefined()
  })
})
