import {
  EVENT_TYPE,
  EXIT,
  encodeEventInjection,
  INJECT_NMI,
  INT_CTL,
  INTERCEPT,
  injectException,
  injectInterrupt,
  SEV_FEATURES,
  VECTOR,
  VMCB,
  VMSA
} from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  cli,
  cpuid,
  GuestException,
  hlt,
  type Idt,
  invd,
  lidt,
  type Operation,
  type OperationResult,
  type Program,
  read,
  readRegister,
  sti,
  vmgexit,
  wbinvd,
  write,
  writeCr
} from "../src/index.ts"
import { ASID, ENTRY, GFN, GPA, PFN, TestMachine, VMCB_PA } from "./machine.ts"

const IF = 0x200
const UNMAPPED = 0x7_0000_0000
const PRIORITY = (level: number) => level << INT_CTL.V_INTR_PRIO_SHIFT

const inject = (machine: TestMachine, lo: number, error = 0) =>
  machine.host.write64(VMCB_PA + VMCB.event_inj, lo, error)
const setIntCtl = (machine: TestMachine, intCtl: number, vector = 0) => {
  machine.host.write32(VMCB_PA + VMCB.int_ctl, intCtl >>> 0)
  machine.host.write32(VMCB_PA + VMCB.int_vector, vector)
}
const setShadow = (machine: TestMachine) => machine.host.write32(VMCB_PA + VMCB.int_state, 1)

/** Handlers that write themselves down, with RFLAGS.IF as they find it. */
const tables = (machine: TestMachine): Idt => {
  const note = (name: string) =>
    function* (): Program {
      const { lo } = yield readRegister(VMSA.rflags)
      machine.log.push(`${name} IF=${(lo & IF) >> 9}`)
    }
  return { hv: note("#HV"), nmi: note("NMI"), interrupt: (vector) => note(`interrupt ${vector.toString(16)}`)() }
}

/** A guest that loads its IDT, leaves, and then writes down each operation before it does it. */
const guest = (
  operations: ReadonlyArray<readonly [string, Operation]>,
  idt: Idt = {},
  machine = new TestMachine()
): TestMachine => {
  machine.install(function* (): Program {
    yield lidt({ ...tables(machine), ...idt })
    yield vmgexit()
    for (const [name, operation] of operations) {
      machine.log.push(name)
      yield operation
    }
    yield vmgexit()
  })
  expect(machine.run()).toBe(EXIT.VMGEXIT)
  return machine
}
const A = ["a", wbinvd()] as const
const B = ["b", invd()] as const
const C = ["c", wbinvd()] as const
const STI = ["sti", sti()] as const
const CLI = ["cli", cli()] as const
const enable = (machine: TestMachine) => machine.vmsa().setUint32(VMSA.rflags, IF, true)

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
    ["the priority is the task's", IF, 5, 0x50, 0, false],
    ["the priority is above the task's", IF, 5, 0x4f, 0, true],
    ["the task priority is ignored", IF, 0, 0xf0, INT_CTL.V_IGN_TPR, true],
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
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(5) | 0x50, 0x55)
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

describe("an event whose delivery meets a nested fault", () => {
  const STACK = GPA.private2 + 0x100

  it.each([
    ["an injected interrupt", (machine: TestMachine) => inject(machine, injectInterrupt(0x51)), injectInterrupt(0x51)],
    ["an NMI", (machine: TestMachine) => inject(machine, INJECT_NMI), INJECT_NMI],
    [
      "V_IRQ",
      (machine: TestMachine) => {
        enable(machine)
        setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(1), 0x51)
      },
      injectInterrupt(0x51)
    ]
  ])("is in EXITINTINFO and can be injected again: %s", (_, begin, info) => {
    const machine = guest([A], { stack: STACK })
    machine.npt.unmap(GFN.private2)
    begin(machine)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.NPF])
    expect(machine.vmcb("exit_int_info")[0]).toBe(info)
    expect(machine.vmcb("exit_info_2")).toEqual([STACK - 40, 0])
    expect([machine.vmcb("event_inj")[0], machine.vmcb("int_ctl")[0] & INT_CTL.V_IRQ]).toEqual([0, 0])
    machine.npt.map(GFN.private2, PFN.private2)
    // The event is lost unless the host gives it back.
    inject(machine, info)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect(machine.log).toEqual([info === INJECT_NMI ? "NMI IF=0" : "interrupt 51 IF=0", "a"])
    expect(machine.vmcb("exit_int_info")).toEqual([0, 0])
  })

  it("is lost where the host does not", () => {
    const machine = guest([A], { stack: STACK })
    machine.npt.unmap(GFN.private2)
    inject(machine, injectInterrupt(0x51))
    machine.run()
    machine.npt.map(GFN.private2, PFN.private2)
    machine.run()
    expect(machine.log).toEqual(["a"])
  })

  it("shuts down where the stack cannot be used for another reason", () => {
    const machine = guest([A], { stack: GPA.spare + 0x100 })
    inject(machine, injectInterrupt(0x51))
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
  })

  it("pushes what it interrupts", () => {
    const machine = guest([A], { stack: STACK })
    machine.memory.replace(PFN.private2, ASID, null)
    const vmsa = machine.vmsa()
    vmsa.setUint32(VMSA.rflags, 0x246, true)
    vmsa.setUint32(VMSA.rsp, 0x8888, true)
    vmsa.setUint16(VMSA.cs, 0x10, true)
    vmsa.setUint16(VMSA.ss, 0x18, true)
    inject(machine, injectInterrupt(0x51))
    machine.run()
    const page = machine.memory.read(PFN.private2, ASID)
    const pushed = [0, 1, 2, 3, 4].map((index) => Number(page.getBigUint64(0x100 - 40 + 8 * index, true)))
    expect(pushed).toEqual([ENTRY + 2, 0x10, 0x246, 0x8888, 0x18])
  })
})

describe("alternate injection", () => {
  const { AlternateInjection } = SEV_FEATURES
  const BUSY = 0x8000_0000
  const alternate = (operations: ReadonlyArray<readonly [string, Operation]>, idt: Idt = {}) => {
    const machine = new TestMachine()
    machine.putVmsa(PFN.vmsa, { features: AlternateInjection })
    return guest(operations, idt, machine)
  }
  const setVintr = (machine: TestMachine, lo: number, vector = 0) => {
    machine.vmsa().setUint32(VMSA.vintr_ctrl, lo >>> 0, true)
    machine.vmsa().setUint32(VMSA.vintr_ctrl + 4, vector, true)
  }

  it("gives nothing on what the host asks for", () => {
    const machine = alternate([A])
    enable(machine)
    inject(machine, injectInterrupt(0x51))
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(9) | INT_CTL.V_NMI | INT_CTL.V_NMI_ENABLE, 0x52)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "a"])
  })

  it.each([
    ["EVENTINJ", (machine: TestMachine) => machine.vmsa().setUint32(VMSA.event_inj, injectInterrupt(0x51), true)],
    [
      "V_IRQ",
      (machine: TestMachine) => {
        enable(machine)
        setVintr(machine, INT_CTL.V_IRQ | PRIORITY(2), 0x51)
      }
    ]
  ])("takes %s from the VMSA, once", (_, prepare) => {
    const machine = alternate([["leave", vmgexit()], A])
    prepare(machine)
    machine.run()
    expect(machine.saved("event_inj")).toEqual([0, 0])
    expect(machine.saved("vintr_ctrl")[0] & INT_CTL.V_IRQ).toBe(0)
    machine.run()
    expect(machine.log).toEqual(["interrupt 51 IF=0", "leave", "a"])
  })

  it("has V_NMI and its mask there", () => {
    const machine = alternate([A], {
      *nmi(): Program {
        yield vmgexit()
      }
    })
    setVintr(machine, INT_CTL.V_NMI | INT_CTL.V_NMI_ENABLE)
    machine.run()
    expect(machine.saved("vintr_ctrl")).toEqual([INT_CTL.V_NMI_ENABLE | INT_CTL.V_NMI_MASK, 0])
    machine.run()
    expect(machine.saved("vintr_ctrl")).toEqual([INT_CTL.V_NMI_ENABLE, 0])
  })

  it("keeps interrupt shadow and RFLAGS.IF from the host", () => {
    const machine = alternate([STI, ["load", read(UNMAPPED, 1)]])
    const before = machine.vmcb("int_state")
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.saved("vintr_ctrl")[0]).toBe(1 << 10)
    expect(machine.vmcb("int_state")).toEqual(before)
    // The shadow is loaded again: the interrupt waits for the load.
    setVintr(machine, (1 << 10) | INT_CTL.V_IRQ | PRIORITY(1), 0x40)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.NPF, "sti", "load"])
  })

  it("sets BUSY with an event in GUEST_EXITINTINFO: VMRUN is refused until a higher level has seen to it", () => {
    const machine = alternate([A], { stack: GPA.private2 + 0x100 })
    machine.npt.unmap(GFN.private2)
    machine.vmsa().setUint32(VMSA.event_inj, injectInterrupt(0x51), true)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.saved("guest_exit_int_info")).toEqual([injectInterrupt(0x51), 0])
    expect(machine.vmcb("exit_int_info")).toEqual([0, 0])
    expect(machine.saved("vintr_ctrl")).toEqual([0, BUSY])
    machine.npt.map(GFN.private2, PFN.private2)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.BUSY])
    setVintr(machine, 0)
    machine.vmsa().setUint32(VMSA.event_inj, injectInterrupt(0x51), true)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "interrupt 51 IF=0", "a"])
    expect(machine.saved("vintr_ctrl")).toEqual([0, 0])
  })

  it("has task priority there too", () => {
    const machine = alternate([["cr8", writeCr(8, 7)]])
    setIntCtl(machine, 0x30)
    machine.run()
    expect([machine.saved("vintr_ctrl")[0], machine.vmcb("int_ctl")[0]]).toEqual([0x70, 0x30])
  })
})

describe("an interrupt between two operations", () => {
  const busy = (machine: TestMachine, leave: boolean) =>
    function* (): Program {
      // Results of its own, a carry, a nested #VC.
      yield write(GPA.data + 8, 8, 0xffff_ffff, 0xffff_ffff)
      yield read(GPA.data + 8, 8)
      yield sti()
      machine.log.push("handler")
      if (leave) yield vmgexit()
    }
  const seen: (result: OperationResult) => string = ({ lo, hi, ecx, edx, carry }) => [lo, hi, ecx, edx, carry].join(" ")

  it.each([false, true])("disturbs neither result nor RFLAGS, if its handler leaves the guest (%s) either", (leave) => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      yield lidt({ interrupt: busy(machine, leave) })
      yield write(GPA.data, 8, 0x1234, 0x5678)
      const result = yield vmgexit()
      machine.log.push(seen(result))
      machine.log.push(seen(yield read(GPA.data, 8)))
      yield vmgexit()
    })
    machine.run()
    const { result } = machine.hardware.executions.get(PFN.vmsa)!
    Object.assign(result, { lo: 1, hi: 2, ecx: 3, edx: 4, carry: true })
    inject(machine, injectInterrupt(0x20))
    if (leave) expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "handler"])
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect(machine.log).toEqual(["handler", "1 2 3 4 true", "4660 22136 3 4 true"])
    expect(machine.saved("rflags")).toEqual([0, 0])
  })

  it("keeps the operation that a fault has interrupted: it is done after the handler", () => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      yield lidt({
        *interrupt(): Program {
          yield write(GPA.data, 1, 7)
        }
      })
      machine.log.push(`${(yield read(GPA.data, 1)).lo}`)
      yield vmgexit()
    })
    machine.npt.unmap(GFN.data)
    expect(machine.run()).toBe(EXIT.NPF)
    machine.npt.map(GFN.data, PFN.data)
    inject(machine, injectInterrupt(0x20))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "7"])
  })

  it("nests: the inner handler returns into the outer one", () => {
    const machine = guest([A], {
      *interrupt(vector): Program {
        machine.log.push(`begin ${vector}`)
        yield vmgexit()
        machine.log.push(`end ${vector}`)
      }
    })
    inject(machine, injectInterrupt(1))
    machine.run()
    inject(machine, injectInterrupt(2))
    machine.run()
    machine.run()
    machine.run()
    expect(machine.log).toEqual(["begin 1", "begin 2", "end 2", "end 1", "a"])
  })

  it("whose handler takes or raises an exception shuts down: it is not the program's to catch", () => {
    for (const raises of [false, true]) {
      const machine = new TestMachine()
      machine.install(function* (): Program {
        yield lidt({
          *interrupt(): Program {
            yield raises ? wbinvd() : writeCr(8, 0x100)
            throw new GuestException("#GP")
          }
        })
        try {
          yield vmgexit()
          yield wbinvd()
        } catch {
          machine.log.push("caught")
        }
      })
      machine.run()
      inject(machine, injectInterrupt(1))
      expect([machine.run(), ...machine.log]).toEqual([EXIT.SHUTDOWN])
    }
  })

  it("runs its handler for a program that has ended, which then halts again", () => {
    const machine = guest([])
    machine.run()
    expect(machine.run()).toBe(EXIT.HLT)
    inject(machine, injectInterrupt(1))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "interrupt 1 IF=0"])
    enable(machine)
    inject(machine, injectInterrupt(2))
    setIntCtl(machine, INT_CTL.V_IRQ | PRIORITY(1), 3)
    expect([machine.run(), ...machine.log.slice(1)]).toEqual([EXIT.HLT, "interrupt 2 IF=0", "interrupt 3 IF=0"])
  })
})
