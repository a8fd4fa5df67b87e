import { GHCB, GHCB_MSR, NAE, VMSA, validByte } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import { CORE_CALL, Ghcb, NOT_SERVED, PROTOCOL, type Ring, SVSM_RESULT, SvsmCaller } from "../src/index.ts"

const CA = 0x1_0000
const GHCB_GPA = 0x2_0000
const { SUCCESS, INCOMPLETE, BUSY, INVALID_PARAMETER } = SVSM_RESULT
const RINGS: ReadonlyArray<Ring> = ["page", "msr"]

/** The host answers a ring as done; `svsm` is what VMPL0 did meanwhile. */
const host =
  (svsm: (machine: ScriptedMachine) => void, page = { info1: 0 }, msr: readonly [number, number] = [0x017, 0]) =>
  (machine: ScriptedMachine): void => {
    svsm(machine)
    const [lo] = machine.msr
    if ((lo & 0xfff) !== 0) machine.msr = msr
    else machine.set(GHCB_GPA + GHCB.sw_exit_info_1, 8, page.info1, 0, "shared")
  }

const serve =
  (result: number) =>
  (machine: ScriptedMachine): void => {
    machine.registers.set(VMSA.rax, [result, 0])
    machine.set(CA, 1, 0)
  }

const callWith = (ring: Ring, answer: (machine: ScriptedMachine) => void) => {
  const machine = new ScriptedMachine()
  machine.msr = [GHCB_GPA, 0]
  machine.onVmgexit = answer
  const caller = new SvsmCaller(CA, ring, ring === "page" ? new Ghcb(GHCB_GPA) : null)
  const run = () =>
    machine.run(caller.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, { rcx: 0x1_2345_6000, rdx: 2, r8: 3 }))
  return { machine, caller, run }
}

describe.each(RINGS)("an SVSM call, rung by %s", (ring) => {
  it("puts protocol, call and arguments into registers, sets call_pending, and rings VMPL0 last", () => {
    const seen: Array<unknown> = []
    const { machine, run } = callWith(
      ring,
      host((at) => {
        const { rax, rcx, rdx, r8 } = VMSA
        seen.push(
          [rax, rcx, rdx, r8].map((register) => at.registers.get(register)),
          at.get(CA, 1)[0]
        )
        serve(SUCCESS)(at)
      })
    )
    expect(run()).toBe(SUCCESS)
    expect(seen).toEqual([
      [
        [2, 0],
        [0x2345_6000, 1],
        [2, 0],
        [3, 0]
      ],
      1
    ])
    expect(machine.exits).toEqual(ring === "msr" ? [[GHCB_MSR.RUN_VMPL_REQUEST, 0]] : [[GHCB_GPA, 0]])
    // The GHCB MSR is as it was.
    expect(machine.msr).toEqual([GHCB_GPA, 0])
    expect(machine.get(CA, 1)[0]).toBe(0)
  })

  it("gives the 32-bit result, whatever the upper half of RAX", () => {
    const { run } = callWith(
      ring,
      host((at) => {
        serve(INVALID_PARAMETER)(at)
        at.registers.set(VMSA.rax, [INVALID_PARAMETER, 0xffff_ffff])
      })
    )
    expect(run()).toBe(INVALID_PARAMETER)
  })

  it("is NOT_SERVED when call_pending stays 1: the host says done but did not run VMPL0", () => {
    const { machine, run } = callWith(
      ring,
      host((at) => at.registers.set(VMSA.rax, [SUCCESS, 0]))
    )
    expect(run()).toBe(NOT_SERVED)
    // The atomic exchange has cleared it, so that a later entry does not serve a call that nobody waits for.
    expect(machine.get(CA, 1)[0]).toBe(0)
    expect(machine.exits).toHaveLength(1)
  })

  it("is NOT_SERVED when the host refuses, whatever call_pending says", () => {
    for (const done of [true, false]) {
      const answer = host((at) => (done ? serve(SUCCESS)(at) : undefined), { info1: 2 }, [0x017, 1])
      const { machine, run } = callWith(ring, answer)
      expect(run()).toBe(NOT_SERVED)
      expect(machine.get(CA, 1)[0]).toBe(0)
    }
  })

  it.each([INCOMPLETE, BUSY])("repeats the same call while the answer is 0x%s", (again) => {
    let left = 3
    const seen: Array<unknown> = []
    const { run, machine } = callWith(
      ring,
      host((at) => {
        seen.push([at.registers.get(VMSA.rax), at.registers.get(VMSA.rcx), at.get(CA, 1)[0]])
        at.registers.set(VMSA.rcx, [0xdead, 0])
        serve(left-- > 0 ? again : SUCCESS)(at)
      })
    )
    expect(run()).toBe(SUCCESS)
    expect(machine.exits).toHaveLength(4)
    expect(new Set(seen.map((entry) => JSON.stringify(entry))).size).toBe(1)
  })

  it("looks at the calling area that it rang, though the call moved it", () => {
    const { machine, caller, run } = callWith(
      ring,
      host((at) => {
        serve(SUCCESS)(at)
        caller.caGpa = CA + 0x1000
      })
    )
    machine.set(CA + 0x1000, 1, 1)
    expect(run()).toBe(SUCCESS)
    expect(machine.get(CA + 0x1000, 1)[0]).toBe(1)
  })
})

it("a response of another kind to the MSR request is NOT_SERVED", () => {
  for (const lo of [0x016, 0x013, 0x018, 0]) {
    const { run } = callWith("msr", host(serve(SUCCESS), { info1: 0 }, [lo, 0]))
    expect(run()).toBe(NOT_SERVED)
  }
})

describe("a GHCB event", () => {
  it("writes the exit fields with their valid bits, RAX only when given, and nothing private", () => {
    for (const [rax, fields] of [
      [-1, ["sw_exit_code", "sw_exit_info_1", "sw_exit_info_2"]],
      [0x1_0000_0001, ["rax", "sw_exit_code", "sw_exit_info_1", "sw_exit_info_2"]]
    ] as const) {
      const machine = new ScriptedMachine()
      const ghcb = new Ghcb(GHCB_GPA)
      const seen: Array<unknown> = []
      machine.onVmgexit = (at) => {
        const words = [0, 4, 8, 12].map((offset) => at.get(GHCB_GPA + GHCB.valid_bitmap + offset, 4, "shared")[0])
        const names = ["sw_exit_code", "sw_exit_info_1", "sw_exit_info_2", "rax"] as const
        seen.push(words, ...names.map((name) => at.get(GHCB_GPA + GHCB[name], 8, "shared")))
        at.set(GHCB_GPA + GHCB.sw_exit_info_1, 8, 0, 0, "shared")
      }
      expect(machine.run(ghcb.event(NAE.SNP_AP_CREATION, 0x2_0001, 7, 0x1_2345_6000, rax))).toBe(true)
      expect(machine.stores.every(({ cbit }) => !cbit)).toBe(true)
      const bits = [0, 0, 0, 0]
      for (const field of fields) {
        const bit = GHCB[field] / 8
        bits[Math.floor(bit / 32)]! |= 1 << (bit % 32)
      }
      const words = bits.map((word) => word >>> 0)
      const given = rax < 0 ? [0, 0] : [1, 1]
      expect(seen).toEqual([words, [NAE.SNP_AP_CREATION, 0], [0x2_0001, 7], [0x2345_6000, 1], given])
      // The valid bits of the exit fields are the last thing written.
      expect(machine.stores.at(-1)!.address).toBe(GHCB_GPA + validByte(GHCB.sw_exit_code))
    }
  })

  it("fails for any answer but 0, and hvFeatures is then nothing", () => {
    for (const info1 of [1, 2, 3, 0xffff_ffff]) {
      const machine = new ScriptedMachine()
      machine.onVmgexit = (at) => {
        at.set(GHCB_GPA + GHCB.sw_exit_info_1, 8, info1, 0, "shared")
        at.set(GHCB_GPA + GHCB.sw_exit_info_2, 8, 0x23, 0, "shared")
      }
      expect(machine.run(new Ghcb(GHCB_GPA).runVmpl(0))).toBe(false)
      expect(machine.run(new Ghcb(GHCB_GPA).hvFeatures())).toBe(0)
    }
  })
})
