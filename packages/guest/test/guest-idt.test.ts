// @ghcb 0x80000003, 0x80000005, 0x7c
import { DOORBELL, EXIT } from "@vmpl-lab/sev-es"
import { OperationResult, type Program, pause, wrmsr } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import {
  Ghcb,
  guestIdt,
  type HvContext,
  initSipi,
  makeHvHandler,
  makeVcHandler,
  prepareAps,
  readApJumpTable,
  setApJumpTable,
  VMM_ERROR,
  writeApJumpTable
} from "../src/index.ts"
import { GHCB_GPA, reply, suppliedFields } from "./GhcbPage.ts"

const PAGE = 0x6_0000
const NMI = 1
const MC = 2
const NO_FURTHER_SIGNAL = 0x80

/** A doorbell page with a host that may ring again, and a handler that notes what it gets. */
const doorbell = (more: Partial<HvContext> = {}) => {
  const machine = new ScriptedMachine()
  const got: Array<string | number> = []
  const ring = (vector: number, flags: number): void => {
    machine.set(PAGE + DOORBELL.pending_vector, 1, vector, 0, "shared")
    machine.set(PAGE + DOORBELL.flags, 1, flags, 0, "shared")
  }
  const note = (what: string | number, then: () => void = () => {}): Program =>
    (function* () {
      got.push(what)
      then()
      yield pause()
    })()
  const handler = makeHvHandler({
    doorbell: PAGE,
    onVector: (vector) => note(vector),
    onNmi: () => note("NMI"),
    onMachineCheck: () => note("#MC"),
    ...more
  })
  const state = () => [0, 1].map((offset) => machine.get(PAGE + offset, 1, "shared")[0])
  return { machine, got, ring, handler, note, state }
}

describe("the #HV handler", () => {
  it("takes #MC, NMI and the vector, and leaves an empty page", () => {
    const { machine, got, ring, handler, state } = doorbell()
    ring(0x31, NMI | MC | NO_FURTHER_SIGNAL)
    machine.run(handler())
    expect([got, state()]).toEqual([
      ["#MC", "NMI", 0x31],
      [0, 0]
    ])
  })

  it("clears NoFurtherSignal before it looks at anything else", () => {
    const { machine, ring, handler } = doorbell()
    ring(0x31, NO_FURTHER_SIGNAL)
    const flags: Array<number> = []
    machine.interrupts = () => {
      if (machine.get(PAGE, 1, "shared")[0] === 0) flags.push(machine.get(PAGE + 1, 1, "shared")[0])
      return undefined
    }
    machine.run(handler())
    expect(flags.length).toBeGreaterThan(0)
    expect(new Set(flags)).toEqual(new Set([0]))
  })

  it("goes on until nothing is left", () => {
    let left = 3
    const { machine, got, ring, handler } = doorbell({
      onVector: (vector) =>
        (function* () {
          got.push(vector)
          if (left-- > 0) ring(vector + 1, NO_FURTHER_SIGNAL)
          yield pause()
        })()
    })
    ring(0x40, NO_FURTHER_SIGNAL)
    machine.run(handler())
    expect(got).toEqual([0x40, 0x41, 0x42, 0x43])
  })

  it("loses no ring that comes while it runs, wherever, and does not run twice at once", () => {
    for (let at = 0; ; at++) {
      const { machine, got, ring, handler, state } = doorbell()
      ring(0x40, NO_FURTHER_SIGNAL)
      let count = 0
      let came = false
      machine.interrupts = () => {
        const free = machine.get(PAGE, 1, "shared")[0] === 0 && machine.get(PAGE + 1, 1, "shared")[0] < 0x80
        if (came || count++ < at || !free) return undefined
        came = true
        ring(0x50, NO_FURTHER_SIGNAL | NMI)
        return handler()
      }
      machine.run(handler())
      if (!came) {
        expect(at).toBeGreaterThan(5)
        break
      }
      expect(got.toSorted()).toEqual([0x40, 0x50, "NMI"])
      expect(state()).toEqual([0, 0])
    }
  })

  it("leaves a vector that may not come now in the page, and takes it when called again", () => {
    let open = false
    const { machine, got, ring, handler, state } = doorbell({ accepts: () => open })
    ring(0x31, NMI | NO_FURTHER_SIGNAL)
    machine.run(handler())
    expect([got, state()]).toEqual([["NMI"], [0x31, 0]])
    open = true
    machine.run(handler())
    expect([got, state()]).toEqual([
      ["NMI", 0x31],
      [0, 0]
    ])
  })

  it("puts back a vector that it did not see when it was asked", () => {
    const { machine, got, ring, handler, state } = doorbell({ accepts: (vector) => vector > 0x40 })
    ring(0x41, NO_FURTHER_SIGNAL)
    machine.interrupts = () => {
      // After the handler has seen the vector the host takes it out and gives another one.
      if (machine.loads.length === 1) machine.set(PAGE, 1, 0x33, 0, "shared")
      return undefined
    }
    machine.run(handler())
    expect([got, state()]).toEqual([[], [0x33, 0]])
  })

  it("drops what is no interrupt", () => {
    for (const vector of [1, 2, 13, 28, 29, 31]) {
      const { machine, got, ring, handler, state } = doorbell()
      ring(vector, NO_FURTHER_SIGNAL | 0x7c)
      machine.run(handler())
      expect([got, state()]).toEqual([[], [0, 0]])
    }
  })
})

/** A hypervisor that takes every event, and notes codes. */
const obedient = () => {
  const machine = new ScriptedMachine()
  const events: Array<ReturnType<typeof suppliedFields>> = []
  machine.onVmgexit = (at) => {
    events.push(suppliedFields(at))
    reply(at)
  }
  return { machine, events }
}

describe("the guest's IDT", () => {
  it("has just the handlers that the guest has a function for", () => {
    const vc = { ghcb: new Ghcb(GHCB_GPA) }
    const nothing = function* (): Program {
      yield pause()
    }
    expect(Object.keys(guestIdt({ vc }))).toEqual(["vc"])
    const hv = { doorbell: PAGE, onMachineCheck: nothing }
    expect(Object.keys(guestIdt({ vc, onNmi: nothing, onInterrupt: nothing, hv, stack: 0x8000 })).toSorted()).toEqual([
      "hv",
      "interrupt",
      "nmi",
      "stack",
      "vc"
    ])
  })

  it("has NMI complete sent after the function, also for an NMI by the doorbell", () => {
    const { machine, events } = obedient()
    const got: Array<string | number> = []
    const note = (what: string | number) =>
      function* (): Program {
        got.push(what, events.length)
        yield pause()
      }
    const idt = guestIdt({
      vc: { ghcb: new Ghcb(GHCB_GPA) },
      onNmi: note("NMI"),
      onInterrupt: (vector) => note(vector)(),
      hv: { doorbell: PAGE, onMachineCheck: note("#MC") }
    })
    machine.run(idt.nmi!())
    expect([got, events.map(({ sw_exit_code }) => sw_exit_code![0])]).toEqual([["NMI", 0], [0x8000_0003]])
    machine.set(PAGE, 2, 0x31 | ((NMI | MC | NO_FURTHER_SIGNAL) << 8), 0, "shared")
    machine.run(idt.hv!())
    expect(got).toEqual(["NMI", 0, "#MC", 1, "NMI", 1, 0x31, 2])
    machine.run(idt.interrupt!(0x77))
    expect(got.slice(-2)).toEqual([0x77, 2])
    expect(machine.msr).toEqual([0, 0])
  })
})

describe("starting APs", () => {
  it("writes the system's form of the jump table and tells where it is", () => {
    const { machine, events } = obedient()
    machine.run(writeApJumpTable(0x9_f000, { ip: 0x1234, cs: 0x9f00 }))
    expect(machine.get(0x9_f000, 4)[0]).toBe(0x9f00_1234)
    expect(machine.run(readApJumpTable(0x9_f000))).toEqual({ ip: 0x1234, cs: 0x9f00 })
    expect(machine.run(setApJumpTable(new Ghcb(GHCB_GPA), 0x9_f000))).toEqual({ ok: true, value: null })
    expect(events).toHaveLength(1)
  })

  it("finds the table, and writes into no page that is not the guest's own", () => {
    const entry = { ip: 0x10, cs: 0x9000 }
    const prepare = (gpa: number) => {
      const machine = new ScriptedMachine()
      machine.onVmgexit = (at) => reply(at, { sw_exit_info_2: [gpa, 0] })
      const outcome = machine.run(prepareAps(new Ghcb(GHCB_GPA), entry, (page) => page === 0x9_f000))
      return [outcome, machine.stores.filter(({ cbit }) => cbit).length]
    }
    expect(prepare(0x9_f000)).toEqual([{ ok: true, value: true }, 2])
    expect(prepare(0)).toEqual([{ ok: true, value: false }, 0])
    for (const gpa of [0x9_e000, 0x9_f008]) expect(prepare(gpa)).toEqual([{ ok: false, reason: VMM_ERROR }, 0])
  })

  it("sends INIT and SIPI by the x2APIC, to one or to all others", () => {
    const machine = new ScriptedMachine()
    machine.run(initSipi(0x105, 0x9f))
    machine.run(initSipi("all-but-self", 0x9f))
    expect(machine.msrWrites).toEqual([
      [0x830, 0x4500, 0x105],
      [0x830, 0x469f, 0x105],
      [0x830, 0xc_4500, 0],
      [0x830, 0xc_469f, 0]
    ])
    const { machine: host, events } = obedient()
    const handler = makeVcHandler({ ghcb: new Ghcb(GHCB_GPA) })
    host.run(handler(EXIT.MSR, wrmsr(0x830, 0x4500, 0x105), new OperationResult()))
    expect(events[0]).toMatchObject({ sw_exit_info_1: [1, 0], rcx: [0x830, 0], rax: [0x4500, 0], rdx: [0x105, 0] })
  })
})
