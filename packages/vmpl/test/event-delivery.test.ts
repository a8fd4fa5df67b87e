import { EXIT, INJECT_NMI, INT_CTL, injectInterrupt, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  GuestException,
  type Idt,
  lidt,
  type Operation,
  type OperationResult,
  type Program,
  read,
  sti,
  vmgexit,
  wbinvd,
  write,
  writeCr
} from "../src/index.ts"
import { A, enable, guest, inject, PRIORITY, STI, setIntCtl, UNMAPPED } from "./events.ts"
import { ASID, ENTRY, GFN, GPA, PFN, TestMachine } from "./machine.ts"

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
    setIntCtl(machine, 3)
    machine.run()
    expect([machine.saved("vintr_ctrl")[0], machine.vmcb("int_ctl")[0]]).toEqual([7, 3])
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
