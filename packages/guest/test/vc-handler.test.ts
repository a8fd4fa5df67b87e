import { EXIT, GHCB_MSR, PSC_OP, pscOp, terminationLo } from "@vmpl-lab/sev-es"
import { cpuid, GuestException, OperationResult, read } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import { Ghcb, pageStateChange, registerGhcb, sevInfo, vcHandler } from "../src/index.ts"

const answering = (answer: (lo: number, hi: number) => readonly [number, number]): ScriptedMachine => {
  const machine = new ScriptedMachine()
  machine.onVmgexit = (at) => {
    at.msr = answer(...at.msr)
  }
  return machine
}
const echo = (lo: number, hi: number): readonly [number, number] => [lo, hi]

describe("the #VC handler", () => {
  it.each([0, 0x8000_001f, 0xffff_ffff])("emulates CPUID of leaf 0x%s register by register", (leaf) => {
    const machine = answering((lo, hi) => [(lo & ~0xfff) | GHCB_MSR.CPUID_RESPONSE, (hi ^ (lo >>> 30)) >>> 0])
    const result = new OperationResult()
    machine.run(vcHandler(EXIT.CPUID, cpuid(leaf), result))
    expect([result.lo, result.hi, result.ecx, result.edx]).toEqual([0, 1, 2, 3].map((r) => (leaf ^ r) >>> 0))
    expect(machine.exits).toEqual([0, 1, 2, 3].map((r) => [((r << 30) | 0x004) >>> 0, leaf]))
  })

  it("raises #GP when the answer to CPUID is of another kind", () => {
    const machine = answering(echo)
    expect(() => machine.run(vcHandler(EXIT.CPUID, cpuid(0), new OperationResult()))).toThrow(GuestException)
  })

  it.each([
    ["a page that is not validated", EXIT.PAGE_NOT_VALIDATED, terminationLo(1, 2)],
    ["an intercept that it does not know", EXIT.INTR, terminationLo(0, 0)],
    ["a nested page fault", EXIT.NPF, terminationLo(0, 0)]
  ])("terminates on %s and never goes on", (_, code, request) => {
    const machine = answering(echo)
    expect(machine.run(vcHandler(code, read(0x1000, 8), new OperationResult()))).toBe("halted")
    expect(machine.exits).toEqual([[request, 0]])
  })
})

describe("requests over the GHCB MSR", () => {
  it("SEV information is read from the response, and #GP for any other", () => {
    expect(answering(() => [0x3300_0001, 0x0002_0001]).run(sevInfo())).toEqual({ min: 1, max: 2, cbit: 51 })
    expect(answering(() => [0x2f00_0001, 0x0004_0003]).run(sevInfo())).toEqual({ min: 3, max: 4, cbit: 47 })
    expect(() => answering(echo).run(sevInfo())).toThrow(GuestException)
  })

  it.each([
    ["done", [0x015, 0], true],
    ["an error in the upper half", [0x015, 0x8000_0000], false],
    ["an error of 1", [0x015, 1], false],
    ["reserved bits set", [0x1015, 0], false],
    ["no response at all", [0x014, 0], false]
  ] as const)("page state change: %s", (_, answer, done) => {
    const machine = answering(() => answer)
    expect(machine.run(pageStateChange(0x1_2345_6000, PSC_OP.SHARED))).toBe(done)
    const [lo, hi] = machine.exits[0]!
    expect([lo, hi & 0xf_ffff, pscOp(hi)]).toEqual([0x2345_6014, 1, PSC_OP.SHARED])
  })

  it.each([
    ["the same frame", (lo: number, hi: number) => [lo + 1, hi], true],
    ["another frame", (lo: number, hi: number) => [lo + 0x1001, hi], false],
    ["another frame in the upper half", (lo: number, hi: number) => [lo + 1, hi + 1], false],
    ["no response", echo, false]
  ] as const)("registering a GHCB: %s", (_, answer, accepted) => {
    const machine = answering(answer as typeof echo)
    expect(machine.run(registerGhcb(0x1_2345_6000))).toBe(accepted)
    expect(machine.exits).toEqual([[0x2345_6012, 1]])
  })

  it("a GHCB that the host will not share or register ends the guest with the reason", () => {
    const refuse = (code: number) =>
      answering((lo, hi) => {
        if ((lo & 0xfff) === code) return [code, hi]
        return (lo & 0xfff) === GHCB_MSR.PSC_REQUEST ? [0x015, 0] : [lo + 1, hi]
      })
    for (const [code, reason] of [
      [GHCB_MSR.PSC_REQUEST, 1],
      [GHCB_MSR.REGISTER_GPA_REQUEST, 0]
    ] as const) {
      const machine = refuse(code)
      expect(machine.run(new Ghcb(0x2_0000).setUp())).toBe("halted")
      expect(machine.exits.at(-1)).toEqual([terminationLo(1, reason), 0])
    }
    const willing = refuse(0xfff)
    expect(willing.run(new Ghcb(0x2_0000).setUp())).toBeUndefined()
    expect(willing.msr).toEqual([0x2_0000, 0])
    expect(willing.get(0x2_0ffa, 2, "shared")[0]).toBe(2)
  })
})
