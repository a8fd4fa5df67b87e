import { EXIT, SEGMENT, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { hlt, lidt, type Operation, type Program, pause, read, vmgexit, write } from "../src/index.ts"
import { ASID, ENTRY, GFN, GPA, HOST_ASID, PFN, script, TestMachine } from "./machine.ts"

const UNMAPPED = 0x7_0000_0abc

describe("what a VMSA resumes", () => {
  const chatty = (machine: TestMachine, ...middle: ReadonlyArray<Operation>) =>
    function* (): Program {
      machine.log.push("begin")
      for (const operation of middle) yield operation
      yield vmgexit()
      machine.log.push("go on")
      yield vmgexit()
    }

  it("is the interrupted program as long as nobody rebuilds it", () => {
    const machine = new TestMachine()
    machine.install(chatty(machine))
    machine.run()
    machine.run()
    expect(machine.log).toEqual(["begin", "go on"])
  })

  it.each([
    ["at once", ENTRY, [read(UNMAPPED, 1)]],
    ["with RIP 0, as a SIPI leaves it", 0, [read(UNMAPPED, 1)]],
    ["with RIP 0, after it came round its page", 0, Array.from({ length: 4095 }, () => pause())],
    ["after some way", ENTRY, [pause(), pause()]]
  ])("is a fresh program once software has rebuilt the page: interrupted %s", (_, rip, middle) => {
    const machine = new TestMachine()
    machine.install(chatty(machine, ...middle), GPA.code + rip)
    machine.putVmsa(PFN.vmsa, { rip })
    machine.run()
    machine.putVmsa(PFN.vmsa, { rip })
    machine.run()
    expect(machine.log).toEqual(["begin", "begin"])
  })

  it.each([
    ["RIP", VMSA.rip, 0x10],
    ["CS.base", VMSA.cs + SEGMENT.base, GPA.code + 0x10 - ENTRY - 1]
  ])("is what CS:RIP points at when a higher level has moved %s", (_, field, value) => {
    const machine = new TestMachine()
    machine.install(chatty(machine))
    machine.install(script([hlt()]), GPA.code + 0x10)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    machine.vmsa().setUint32(field, value, true)
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log).toEqual(["begin"])
  })

  it("is a fresh program where software has changed GUEST_NRIP", () => {
    const machine = new TestMachine()
    machine.install(chatty(machine, read(UNMAPPED, 1)))
    expect(machine.run()).toBe(EXIT.NPF)
    machine.vmsa().setUint32(VMSA.guest_nrip, 0, true)
    machine.run()
    expect(machine.log).toEqual(["begin", "begin"])
  })

  it("is kept apart from the program of another VMSA", () => {
    const machine = new TestMachine()
    machine.install(chatty(machine))
    machine.putVmsa(PFN.vmsa2, {})
    machine.run()
    machine.select(PFN.vmsa2)
    machine.run()
    machine.select(PFN.vmsa)
    machine.run()
    expect(machine.log).toEqual(["begin", "begin", "go on"])
  })

  it("halts for good when its program has returned", () => {
    const machine = new TestMachine()
    machine.install(script([lidt(function* () {}), write(GPA.data, 1, 5)]))
    expect([machine.run(), machine.run(), machine.run()]).toEqual([EXIT.HLT, EXIT.HLT, EXIT.HLT])
    expect([machine.byte(PFN.data, ASID), machine.byte(PFN.data, HOST_ASID) === 5]).toEqual([5, false])
  })

  it("tells its arrival once, when its first fetch has succeeded", () => {
    const machine = new TestMachine()
    machine.install(script([pause(), vmgexit(), hlt()]))
    let arrivals = 0
    const arrived = () => {
      arrivals++
    }
    machine.npt.unmap(GFN.code)
    machine.cpu.arrived = arrived
    expect([machine.run(), arrivals]).toEqual([EXIT.NPF, 0])
    machine.npt.map(GFN.code, PFN.code)
    expect([machine.run(), arrivals]).toEqual([EXIT.VMGEXIT, 1])
    expect([machine.run(), arrivals]).toEqual([EXIT.HLT, 1])
  })
})
