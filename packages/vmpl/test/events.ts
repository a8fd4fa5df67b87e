import { EXIT, INT_CTL, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { expect } from "vitest"
import {
  cli,
  type Idt,
  invd,
  lidt,
  type Operation,
  type Program,
  readRegister,
  sti,
  vmgexit,
  wbinvd
} from "../src/index.ts"
import { TestMachine, VMCB_PA } from "./machine.ts"

export const IF = 0x200
export const UNMAPPED = 0x7_0000_0000
export const PRIORITY = (level: number) => level << INT_CTL.V_INTR_PRIO_SHIFT

export const inject = (machine: TestMachine, lo: number, error = 0) =>
  machine.host.write64(VMCB_PA + VMCB.event_inj, lo, error)
export const setIntCtl = (machine: TestMachine, intCtl: number, vector = 0) => {
  machine.host.write32(VMCB_PA + VMCB.int_ctl, intCtl >>> 0)
  machine.host.write32(VMCB_PA + VMCB.int_vector, vector)
}
export const setShadow = (machine: TestMachine) => machine.host.write32(VMCB_PA + VMCB.int_state, 1)

/** Handlers that write themselves down, with RFLAGS.IF as they find it. */
export const tables = (machine: TestMachine): Idt => {
  const note = (name: string) =>
    function* (): Program {
      const { lo } = yield readRegister(VMSA.rflags)
      machine.log.push(`${name} IF=${(lo & IF) >> 9}`)
    }
  return { hv: note("#HV"), nmi: note("NMI"), interrupt: (vector) => note(`interrupt ${vector.toString(16)}`)() }
}

/** A guest that loads its IDT, leaves, and then writes down each operation before it does it. */
export const guest = (
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
export const A = ["a", wbinvd()] as const
export const B = ["b", invd()] as const
export const C = ["c", wbinvd()] as const
export const STI = ["sti", sti()] as const
export const CLI = ["cli", cli()] as const
export const enable = (machine: TestMachine) => machine.vmsa().setUint32(VMSA.rflags, IF, true)
