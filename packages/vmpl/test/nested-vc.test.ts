import { EXIT, INT_CTL, INTERCEPT, injectInterrupt, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  cli,
  cpuid,
  GuestException,
  hlt,
  type Idt,
  invd,
  lidt,
  type Program,
  rdmsr,
  read,
  readRegister,
  sti,
  vmgexit,
  wbinvd,
  write
} from "../src/index.ts"
import { GPA, PFN, TestMachine, VMCB_PA } from "./machine.ts"

const IF = 0x200
/** No such MSR: #GP. */
const NO_MSR = 0xc000_0081

/** A guest that loads an IDT and runs a body behind it; the body leaves by itself. */
const guest = (idt: (machine: TestMachine) => Idt, body: (machine: TestMachine) => () => Program): TestMachine => {
  const machine = new TestMachine()
  machine.install(function* (): Program {
    yield lidt(idt(machine))
    yield* body(machine)()
    yield vmgexit()
  })
  return machine
}
const logging = (machine: TestMachine) =>
  function* (): Program {
    machine.log.push(`answer ${(yield cpuid(7)).lo.toString(16)}`)
  }

describe("#VC in a #VC handler", () => {
  /** Handles CPUID of leaf n by asking for leaf n - 1, down to 0. */
  const descending = (machine: TestMachine): Idt => ({
    *vc(_, operation, result): Program {
      machine.log.push(`leaf ${operation.address}`)
      const below = operation.address === 0 ? 0x100 : (yield cpuid(operation.address - 1)).lo
      result.lo = below + operation.address
    }
  })

  it.each([1, 2, 3])("is handled on top of it, %i deep, and each answer goes where it belongs", (depth) => {
    const machine = guest(
      descending,
      () =>
        function* () {
          machine.log.push(`answer ${(yield cpuid(depth)).lo}`)
        }
    )
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    const leaves = Array.from({ length: depth + 1 }, (_, index) => `leaf ${depth - index}`)
    expect(machine.log).toEqual([...leaves, `answer ${0x100 + (depth * (depth + 1)) / 2}`])
  })

  it("beyond what the handler's stack holds shuts the vCPU down", () => {
    const machine = guest(
      descending,
      () =>
        function* () {
          yield cpuid(4)
        }
    )
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
    expect(machine.log).toEqual(["leaf 4", "leaf 3", "leaf 2", "leaf 1"])
  })

  it("does not use up the stack: as many as one likes may come one after another", () => {
    const machine = guest(
      descending,
      () =>
        function* () {
          for (let i = 0; i < 20; i++) yield cpuid(3)
          machine.log.push("end")
        }
    )
    expect([machine.run(), machine.log.at(-1)]).toEqual([EXIT.VMGEXIT, "end"])
  })

  it("does not use up the stack by handlers that raise an exception either", () => {
    const machine = guest(
      () => ({
        *vc(): Program {
          yield wbinvd()
          throw new GuestException("#GP")
        }
      }),
      () =>
        function* () {
          for (let i = 0; i < 20; i++) {
            try {
              yield cpuid(0)
            } catch {
              machine.log.push("caught")
            }
          }
        }
    )
    expect([machine.run(), machine.log.length]).toEqual([EXIT.VMGEXIT, 20])
  })
})

describe("a #VC handler that throws a GuestException", () => {
  it("raises it in the interrupted program", () => {
    const machine = guest(
      () => ({
        *vc(): Program {
          yield wbinvd()
          throw new GuestException("#GP", 0x33)
        }
      }),
      () =>
        function* () {
          try {
            yield cpuid(0)
            machine.log.push("not here")
          } catch (exception) {
            const { vector, errorCode } = exception as GuestException
            machine.log.push(`${vector} ${errorCode}`)
          }
          machine.log.push(`IF ${((yield readRegister(VMSA.rflags)).lo & IF) >> 9}`)
        }
    )
    machine.vmsa().setUint32(VMSA.rflags, IF, true)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "#GP 51", "IF 1"])
  })

  it("raises it in a #VC handler that was interrupted, which may do without", () => {
    const machine = guest(
      () => ({
        *vc(_, { address }, result): Program {
          if (address === 0) throw new GuestException("#UD")
          try {
            yield cpuid(0)
          } catch {
            result.lo = 0xab
          }
        }
      }),
      logging
    )
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "answer ab"])
  })

  it("hands it down through handlers that do not catch: the program gets it", () => {
    const machine = guest(
      () => ({
        *vc(_, { address }): Program {
          if (address === 0) throw new GuestException("#UD")
          try {
            yield cpuid(0)
          } catch {
            throw new GuestException("#GP", 9)
          }
        }
      }),
      () =>
        function* () {
          try {
            yield cpuid(1)
          } catch (exception) {
            machine.log.push(`${(exception as GuestException).vector}`)
          }
        }
    )
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "#GP"])
  })

  it("shuts down where the program does not catch it, and where the handler's own fault stays uncaught", () => {
    for (const vc of [
      function* (): Program {
        yield wbinvd()
        throw new GuestException("#GP")
      },
      function* (): Program {
        yield rdmsr(NO_MSR)
      }
    ]) {
      const machine = guest(() => ({ vc }), logging)
      expect([machine.run(), ...machine.log]).toEqual([EXIT.SHUTDOWN])
    }
  })

  it("that is no exception of the guest is a bug of the model", () => {
    const machine = guest(
      () => ({
        *vc(): Program {
          yield wbinvd()
          throw new RangeError("a bug")
        }
      }),
      logging
    )
    expect(() => machine.run()).toThrow("a bug")
  })
})

describe("a fault of a #VC handler itself", () => {
  it("is not the program's to catch", () => {
    const machine = guest(
      () => ({
        *vc(): Program {
          yield rdmsr(NO_MSR)
        }
      }),
      () =>
        function* () {
          try {
            yield cpuid(0)
          } catch {
            machine.log.push("caught")
          }
        }
    )
    expect([machine.run(), ...machine.log]).toEqual([EXIT.SHUTDOWN])
  })
})

describe("interrupts and #VC", () => {
  const setIntCtl = (machine: TestMachine) => {
    machine.host.write32(VMCB_PA + VMCB.int_ctl, INT_CTL.V_IRQ | (1 << INT_CTL.V_INTR_PRIO_SHIFT))
    machine.host.write32(VMCB_PA + VMCB.int_vector, 0x44)
  }
  const idt = (machine: TestMachine): Idt => ({
    *vc(_, __, result): Program {
      machine.log.push("#VC")
      yield write(GPA.data, 4, 0x1111)
      yield read(GPA.data, 4)
      machine.log.push("IRET")
      result.lo = 0xabc
    },
    *interrupt(vector): Program {
      machine.log.push(`interrupt ${vector.toString(16)}`)
      yield read(GPA.data + 64, 8)
    }
  })

  it("a handler begins with IF clear: what is pending waits for its IRET, and not longer", () => {
    const machine = guest(
      idt,
      () =>
        function* () {
          yield vmgexit()
          yield sti()
          machine.log.push(`answer ${(yield cpuid(1)).lo.toString(16)}`)
          yield invd()
        }
    )
    machine.run()
    setIntCtl(machine)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "#VC", "IRET", "interrupt 44", "answer abc"])
  })

  it("an exception that a handler raises lets a pending interrupt in before the program's next instruction", () => {
    const machine = guest(
      (own) => ({
        ...idt(own),
        *vc(): Program {
          yield invd()
          throw new GuestException("#GP")
        },
        *interrupt(): Program {
          machine.log.push("interrupt 44")
          yield write(GPA.data, 1, 9)
        }
      }),
      () =>
        function* () {
          yield vmgexit()
          yield sti()
          try {
            yield cpuid(1)
          } catch {
            machine.log.push(`reads ${(yield read(GPA.data, 1)).lo}`)
          }
        }
    )
    machine.run()
    setIntCtl(machine)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "interrupt 44", "reads 9"])
  })

  it("an interrupt in a #VC handler leaves the answer that the handler prepares alone", () => {
    const machine = guest(
      (own) => ({
        ...idt(own),
        *vc(_, __, result): Program {
          result.lo = 0x77
          yield vmgexit()
          own.log.push(`still ${result.lo.toString(16)}`)
        }
      }),
      logging
    )
    machine.run()
    machine.host.write64(VMCB_PA + VMCB.event_inj, injectInterrupt(0x20), 0)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "interrupt 20", "still 77", "answer 77"])
  })

  it("a #VC in an interrupt's handler leaves the interrupted program's result alone", () => {
    const machine = guest(
      (own) => ({
        ...idt(own),
        *interrupt(): Program {
          own.log.push(`in handler ${(yield cpuid(9)).lo.toString(16)}`)
        }
      }),
      () =>
        function* () {
          yield write(GPA.data + 8, 4, 0x5555)
          const { lo } = yield read(GPA.data + 8, 4)
          expect(lo).toBe(0x5555)
          machine.log.push(`result ${(yield vmgexit()).lo.toString(16)}`)
        }
    )
    machine.run()
    machine.host.write64(VMCB_PA + VMCB.event_inj, injectInterrupt(0x20), 0)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "#VC", "IRET", "in handler abc", "result 5555"])
  })

  it("a wait that a handler begins ends there too", () => {
    const machine = guest(
      (own) => ({
        ...idt(own),
        *vc(): Program {
          yield sti()
          yield hlt()
          yield cli()
          own.log.push("awake")
        }
      }),
      logging
    )
    machine.intercept(INTERCEPT.HLT, false)
    setIntCtl(machine)
    expect([machine.run(100_000), ...machine.log].slice(0, 3)).toEqual([EXIT.VMGEXIT, "interrupt 44", "awake"])
    expect(machine.saved("rflags", PFN.vmsa)).toEqual([0, 0])
  })
})
