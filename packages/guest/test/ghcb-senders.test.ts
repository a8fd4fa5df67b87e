// @ghcb 0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b
// @ghcb 0x80000001, 0x80000002, 0x80000003, 0x80000004, 0x80000005, 0x80000011, 0x80000012, 0x80000013, 0x80000014
// @ghcb 0x80000015, 0x80000017, 0x80000018, 0x8000001a, 0x8000001b, 0x8000001c, 0x8000001d, 0x8000fffd, 0x8000fffe
// @ghcb 0x8000ffff
import { GHCB, REASON, validByte, validMask } from "@vmpl-lab/sev-es"
import { GuestException } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import { Ghcb, hypervisorFeatures, requestTermination, VMM_ERROR } from "../src/index.ts"
import { type FieldName, GHCB_GPA, reply, suppliedFields } from "./GhcbPage.ts"
import { SENDERS } from "./senders.ts"

/** A machine whose GHCB page is full of what an earlier event has left. */
const dirty = (): ScriptedMachine => {
  const machine = new ScriptedMachine()
  for (let offset = 0; offset < 0x400; offset += 8)
    machine.set(GHCB_GPA + offset, 8, 0xffff_ffff, 0xffff_ffff, "shared")
  machine.set(GHCB_GPA + GHCB.protocol_version, 2, 0xffff, 0, "shared")
  machine.set(GHCB_GPA + GHCB.ghcb_usage, 4, 2, 0, "shared")
  return machine
}

describe.each(SENDERS)("$name", ({ send, code, supplies, answers, value }) => {
  it("supplies exactly the fields that the event needs, with their bits, version and usage", () => {
    const machine = dirty()
    const seen: Array<unknown> = []
    machine.onVmgexit = (at) => {
      expect(at.msr).toEqual([GHCB_GPA, 0])
      expect(at.get(GHCB_GPA + 0xffa, 2, "shared")).toEqual([2, 0])
      expect(at.get(GHCB_GPA + 0xffc, 4, "shared")).toEqual([0, 0])
      seen.push(suppliedFields(at))
      reply(at, answers)
    }
    expect(machine.run(send(new Ghcb(GHCB_GPA)))).toEqual({ ok: true, value })
    expect(seen).toEqual([{ sw_exit_code: [code, 0], sw_exit_info_1: [0, 0], sw_exit_info_2: [0, 0], ...supplies }])
  })

  it("does not take an answer without its valid bit", () => {
    for (const name of Object.keys(answers) as Array<FieldName>) {
      const machine = dirty()
      machine.onVmgexit = (at) => {
        reply(at, answers)
        const byte = GHCB_GPA + validByte(GHCB[name])
        at.set(byte, 1, at.get(byte, 1, "shared")[0] & ~validMask(GHCB[name]) & 0xff, 0, "shared")
      }
      expect(machine.run(send(new Ghcb(GHCB_GPA)))).toEqual({ ok: false, reason: VMM_ERROR })
    }
  })

  it("reports malformed input with its reason, and what is no reason as the hypervisor's error", () => {
    for (const [info2, reason] of [
      ...Object.values(REASON).map((one) => [[one, 0], one] as const),
      [[0, 0], VMM_ERROR],
      [[7, 0], VMM_ERROR],
      [[1, 1], VMM_ERROR]
    ] as const) {
      const machine = dirty()
      machine.onVmgexit = (at) => reply(at, { ...answers, sw_exit_info_1: [2, 0], sw_exit_info_2: info2 })
      expect(machine.run(send(new Ghcb(GHCB_GPA)))).toEqual({ ok: false, reason })
      expect(machine.exits).toHaveLength(1)
    }
    for (const info1 of [3, 0x8000_0000, 0xffff_ffff]) {
      const machine = dirty()
      machine.onVmgexit = (at) => reply(at, { ...answers, sw_exit_info_1: [info1, 0] })
      expect(machine.run(send(new Ghcb(GHCB_GPA)))).toEqual({ ok: false, reason: VMM_ERROR })
    }
  })

  it("raises #GP and #UD, and nothing else that the hypervisor asks for", () => {
    const answering = (info2: readonly [number, number]) => {
      const machine = dirty()
      machine.onVmgexit = (at) => reply(at, { sw_exit_info_1: [1, 0], sw_exit_info_2: info2 })
      return () => machine.run(send(new Ghcb(GHCB_GPA)))
    }
    const raised = (info2: readonly [number, number]): unknown => {
      try {
        return answering(info2)()
      } catch (exception) {
        return exception
      }
    }
    expect(raised([0x8000_0b0d, 0x18])).toEqual(new GuestException("#GP", 0x18))
    expect(raised([0x8000_030d, 0x18])).toEqual(new GuestException("#GP", 0))
    expect(raised([0x8000_0306, 0])).toEqual(new GuestException("#UD", 0))
    // Not valid; external interrupt, NMI, software interrupt; #BR, #PF, #DF, #MC, #VC.
    for (const lo of [
      0xb0d, 0x8000_000d, 0x8000_020d, 0x8000_040d, 0x8000_0305, 0x8000_0b0e, 0x8000_0b08, 0x8000_0312, 0x8000_031d
    ]) {
      expect(raised([lo, 0])).toEqual({ ok: false, reason: VMM_ERROR })
    }
  })
})

describe("events without an answer", () => {
  it("NMI complete supplies the exit fields alone and looks at nothing", () => {
    const machine = dirty()
    const seen: Array<unknown> = []
    machine.onVmgexit = (at) => {
      seen.push(suppliedFields(at))
      reply(at, { sw_exit_info_1: [1, 0], sw_exit_info_2: [0x8000_0b0d, 0] })
    }
    expect(machine.run(new Ghcb(GHCB_GPA).nmiComplete())).toBeUndefined()
    expect(seen).toEqual([{ sw_exit_code: [0x8000_0003, 0], sw_exit_info_1: [0, 0], sw_exit_info_2: [0, 0] }])
    expect(machine.loads).toEqual([])
  })

  it.each([
    ["nothing", {}],
    ["#GP", { sw_exit_info_1: [1, 0], sw_exit_info_2: [0x8000_0b0d, 0] }]
  ] as const)("termination does not return when the hypervisor answers %s", (_, answer) => {
    const machine = dirty()
    const seen: Array<unknown> = []
    machine.onVmgexit = (at) => {
      seen.push(suppliedFields(at))
      reply(at, answer)
    }
    expect(machine.run(requestTermination(new Ghcb(GHCB_GPA), { set: 1, reason: 0xab }))).toBe("halted")
    expect(seen).toEqual([{ sw_exit_code: [0x8000_fffe, 0], sw_exit_info_1: [0xab1, 0], sw_exit_info_2: [0, 0] }])
  })
})

it("an event clears the valid bits first and sets those of its fields last", () => {
  const machine = dirty()
  machine.onVmgexit = (at) => reply(at)
  machine.run(new Ghcb(GHCB_GPA).request(0x76))
  const bitmap = [GHCB_GPA + GHCB.valid_bitmap, GHCB_GPA + GHCB.valid_bitmap + 8]
  const addresses = machine.stores.map(({ address }) => address)
  expect([addresses.slice(0, 2), addresses.slice(-2)]).toEqual([bitmap, bitmap])
  expect(machine.stores.slice(0, 2).map(({ lo, hi }) => [lo, hi])).toEqual([
    [0, 0],
    [0, 0]
  ])
  expect(machine.stores.every(({ cbit }) => !cbit)).toBe(true)
})

describe("version 1", () => {
  it("is written into the page, and has no hypervisor features to ask for", () => {
    const machine = dirty()
    machine.onVmgexit = (at) => {
      expect(at.get(GHCB_GPA + 0xffa, 2, "shared")).toEqual([1, 0])
      reply(at)
    }
    const ghcb = new Ghcb(GHCB_GPA, { version: 1, registers: false, makeShared: false })
    machine.run(ghcb.setUp())
    expect(machine.exits).toEqual([])
    expect(machine.run(hypervisorFeatures(ghcb))).toEqual({ ok: true, value: { lo: 0, hi: 0 } })
    expect(machine.run(ghcb.hvFeatures())).toBe(0)
    expect(machine.exits).toEqual([])
    expect(machine.run(ghcb.request(0x76))).toEqual({ ok: true, value: {} })
    expect(machine.exits).toHaveLength(1)
  })
})
