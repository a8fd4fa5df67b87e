import { EXIT, INT_CTL, INTERCEPT, injectInterrupt, VMCB } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { expect, it } from "vitest"
import {
  cli,
  hlt,
  lidt,
  type Operation,
  type Program,
  pause,
  read,
  STILL_IN_GUEST,
  sti,
  vmgexit,
  wbinvd,
  writeCr
} from "../src/index.ts"
import { GFN, GPA, PFN, TestMachine, VMCB_PA } from "./machine.ts"

// When a guest takes an interrupt: random programs and hosts, against a model that knows IF, shadow, priority and
// nothing else. FAULT is a load whose page the host has taken away.

type Instruction = "STI" | "CLI" | "HLT" | "PAUSE" | "LOAD" | "FAULT" | "EXIT" | "TPR0" | "TPR5"

/** What the host does before it enters: an event of its own, and a virtual interrupt with a priority. */
interface Entry {
  readonly inject: number | null
  readonly pend: { readonly vector: number; readonly priority: number } | "withdraw" | null
}

interface Plan {
  readonly instructions: ReadonlyArray<Instruction>
  /** One for each VMRUN, then as often as needed nothing. */
  readonly entries: ReadonlyArray<Entry>
}
const NOTHING: Entry = { inject: null, pend: null }

/** What happens in order: "1 STI" is an instruction that begins, "int 33" a handler, "exit 3 irq" what the host sees. */
const predict = ({ instructions, entries }: Plan): Array<string> => {
  const trace: Array<string> = []
  let [enabled, shadow, tpr, stays] = [false, false, 0, 0]
  let pending: { vector: number; priority: number } | null = null

  const take = () => {
    while (pending !== null && enabled && !shadow && pending.priority > tpr) {
      trace.push(`int ${pending.vector}`)
      pending = null
    }
  }
  const enter = () => {
    const { inject, pend } = entries[stays++] ?? NOTHING
    if (pend === "withdraw") pending = null
    else if (pend !== null) pending = pend
    if (inject !== null) {
      trace.push(`int ${inject}`)
      shadow = false
    }
    take()
  }
  const leave = () => {
    trace.push(`exit ${(shadow ? 1 : 0) + (enabled ? 2 : 0)}${pending === null ? "" : " irq"}`)
    enter()
  }

  enter()
  for (const [index, instruction] of instructions.entries()) {
    trace.push(`${index} ${instruction}`)
    if (instruction === "FAULT") leave()
    shadow = instruction === "STI" && !enabled
    if (instruction === "STI") enabled = true
    if (instruction === "CLI") enabled = false
    if (instruction === "TPR0") tpr = 0
    if (instruction === "TPR5") tpr = 5
    if (instruction === "EXIT") leave()
    if (instruction === "HLT") {
      const waits = !(pending !== null && enabled && (pending as { priority: number }).priority > tpr)
      if (waits) leave()
    }
    take()
  }
  return trace
}

const OPERATION: Readonly<Record<Instruction, Operation>> = {
  STI: sti(),
  CLI: cli(),
  HLT: hlt(),
  PAUSE: pause(),
  LOAD: read(GPA.data, 1),
  FAULT: read(GPA.private2, 1),
  EXIT: vmgexit(),
  TPR0: writeCr(8, 0),
  TPR5: writeCr(8, 5)
}

const carryOut = ({ instructions, entries }: Plan): Array<string> => {
  const machine = new TestMachine()
  const trace: Array<string> = []
  let ended = false
  machine.intercept(INTERCEPT.HLT, false)
  machine.install(function* (): Program {
    yield lidt({
      *interrupt(vector): Program {
        trace.push(`int ${vector}`)
        yield wbinvd()
        yield pause()
      }
    })
    yield vmgexit()
    for (const [index, instruction] of instructions.entries()) {
      trace.push(`${index} ${instruction}`)
      yield OPERATION[instruction]
    }
    ended = true
    yield vmgexit()
  })
  machine.run()
  machine.npt.unmap(GFN.private2)

  const prepare = ({ inject, pend }: Entry) => {
    if (inject !== null) machine.host.write32(VMCB_PA + VMCB.event_inj, injectInterrupt(inject))
    if (pend === null) return
    const kept = machine.vmcb("int_ctl")[0] & INT_CTL.V_TPR_MASK
    const request = pend === "withdraw" ? 0 : INT_CTL.V_IRQ | (pend.priority << INT_CTL.V_INTR_PRIO_SHIFT)
    machine.host.write32(VMCB_PA + VMCB.int_ctl, kept | request)
    if (pend !== "withdraw") machine.host.write32(VMCB_PA + VMCB.int_vector, pend.vector)
  }

  for (let stay = 0; ; stay++) {
    prepare(entries[stay] ?? NOTHING)
    let exit = machine.run(machine.cpu.thread.time + 1_000_000)
    if (exit === STILL_IN_GUEST) {
      // It waits: a physical interrupt brings it back.
      machine.cpu.interruptAt = machine.cpu.thread.time
      exit = machine.resume()
      expect(exit).toBe(EXIT.INTR)
    }
    if (ended) return trace
    const irq = (machine.vmcb("int_ctl")[0] & INT_CTL.V_IRQ) !== 0
    trace.push(`exit ${machine.vmcb("int_state")[0]}${irq ? " irq" : ""}`)
    if (exit === EXIT.NPF) machine.npt.map(GFN.private2, PFN.private2)
    else expect([EXIT.VMGEXIT, EXIT.INTR]).toContain(exit)
  }
}

const instruction = fc.constantFrom<Instruction>(
  "STI",
  "STI",
  "CLI",
  "HLT",
  "PAUSE",
  "LOAD",
  "EXIT",
  "EXIT",
  "TPR0",
  "TPR5"
)
const vector = fc.integer({ min: 0x20, max: 0xff })
const entry: fc.Arbitrary<Entry> = fc.record({
  inject: fc.option(vector, { freq: 2 }),
  pend: fc.oneof(
    fc.constant(null),
    fc.constant("withdraw" as const),
    fc.record({ vector, priority: fc.integer({ min: 0, max: 9 }) }),
    fc.record({ vector, priority: fc.constant(9) })
  )
})
/** At most one FAULT, as the host gives the page back for good. */
const plan: fc.Arbitrary<Plan> = fc
  .record({
    before: fc.array(instruction, { maxLength: 20 }),
    fault: fc.boolean(),
    after: fc.array(instruction, { maxLength: 20 }),
    entries: fc.array(entry, { maxLength: 30 })
  })
  .map(({ before, fault, after, entries }) => ({
    instructions: [...before, ...(fault ? (["FAULT"] as const) : []), ...after],
    entries
  }))

const kindOf = (line: string): string => line.replace(/ *\d+ */g, " ").trim()

it("a guest takes interrupts exactly when the model says, and the host sees shadow, IF and V_IRQ as they are", () => {
  const met = new Map<string, number>()
  fc.assert(
    fc.property(plan, (one) => {
      const trace = predict(one)
      expect(carryOut(one)).toEqual(trace)
      for (const [index, line] of trace.entries()) {
        const name = line.startsWith("int") ? `${kindOf(trace[index - 1] ?? "")} int` : line
        met.set(name, (met.get(name) ?? 0) + 1)
      }
    }),
    { seed: 15, numRuns: 1500 }
  )
  // What is of interest was not too rare to be looked at.
  const interesting = ["HLT int", "TPR int", "PAUSE int", "LOAD int", "int int", "exit irq int", "exit 3", "exit 3 irq"]
  expect(interesting.filter((name) => (met.get(name) ?? 0) < 5)).toEqual([])
  // No interrupt comes behind CLI, and there is no shadow with IF clear.
  expect(["CLI int", "exit 1", "exit 1 irq"].filter((name) => met.has(name))).toEqual([])
})
