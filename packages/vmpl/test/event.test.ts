import {
  EVENT_TYPE,
  EXIT,
  encodeEventInjection,
  INJECT_NMI,
  INT_CTL,
  INTERCEPT,
  injectException,
  injectInterrupt,
  VECTOR,
  VMSA
} from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  cpuid,
  GuestException,
  hlt,
  type Idt,
  type Operation,
  type Program,
  read,
  sti,
  vmgexit,
  wbinvd,
  writeCr
} from "../src/index.ts"
import { A, B, C, CLI, enable, guest, IF, inject, PRIORITY, STI, setIntCtl, setShadow, UNMAPPED } from "./events.ts"
import { ENTRY, GFN, GPA, PFN, TestMachine } from "./machine.ts"

describe("EVENTINJ", () => {
  it.each([
    ["an external interrupt", injectInterrupt(0x51), ["interrupt 51 IF=0", "a"]],
    ["an NMI", INJECT_NMI, ["NMI IF=0", "a"]],
    ["#HV", injectException(VECTOR.HV, false), ["#HV IF=0", "a"]]
  ])("delivers %s before the first instruction, whatever masks interrupts", (_, event, log) => {
    const masked = guest([A])
    setShadow(masked)
    inject(masked, event)
    expect([masked.run(), ...masked.log]).toEqual([EXIT.VMGEXIT, ...log])
    const enabled = guest([A])
    enable(enabled)
    inject(enabled, event)
    enabled.run()
    expect(enabled.log).toEqual(log)
    // The handler's IRET has put RFLAGS back.
    expect(enabled.saved("rflags")).toEqual([IF, 0])
  })

  it.each([
    ["#UD", VECTOR.UD, false, 0],
    ["#DB", VECTOR.DB, false, 0],
    ["#MC", VECTOR.MC, false, 0],
    ["#GP", VECTOR.GP, true, 0x18],
    ["#PF", VECTOR.PF, true, 7],
    ["#DF", VECTOR.DF, true, 0]
  ])("raises %s in the program, with an error code where it says so", (name, vector, withCode, code) => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      try {
        yield vmgexit()
      } catch (exception) {
        expect(exception).toEqual(new GuestException(name as GuestException["vector"], code))
        machine.log.push("caught")
        yield vmgexit()
      }
    })
    machine.run()
    inject(machine, injectException(vector, withCode), withCode ? code : 0xbad)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "caught"])
  })

  it("of an exception that nobody catches, or for which there is no handler, shuts down", () => {
    for (const event of [
      injectException(VECTOR.GP, true),
      injectException(11, true),
      injectException(VECTOR.VC, true)
    ]) {
      const machine = guest([A])
      inject(machine, event)
      expect(machine.run()).toBe(EXIT.SHUTDOWN)
    }
    for (const event of [injectInterrupt(0x30), INJECT_NMI, injectException(VECTOR.HV, false)]) {
      const machine = guest([A], { nmi: undefined, hv: undefined, interrupt: undefined } as unknown as Idt)
      inject(machine, event)
      expect(machine.run()).toBe(EXIT.SHUTDOWN)
    }
  })

  it("that is not valid, or of a type that VMRUN refuses, delivers nothing", () => {
    const machine = guest([A])
    inject(machine, 0x7fff_ffff)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "a"])
    const soft = guest([A])
    inject(soft, encodeEventInjection({ vector: 0x80, type: EVENT_TYPE.SOFT_INT, errorCodeValid: false, valid: true }))
    expect([soft.run(), ...soft.log]).toEqual([EXIT.INVALID])
  })

  it("is cleared by #VMEXIT, so the event comes once", () => {
    const machine = guest([["leave", vmgexit()], A])
    inject(machine, injectInterrupt(0x51), 3)
    machine.run()
    expect(machine.vmcb("event_inj")).toEqual([0, 0])
    machine.run()
    expect(machine.log).toEqual(["interrupt 51 IF=0", "leave", "a"])
  })

  it("is delivered although a physical interrupt is due at once: nothing is lost", () => {
    const machine = guest([A])
    inject(machine, injectInterrupt(0x51))
    machine.cpu.interruptAt = 0
    expect([machine.run(), ...machine.log]).toEqual([EXIT.INTR])
    expect(machine.vmcb("exit_int_info")[0]).toBe(0)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "interrupt 51 IF=0", "a"])
  })

  it("goes before a virtual NMI, and that before a virtual interrupt; the last one delivered runs first", () => {
    const machine = guest([A])
    enable(machine)
    inject(machine, injectInterrupt(0x51))
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(3) | INT_CTL.V_NMI | INT_CTL.V_NMI_ENABLE, 0x52)
    machine.run()
    // The NMI interrupts the handler of 51 before its first instruction; 52 waits for IF.
    expect(machine.log).toEqual(["NMI IF=0", "interrupt 51 IF=0", "interrupt 52 IF=0", "a"])
  })
})

describe("the interrupt shadow", () => {
  const pending = (operations: ReadonlyArray<readonly [string, Operation]>) => {
    const machine = guest(operations)
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(1), 0x40)
    return machine
  }

  it("after STI lasts exactly one instruction", () => {
    const machine = pending([A, STI, B, C])
    machine.run()
    expect(machine.log).toEqual(["a", "sti", "b", "interrupt 40 IF=0", "c"])
    expect(machine.vmcb("int_ctl")[0] & INT_CTL.V_IRQ).toBe(0)
  })

  it("is none where IF was set already: STI after STI does not prolong it", () => {
    const machine = pending([STI, STI, B])
    machine.run()
    expect(machine.log).toEqual(["sti", "sti", "interrupt 40 IF=0", "b"])
    const late = guest([["leave", vmgexit()], STI, B])
    enable(late)
    late.run()
    setIntCtl(late, INT_CTL.V_IRQ | PRIORITY(1), 0x40)
    late.run()
    expect(late.log).toEqual(["leave", "interrupt 40 IF=0", "sti", "b"])
  })

  it("lets CLI close the window again", () => {
    const machine = pending([STI, CLI, A])
    machine.run()
    expect(machine.log).toEqual(["sti", "cli", "a"])
    expect(machine.vmcb("int_ctl")[0] & INT_CTL.V_IRQ).toBe(INT_CTL.V_IRQ)
  })

  it("ends the wait of HLT after STI: the interrupt comes behind HLT, and the program goes on", () => {
    const machine = pending([STI, ["hlt", hlt()], B])
    machine.intercept(INTERCEPT.HLT, false)
    expect(machine.run(100_000)).toBe(EXIT.VMGEXIT)
    expect(machine.log).toEqual(["sti", "hlt", "interrupt 40 IF=0", "b"])
  })

  it("goes through a nested fault of the instruction that it is for", () => {
    const machine = pending([STI, ["load", read(GPA.data, 1)], A])
    machine.npt.unmap(GFN.data)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("int_state")[0]).toBe(3)
    machine.npt.map(GFN.data, PFN.data)
    machine.run()
    expect(machine.log).toEqual(["sti", "load", "interrupt 40 IF=0", "a"])
  })

  it("is taken from the VMCB, for one instruction, and ends with it", () => {
    const machine = pending([A, B])
    enable(machine)
    setShadow(machine)
    machine.run()
    expect(machine.log).toEqual(["a", "interrupt 40 IF=0", "b"])
    expect(machine.vmcb("int_state")[0]).toBe(2)
  })

  it("shows at an exit between STI and the next instruction", () => {
    const machine = guest([STI, A])
    machine.cpu.interruptAt = machine.cpu.thread.time + 10
    // VMRUN takes 10 ns: the interrupt is due at once.
    expect([machine.run(), machine.vmcb("int_state")[0]]).toEqual([EXIT.INTR, 0])
    machine.vmrun()
    machine.cpu.interruptAt = machine.cpu.thread.time + 1
    machine.resume()
    const stepped = guest([STI, ["load", read(UNMAPPED, 1)]])
    expect([stepped.run(), stepped.vmcb("int_state")[0]]).toEqual([EXIT.NPF, 3])
  })

  it("is gone before the first instruction of a handler, and after an exception", () => {
    const faulting = function* (): Program {
      yield read(UNMAPPED, 1)
    }
    const vc = guest([STI, ["cpuid", cpuid(0)]], { vc: faulting })
    expect([vc.run(), vc.vmcb("int_state")[0]]).toEqual([EXIT.NPF, 0])
    const injected = guest([A], { interrupt: faulting })
    setShadow(injected)
    inject(injected, injectInterrupt(1))
    expect([injected.run(), injected.vmcb("int_state")[0]]).toEqual([EXIT.NPF, 0])
    const machine = new TestMachine()
    machine.install(function* (): Program {
      yield vmgexit()
      yield sti()
      try {
        yield writeCr(8, 0x10)
      } catch {
        yield read(UNMAPPED, 1)
      }
    })
    machine.run()
    expect([machine.run(), machine.vmcb("int_state")[0]]).toEqual([EXIT.NPF, 2])
  })

  it("is gone in a handler of #VC and of an injected event", () => {
    const machine = guest([STI, ["cpuid", cpuid(0)], A], {
      *vc(): Program {
        yield vmgexit()
      }
    })
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(1), 0x40)
    machine.run()
    expect(machine.vmcb("int_state")[0]).toBe(0)
    machine.run()
    expect(machine.log).toEqual(["sti", "cpuid", "interrupt 40 IF=0", "a"])
  })
})

describe("int_state bit 1", () => {
  it("shows RFLAGS.IF, of which the host sees nothing else", () => {
    const machine = guest([STI, A, ["leave", vmgexit()], CLI])
    expect(machine.vmcb("int_state")[0]).toBe(0)
    machine.run()
    expect(machine.vmcb("int_state")[0]).toBe(2)
    machine.run()
    expect(machine.vmcb("int_state")[0]).toBe(0)
  })

  it("is clear in a handler, and set again behind it", () => {
    const machine = guest([["leave", vmgexit()]], {
      *interrupt(): Program {
        yield vmgexit()
      }
    })
    enable(machine)
    inject(machine, injectInterrupt(0x20))
    machine.run()
    expect(machine.vmcb("int_state")[0]).toBe(0)
    machine.run()
    expect(machine.vmcb("int_state")[0]).toBe(2)
  })
})

describe("V_IRQ", () => {
  it.each([
    ["IF is clear", 0, 5, 0, 0, false],
    ["IF is set", IF, 5, 0, 0, true],
    ["the priority is the task's", IF, 5, 5, 0, false],
    ["the priority is above the task's", IF, 5, 4, 0, true],
    ["the task priority is ignored", IF, 0, 0xf, INT_CTL.V_IGN_TPR, true],
    ["the priority is 0", IF, 0, 0, 0, false]
  ])("is taken, or opens the window for an exit, when %s: %i", (_, rflags, priority, tpr, bits, taken) => {
    for (const intercepted of [false, true]) {
      const machine = guest([A])
      machine.vmsa().setUint32(VMSA.rflags, rflags, true)
      machine.intercept(INTERCEPT.VINTR, intercepted)
      setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(priority) | tpr | bits, 0x77)
      const exit = machine.run()
      expect(exit).toBe(taken && intercepted ? EXIT.VINTR : EXIT.VMGEXIT)
      expect(machine.log).toEqual(taken ? (intercepted ? [] : ["interrupt 77 IF=0", "a"]) : ["a"])
      const stillPending = (machine.vmcb("int_ctl")[0] & INT_CTL.V_IRQ) !== 0
      expect(stillPending).toBe(!taken || intercepted)
    }
  })

  it("exits VINTR after the shadow, before the next instruction, with nothing done", () => {
    const machine = guest([A, STI, B, C])
    machine.intercept(INTERCEPT.VINTR)
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(1))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VINTR, "a", "sti", "b"])
    expect([machine.vmcb("int_state")[0], machine.saved("rip")[0]]).toEqual([2, ENTRY + 5])
    setIntCtl(machine, 0)
    inject(machine, injectInterrupt(0x99))
    machine.run()
    expect(machine.log).toEqual(["a", "sti", "b", "interrupt 99 IF=0", "c"])
  })

  it("waits until the guest lowers its task priority", () => {
    const machine = guest([A, ["cr8", writeCr(8, 4)], B])
    enable(machine)
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(5) | 5, 0x55)
    machine.run()
    expect(machine.log).toEqual(["a", "cr8", "interrupt 55 IF=0", "b"])
  })
})

describe("V_NMI", () => {
  const NMI = INT_CTL.V_NMI | INT_CTL.V_NMI_ENABLE

  it.each([
    ["pending", NMI, true],
    ["pending in a machine without", INT_CTL.V_NMI, false],
    ["pending and masked", NMI | INT_CTL.V_NMI_MASK, false],
    ["not pending", INT_CTL.V_NMI_ENABLE, false]
  ])("%s", (_, intCtl, taken) => {
    const machine = guest([A])
    setIntCtl(machine, intCtl)
    machine.run()
    expect(machine.log).toEqual(taken ? ["NMI IF=0", "a"] : ["a"])
    // Taken: no longer pending, and after the handler's IRET no longer masked.
    expect(machine.vmcb("int_ctl")[0]).toBe(taken ? INT_CTL.V_NMI_ENABLE : intCtl)
  })

  it("masks the next one until its handler returns", () => {
    const machine = guest([A], {
      *nmi(): Program {
        machine.log.push("NMI")
        yield vmgexit()
        yield wbinvd()
        machine.log.push("IRET")
      }
    })
    setIntCtl(machine, NMI)
    machine.run()
    expect(machine.vmcb("int_ctl")[0]).toBe(INT_CTL.V_NMI_ENABLE | INT_CTL.V_NMI_MASK)
    // The host makes another one pending while the first is served.
    setIntCtl(machine, NMI | INT_CTL.V_NMI_MASK)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "NMI", "IRET", "NMI"])
  })

  it("is masked by an NMI that the host injects, where virtual ones are enabled", () => {
    for (const enabled of [true, false]) {
      const machine = guest([A], {
        *nmi(): Program {
          yield vmgexit()
        }
      })
      setIntCtl(machine, enabled ? INT_CTL.V_NMI_ENABLE : 0)
      inject(machine, INJECT_NMI)
      machine.run()
      expect(machine.vmcb("int_ctl")[0]).toBe(enabled ? INT_CTL.V_NMI_ENABLE | INT_CTL.V_NMI_MASK : 0)
    }
  })

  it("is unmasked by any IRET: a #VC in the handler lets the next one in", () => {
    let depth = 0
    const machine = guest([A], {
      *vc(): Program {
        yield wbinvd()
      },
      *nmi(): Program {
        depth++
        machine.log.push(`NMI ${depth}`)
        yield vmgexit()
        yield cpuid(0)
        machine.log.push("behind CPUID")
        depth--
      }
    })
    setIntCtl(machine, NMI)
    machine.run()
    setIntCtl(machine, NMI | INT_CTL.V_NMI_MASK)
    machine.run()
    expect(machine.log).toEqual(["NMI 1", "NMI 2"])
  })
})
