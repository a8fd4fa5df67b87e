// @ghcb 0x80000003, 0x80000018
import { GHCB, MSR_GHCB, terminationLo } from "@vmpl-lab/sev-es"
import { OP, type Operation, type Program } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import { Ghcb, ghcbRdmsr, ghcbStringIo, guestIdt, mmioWrite, sevInfo } from "../src/index.ts"
import { GHCB_GPA, put, reply, suppliedFields } from "./GhcbPage.ts"

const BACKUP = 0x3_0000

/** A hypervisor that answers RDMSR with the MSR's number, and notes the events. */
const hosted = () => {
  const machine = new ScriptedMachine()
  const events: Array<number> = []
  machine.onVmgexit = (at) => {
    if ((at.msr[0] & 0xfff) !== 0) {
      events.push(at.msr[0])
      at.msr = [0x3300_0001, 0x0002_0001]
      return
    }
    const { sw_exit_code, rcx } = suppliedFields(at)
    events.push(sw_exit_code![0])
    if (sw_exit_code![0] !== 0x7c) return reply(at)
    reply(at, { rax: rcx!, rdx: [0, 0] })
  }
  return { machine, events }
}

/** Interrupts a machine once, before its operation of that number; beyond the last one never. */
const interruptAt = (machine: ScriptedMachine, at: number, handler: () => Program): { came: boolean } => {
  const state = { came: false }
  let count = 0
  machine.interrupts = () => {
    if (state.came || count++ !== at) return undefined
    state.came = true
    return handler()
  }
  return state
}

/** Runs the program with an interruption at every place there is. @returns how many places */
const everywhere = <R>(
  ghcbOf: () => Ghcb,
  program: (ghcb: Ghcb) => Program<R>,
  handler: (ghcb: Ghcb) => Program,
  check: (outcome: R | "halted", events: ReadonlyArray<number>) => void
): number => {
  for (let at = 0; ; at++) {
    const { machine, events } = hosted()
    const ghcb = ghcbOf()
    const state = interruptAt(machine, at, () => handler(ghcb))
    const outcome = machine.run(program(ghcb))
    if (!state.came) return at
    check(outcome, events)
  }
}

const withBackup = (): Ghcb => new Ghcb(GHCB_GPA, { backup: BACKUP })
const other = function* (ghcb: Ghcb): Program {
  expect(yield* ghcbRdmsr(ghcb, 0x222)).toEqual({ ok: true, value: { lo: 0x222, hi: 0 } })
}

describe("a GHCB in use", () => {
  it("is saved and put back around a second use, wherever that comes", () => {
    const places = everywhere(
      withBackup,
      (ghcb) => ghcbRdmsr(ghcb, 0x111),
      other,
      (outcome, events) => {
        expect(outcome).toEqual({ ok: true, value: { lo: 0x111, hi: 0 } })
        expect(events).toEqual([0x7c, 0x7c])
      }
    )
    expect(places).toBeGreaterThan(20)
  })

  it("is saved with its shared buffer", () => {
    const clobber = function* (ghcb: Ghcb): Program {
      yield* mmioWrite(ghcb, 0xfec0_0000, 8, { lo: 0xdead_beef, hi: 0xdead_beef })
    }
    for (let at = 0; ; at++) {
      const { machine } = hosted()
      const ghcb = withBackup()
      machine.set(0x5000, 4, 0x1234_5678)
      const inner = machine.onVmgexit
      const seen: Array<number> = []
      machine.onVmgexit = (now) => {
        if (suppliedFields(now).sw_exit_code![0] === 0x7b) seen.push(now.get(GHCB_GPA + 0x800, 4, "shared")[0])
        inner(now)
      }
      const state = interruptAt(machine, at, () => clobber(ghcb))
      machine.run(ghcbStringIo(ghcb, false, { port: 0x80, size: 4, count: 1, address: 0x5000, cbit: true }))
      if (!state.came) break
      expect(seen).toEqual([0x1234_5678])
    }
  })

  it("keeps the run-VMPL path whole as well, and lets that interrupt another event", () => {
    const ring = function* (ghcb: Ghcb): Program {
      expect(yield* ghcb.runVmpl(0)).toBe(true)
    }
    const pointed = function* (ghcb: Ghcb): Program<boolean> {
      yield* ghcb.use()
      return yield* ghcb.runVmpl(0)
    }
    everywhere(withBackup, pointed, other, (outcome) => expect(outcome).toBe(true))
    const guarded = function* (ghcb: Ghcb): Program {
      yield* guestIdt({ vc: { ghcb }, onInterrupt: () => ring(ghcb) }).interrupt!(32)
    }
    everywhere(
      withBackup,
      (ghcb) => ghcbRdmsr(ghcb, 0x111),
      guarded,
      (outcome) => expect(outcome).toEqual({ ok: true, value: { lo: 0x111, hi: 0 } })
    )
  })

  it("keeps apart two run-VMPL exchanges, one of which is refused", () => {
    let rings = 0
    let places = 0
    for (; ; places++) {
      const machine = new ScriptedMachine()
      const answers: Array<boolean> = []
      rings = 0
      // The inner one is the one that comes to the host from within the handler.
      let inside = false
      machine.onVmgexit = (at) => {
        rings++
        reply(at, inside ? { sw_exit_info_1: [2, 0], sw_exit_info_2: [7, 0] } : {})
      }
      const ghcb = withBackup()
      machine.msr = [GHCB_GPA, 0]
      const state = interruptAt(machine, places, function* () {
        inside = true
        answers.push(yield* ghcb.runVmpl(0))
        inside = false
      })
      const outer = machine.run(ghcb.runVmpl(0))
      if (!state.came) break
      expect([outer, ghcb.info2, answers, rings]).toEqual([true, 0, [false], 2])
    }
    expect(places).toBeGreaterThan(5)
  })

  it("costs the run-VMPL path seven operations, none of them for nesting", () => {
    const { machine } = hosted()
    const operations: Array<number> = []
    machine.interrupts = (next: Operation | null) => {
      if (next !== null) operations.push(next.op)
      return undefined
    }
    machine.msr = [GHCB_GPA, 0]
    expect(machine.run(withBackup().runVmpl(0))).toBe(true)
    expect(operations).toEqual([OP.WRITE, OP.WRITE, OP.WRITE, OP.WRITE, OP.VMGEXIT, OP.READ, OP.READ])
  })

  it.each([
    ["a second use without a backup", () => new Ghcb(GHCB_GPA), other],
    ["a third use", withBackup, (ghcb: Ghcb) => ghcb.holding(() => other(ghcb))]
  ])("ends the guest on %s", (_, ghcbOf, handler) => {
    const { machine, events } = hosted()
    const ghcb = ghcbOf()
    const program = ghcb.holding(() => handler(ghcb))
    expect(machine.run(program)).toBe("halted")
    expect(events).toEqual([terminationLo(0, 0)])
  })

  it("is free again after an exception, and the page of the interrupted user is back", () => {
    const { machine } = hosted()
    const ghcb = withBackup()
    const usual = machine.onVmgexit
    machine.onVmgexit = (at) => reply(at, { sw_exit_info_1: [1, 0], sw_exit_info_2: [0x8000_0b0d, 0] })
    const program = function* (): Program<number> {
      return yield* ghcb.holding(function* () {
        put(machine, "rsp", [0x77, 0])
        try {
          yield* ghcb.request(0x76)
        } catch {
          return machine.get(GHCB_GPA + GHCB.rsp, 8, "shared")[0]
        }
        return -1
      })
    }
    expect(machine.run(program())).toBe(0x77)
    machine.onVmgexit = usual
    expect(machine.run(ghcb.holding(() => ghcbRdmsr(ghcb, 0x111)))).toMatchObject({ ok: true })
  })
})

describe("NMI", () => {
  const nmi = (ghcb: Ghcb, onNmi: () => Program): Program => guestIdt({ vc: { ghcb }, onNmi }).nmi!()

  it("may come anywhere in an event: its handler uses the GHCB and sends NMI complete", () => {
    everywhere(
      withBackup,
      (ghcb) => ghcbRdmsr(ghcb, 0x111),
      (ghcb) => nmi(ghcb, () => other(ghcb)),
      (outcome, events) => {
        expect(outcome).toEqual({ ok: true, value: { lo: 0x111, hi: 0 } })
        expect(events.toSorted((a, b) => a - b)).toEqual([0x7c, 0x7c, 0x8000_0003])
      }
    )
  })

  it("may come between the MSR protocol's write and its exit", () => {
    const places = everywhere(
      withBackup,
      () => sevInfo(),
      (ghcb) => nmi(ghcb, () => other(ghcb)),
      (outcome, events) => {
        expect(outcome).toEqual({ min: 1, max: 2, cbit: 51 })
        expect(events.toSorted((a, b) => a - b)).toEqual([2, 0x7c, 0x8000_0003])
      }
    )
    expect(places).toBe(6)
  })

  it("finds the GHCB MSR pointing at the page, so that the run-VMPL path works in its handler", () => {
    const ring = function* (ghcb: Ghcb): Program {
      expect(yield* ghcb.runVmpl(0)).toBe(true)
    }
    everywhere(
      withBackup,
      () => sevInfo(),
      (ghcb) => nmi(ghcb, () => ring(ghcb)),
      (outcome, events) => {
        expect(outcome).toEqual({ min: 1, max: 2, cbit: 51 })
        expect(events.toSorted((a, b) => a - b)).toEqual([2, 0x8000_0003, 0x8000_0018])
      }
    )
  })

  it("may come again from NMI complete on, before the page is put back", () => {
    let second = 0
    for (let at = 0; ; at++) {
      const { machine, events } = hosted()
      const ghcb = withBackup()
      let first = true
      let completed = -1
      let came = false
      let count = 0
      machine.interrupts = (next) => {
        if (first && next?.op === OP.VMGEXIT) {
          first = false
          return nmi(ghcb, () => other(ghcb))
        }
        // The second one, so many operations after the exit of the first one's NMI complete.
        if (!first && !came && events.includes(0x8000_0003)) {
          completed = count++
          if (completed === at) {
            came = true
            return nmi(ghcb, () => other(ghcb))
          }
        }
        return undefined
      }
      const outcome = machine.run(ghcbRdmsr(ghcb, 0x111))
      if (!came) break
      second++
      expect(outcome).toEqual({ ok: true, value: { lo: 0x111, hi: 0 } })
      expect(events.filter((event) => event === 0x8000_0003)).toHaveLength(2)
    }
    expect(second).toBeGreaterThan(5)
  })

  it("leaves the GHCB MSR as it was", () => {
    const { machine } = hosted()
    machine.msr = [0x1234_5002, 0x77]
    machine.run(nmi(withBackup(), () => (function* () {})()))
    expect(machine.msr).toEqual([0x1234_5002, 0x77])
    expect(MSR_GHCB).toBe(0xc001_0130)
  })
})
