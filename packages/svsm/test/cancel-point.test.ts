import { Ghcb } from "@vmpl-lab/guest"
import { DOORBELL, DOORBELL_FLAG, GHCB_MSR } from "@vmpl-lab/sev-es"
import { CpuInterrupts } from "@vmpl-lab/svsm"
import { OP, OperationResult, type Program } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"

const DOORBELL_GPA = 0x7000
const SERVED = { vmsaGpa: 0x1000, caGpa: 0x2000, apicId: 0, vmpl: 2, guestOwned: false }

/**
 * One entry of the guest, operation by operation, with an #HV right before one of them is fetched.
 * @returns the operations, the host's error, and whether something still stands in the doorbell page
 */
const enter = (ringsBefore: number, flagsBefore = 0) => {
  const cpu = new CpuInterrupts(new Ghcb(0x5000), DOORBELL_GPA, null)
  const result = new OperationResult()
  let flags = flagsBefore
  const execute = (op: number, address: number): void => {
    result.lo = op === OP.RDMSR ? GHCB_MSR.RUN_VMPL_RESPONSE : 0
    result.hi = 0
    if (address !== DOORBELL_GPA + DOORBELL.flags) return
    result.lo = flags
    if (op === OP.XCHG8) flags = 0
  }
  const install = cpu.install().next()
  const hv = install.done === true ? undefined : install.value.idt?.hv
  const handle = (program: Program): void => {
    for (let step = program.next(result); step.done !== true; step = program.next(result)) {
      execute(step.value.op, step.value.address)
    }
  }
  const operations: Array<number> = []
  const program = cpu.runGuest(SERVED)
  for (;;) {
    if (operations.length === ringsBefore) {
      flags |= DOORBELL_FLAG.NO_FURTHER_SIGNAL
      handle(hv!())
    }
    const step = program.next(result)
    if (step.done === true) return { operations, error: step.value, flags }
    operations.push(step.value.op)
    execute(step.value.op, step.value.address)
  }
}

describe("entering the guest", () => {
  it("looks at the doorbell, asks for the level, and goes", () => {
    const { operations, error } = enter(-1)
    expect(operations).toEqual([OP.READ, OP.WRMSR, OP.VMGEXIT, OP.RDMSR])
    expect(error).toBe(0)
  })

  it("does not go while something stands in the doorbell", () => {
    const { operations, error, flags } = enter(-1, DOORBELL_FLAG.NO_FURTHER_SIGNAL)
    expect(operations).not.toContain(OP.VMGEXIT)
    expect([error, flags]).toEqual([0, 0])
  })

  it.each([1, 2])("an #HV after %i operations cancels it, and is served at once", (after) => {
    const { operations, error, flags } = enter(after)
    expect(operations).not.toContain(OP.VMGEXIT)
    expect([error, flags]).toEqual([0, 0])
  })

  it.each([3, 4])("one after %i operations finds the guest back, and is served too", (after) => {
    const { operations, flags } = enter(after)
    expect(operations.slice(0, 4)).toEqual([OP.READ, OP.WRMSR, OP.VMGEXIT, OP.RDMSR])
    expect(flags).toBe(0)
  })
})
