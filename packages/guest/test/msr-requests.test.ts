// @ghcb msr 0x002, msr 0x004, msr 0x006, msr 0x010, msr 0x012, msr 0x014, msr 0x016, msr 0x080, msr 0x100
import { terminationLo } from "@vmpl-lab/sev-es"
import { GuestException, type Program } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import {
  apResetHoldMsr,
  cpuidRegister,
  Ghcb,
  hvFeaturesMsr,
  keepingGhcbMsr,
  makeShared,
  negotiateVersion,
  preferredGhcb,
  registerGhcb,
  runVmplMsr,
  sevInfo,
  terminate,
  UNEXPECTED_RESPONSE
} from "../src/index.ts"

type Msr = readonly [lo: number, hi: number]

/** Runs a request against answers, the last of which repeats. */
const ask = <R>(program: Program<R>, ...answers: ReadonlyArray<Msr>) => {
  const machine = new ScriptedMachine()
  machine.onVmgexit = (at) => {
    at.msr = answers[Math.min(at.exits.length, answers.length) - 1]!
  }
  let outcome: unknown
  try {
    outcome = machine.run(program)
  } catch (exception) {
    if (!(exception instanceof GuestException)) throw exception
    outcome = exception.vector
  }
  return { outcome, exits: machine.exits, machine }
}

describe("the version", () => {
  it.each([
    ["1 to 2", [0x3300_0001, 0x0002_0001], 2],
    ["1 alone", [0x3300_0001, 0x0001_0001], 1],
    ["2 alone", [0x3300_0001, 0x0002_0002], 2],
    ["2 to 9", [0x3300_0001, 0x0009_0002], 2],
    ["0 to 1", [0x3300_0001, 0x0001_0000], 1]
  ] as const)("is the highest common one: %s", (_, answer, version) => {
    const { outcome, exits } = ask(negotiateVersion(), answer)
    expect([outcome, exits]).toEqual([version, [[0x002, 0]]])
  })

  it.each([
    ["beyond", [0x3300_0001, 0x0004_0003]],
    ["before", [0x3300_0001, 0]],
    ["upside down", [0x3300_0001, 0x0001_0002]],
    ["with a reserved bit", [0x3300_1001, 0x0002_0001]],
    ["another code", [0x3300_0003, 0x0002_0001]]
  ] as const)("ends the guest when there is none: %s", (_, answer) => {
    const { outcome, exits } = ask(negotiateVersion(), answer)
    expect([outcome, exits.at(-1)]).toEqual(["halted", [terminationLo(0, 1), 0]])
  })
})

describe("a response with reserved bits or of another kind", () => {
  it.each([
    ["SEV information", sevInfo, [0x3300_1001, 0x0002_0001]],
    ["CPUID, another register", () => cpuidRegister(1, 1), [0x8000_0005, 7]],
    ["CPUID, reserved bits", () => cpuidRegister(1, 1), [0x4000_1005, 7]],
    ["AP reset hold", apResetHoldMsr, [0x1006, 0]],
    ["preferred GHCB", preferredGhcb, [0x1010, 0]],
    ["preferred GHCB above 2^52", preferredGhcb, [0x1011, 0x10_0000]],
    ["hypervisor features", () => hvFeaturesMsr(2), [0x1080, 0]]
  ] as ReadonlyArray<readonly [string, () => Program<unknown>, Msr]>)("is #GP: %s", (_, request, answer) => {
    expect(ask(request(), answer).outcome).toBe("#GP")
  })

  it("is a refusal where there is one", () => {
    expect(ask(makeShared(0x1000), [0x1015, 0]).outcome).toBe(false)
    expect(ask(registerGhcb(0x1000), [0x2013, 0]).outcome).toBe(false)
    for (const lo of [0x1017, 0x016, 0x015]) expect(ask(runVmplMsr(0), [lo, 0]).outcome).toBe(UNEXPECTED_RESPONSE)
    expect(ask(runVmplMsr(1), [0x017, 3])).toMatchObject({ outcome: 3, exits: [[0x016, 1]] })
  })
})

describe("what the MSR protocol asks for", () => {
  it("CPUID: one register of a leaf", () => {
    for (const register of [0, 1, 2, 3]) {
      const selector = (register << 30) >>> 0
      const { outcome, exits } = ask(cpuidRegister(0x8000_001f, register), [selector + 5, 0xffff_fffe])
      expect([outcome, exits]).toEqual([0xffff_fffe, [[selector + 4, 0x8000_001f]]])
    }
  })

  it("AP reset hold: until a SIPI came", () => {
    const { outcome, exits } = ask(apResetHoldMsr(), [0x007, 0], [0x007, 0], [0x1007, 0])
    expect([outcome, exits]).toEqual([
      undefined,
      [
        [6, 0],
        [6, 0],
        [6, 0]
      ]
    ])
    expect(ask(apResetHoldMsr(), [0x007, 0], [0x007, 1]).exits).toHaveLength(2)
  })

  it("the preferred GHCB, or no preference", () => {
    expect(ask(preferredGhcb(), [0xffff_f011, 0xffff_ffff]).outcome).toBeNull()
    expect(ask(preferredGhcb(), [0x1234_5011, 1])).toMatchObject({ outcome: 0x1_1234_5000, exits: [[0x010, 0]] })
  })

  it("hypervisor features, which version 1 does not have", () => {
    expect(ask(hvFeaturesMsr(2), [0x8003_f081, 0x1234_5678])).toMatchObject({
      outcome: { lo: 0x6788_003f, hi: 0x1_2345 },
      exits: [[0x080, 0]]
    })
    expect(ask(hvFeaturesMsr(1), [0x3f081, 0])).toMatchObject({ outcome: { lo: 0, hi: 0 }, exits: [] })
  })

  it("termination, which does not return", () => {
    expect(ask(terminate({ set: 1, reason: 0xab }), [0, 0])).toMatchObject({
      outcome: "halted",
      exits: [[0xab_1100, 0]]
    })
  })
})

it("the GHCB MSR is put back after a program, and after its exception", () => {
  const machine = new ScriptedMachine()
  machine.msr = [0x1000, 5]
  machine.onVmgexit = (at) => {
    at.msr = [0, 0]
  }
  expect(() => machine.run(keepingGhcbMsr(sevInfo()))).toThrow(GuestException)
  expect(machine.msr).toEqual([0x1000, 5])
})

it("an SEV-ES guest of version 1 neither registers its GHCB nor has it made shared", () => {
  const { exits, machine } = ask(
    new Ghcb(0x2_0000, { version: 1, registers: false, makeShared: false }).setUp(),
    [0, 0]
  )
  expect([exits, machine.msr, machine.get(0x2_0ffa, 2, "shared")]).toEqual([[], [0x2_0000, 0], [1, 0]])
  const registered = ask(new Ghcb(0x2_0000, { makeShared: false }).setUp(), [0x2_0013, 0])
  expect(registered.exits).toEqual([[0x2_0012, 0]])
})
