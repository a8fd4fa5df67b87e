import { EXIT, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  cpuid,
  GuestException,
  hlt,
  lidt,
  type Operation,
  type OperationResult,
  type Program,
  pause,
  pvalidate,
  rdmsr,
  read,
  type VcHandler,
  vmgexit,
  write,
  wrmsr
} from "../src/index.ts"
import { ASID, GFN, GPA, PFN, script, TestMachine } from "./machine.ts"

const show = ({ lo, hi }: OperationResult): string => `${lo.toString(16)}:${hi.toString(16)}`

/** Runs operations at VMPL0 up to the first exit. */
const exitOf = (machine: TestMachine, ...operations: ReadonlyArray<Operation>) => {
  machine.install(script(operations))
  return machine.run()
}

describe("an exception", () => {
  const NOT_ITS_MSR = 0xc000_0081

  it.each([
    ["RDMSR", rdmsr(NOT_ITS_MSR)],
    ["WRMSR", wrmsr(NOT_ITS_MSR, 1)]
  ])("#GP of %s reaches the program, which may catch it and go on", (_, operation) => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      try {
        yield operation
        machine.log.push("not here")
      } catch (exception) {
        machine.log.push(exception instanceof GuestException ? exception.vector : "another")
      }
      machine.log.push(show(yield read(GPA.data, 1)))
      yield vmgexit()
    })
    machine.memory.replace(
      PFN.data,
      ASID,
      Uint8Array.from({ length: PAGE_SIZE }, () => 9)
    )
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "#GP", "9:0"])
  })

  it("#GP that ends the program that caught it halts", () => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      try {
        yield rdmsr(NOT_ITS_MSR)
      } catch {}
    })
    expect(machine.run()).toBe(EXIT.HLT)
  })

  it("#GP that nobody catches shuts the vCPU down, PVALIDATE off VMPL0 too", () => {
    expect(exitOf(new TestMachine(), rdmsr(NOT_ITS_MSR))).toBe(EXIT.SHUTDOWN)
    const machine = new TestMachine()
    machine.putVmsa(PFN.vmsa, { vmpl: 2 })
    machine.grant(PFN.code, 0xf)
    machine.grant(PFN.data, 0xf)
    expect(exitOf(machine, pvalidate(GPA.data, true))).toBe(EXIT.SHUTDOWN)
    expect(machine.rmp.entry(PFN.data).validated).toBe(true)
  })

  it("that is no exception of the guest is a bug of the model and is not swallowed", () => {
    const machine = new TestMachine()
    machine.install(script([pause()], () => expect.fail("a bug")))
    expect(() => machine.run()).toThrow("a bug")
  })
})

describe("#VC", () => {
  const emulate = (machine: TestMachine): VcHandler =>
    function* (errorCode, operation, result): Program {
      machine.log.push(`#VC ${errorCode.toString(16)} ${operation.address.toString(16)}.${operation.lo}`)
      // The handler's own operations use the same result before it puts its answer there.
      yield write(GPA.data, 4, 0xffff_ffff)
      yield read(GPA.data, 4)
      result.lo = 0x11
      result.hi = 0x22
      result.ecx = 0x33
      result.edx = 0x44
    }

  it("of CPUID runs the handler, whose answer the program gets in place of the instruction's", () => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      yield lidt(emulate(machine))
      const { lo, hi, ecx, edx } = yield cpuid(0x8000_001f, 3)
      machine.log.push([lo, hi, ecx, edx].map((value) => value.toString(16)).join(" "))
      yield vmgexit()
    })
    const before = machine.cpu.thread.time
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "#VC 72 8000001f.3", "11 22 33 44"])
    // VMRUN, #VC and #VMEXIT.
    expect(machine.cpu.thread.time - before).toBe(30)
  })

  it("of a page that is not validated has error code 0x404; the handler stands for the access", () => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      yield lidt(emulate(machine))
      machine.log.push(show(yield read(GPA.spare + 8, 4)))
      yield hlt()
    })
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, `#VC 404 ${(GPA.spare + 8).toString(16)}.0`, "11:22"])
  })

  it.each([
    ["CPUID", cpuid(1)],
    ["a page that is not validated", write(GPA.spare, 4, 1)]
  ])("of %s shuts the vCPU down without a handler, or in the handler", (_, operation) => {
    expect(exitOf(new TestMachine(), operation)).toBe(EXIT.SHUTDOWN)
    const machine = new TestMachine()
    const handler = function* (): Program {
      machine.log.push("handler")
      yield operation
      machine.log.push("not here")
    }
    expect(exitOf(machine, lidt(handler), cpuid(0))).toBe(EXIT.SHUTDOWN)
    expect(machine.log.at(-1)).toBe("handler")
  })

  it("handler may leave for the hypervisor and come back: both programs are kept", () => {
    const machine = new TestMachine()
    const handler: VcHandler = function* (_, __, result): Program {
      yield vmgexit()
      result.lo = 0x55
    }
    machine.install(function* (): Program {
      yield lidt(handler)
      for (let i = 0; i < 2; i++) machine.log.push(show(yield cpuid(i)))
    })
    expect([machine.run(), machine.log.length]).toEqual([EXIT.VMGEXIT, 0])
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "55:0"])
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "55:0", "55:0"])
  })

  it("of the first fetch finds no code to handle it", () => {
    const machine = new TestMachine()
    machine.install(script([lidt(function* () {}), vmgexit(), hlt()]))
    machine.run()
    machine.rmp.pvalidate(ASID, 0, GFN.code, PFN.code, 0, 0, false)
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
  })
})
