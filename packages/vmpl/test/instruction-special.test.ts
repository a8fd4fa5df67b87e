import { EXIT, INTERCEPT, MSR, PAGE_SIZE, SEV_FEATURES, setU64, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  GuestException,
  guestVmload,
  guestVmrun,
  guestVmsave,
  hlt,
  hostTsc,
  mwait,
  type Operation,
  type Program,
  pause,
  rdtsc,
  rdtscp,
  read,
  vmgexit,
  vmmcall,
  write,
  wrmsr
} from "../src/index.ts"
import { intercepting, show, tryAll } from "./instructions.ts"
import { ENTRY, GPA, type MachineOptions, PFN, TestMachine, VMCB_PA } from "./machine.ts"
import { LINEAR, PagedMachine } from "./pages.ts"

describe("the time stamp counter", () => {
  const SECOND = 1_000_000_000
  const counterAt = (ns: number, prepare: (machine: TestMachine) => void, operation = rdtsc()) => {
    const machine = new TestMachine()
    prepare(machine)
    machine.cpu.thread.time = ns - 10
    return tryAll(machine, operation)[0]
  }
  const hex = (value: bigint) => {
    const wrapped = BigInt.asUintN(64, value)
    return `${(wrapped & 0xffff_ffffn).toString(16)}:${(wrapped >> 32n).toString(16)}`
  }

  it("is the host's with the VMCB's offset, which may be negative", () => {
    for (const [lo, hi, offset] of [
      [0, 0, 0n],
      [5, 0, 5n],
      [0xffff_fff0, 0xffff_ffff, -16n],
      [0, 0x8000_0000, -(2n ** 63n)]
    ] as const) {
      const seen = counterAt(SECOND, ({ host }) => host.write64(VMCB_PA + VMCB.tsc_offset, lo, hi))
      expect(seen).toBe(hex(BigInt(hostTsc(SECOND)) + offset))
    }
  })

  it("is under SecureTSC scaled and offset as the VMSA says, whatever the host wants", () => {
    const seen = counterAt(SECOND, (machine) => {
      machine.host.write64(VMCB_PA + VMCB.tsc_offset, 12345, 0)
      machine.putVmsa(PFN.vmsa, { features: SEV_FEATURES.SecureTSC })
      setU64(machine.vmsa(), VMSA.guest_tsc_scale, 0x1_8000_0000)
      setU64(machine.vmsa(), VMSA.guest_tsc_offset, 7)
    })
    expect(seen).toBe(hex(3_000_000_007n))
  })

  it("comes with TSC_AUX in ECX for RDTSCP", () => {
    const machine = new TestMachine()
    machine.install(function* (): Program {
      yield wrmsr(MSR.TSC_AUX, 0x77)
      machine.log.push((yield rdtscp()).ecx.toString(16))
    })
    machine.run()
    expect(machine.log).toEqual(["77"])
  })
})

describe("VMRUN, VMLOAD and VMSAVE of a guest on an address that the machine reserves", () => {
  const RESERVED = 0x40_0000
  const hostMsrs = (svmeAddrChk: boolean) => ({
    snpEnabled: true,
    vmHsavePa: PFN.shared * PAGE_SIZE,
    ibsEnabled: false,
    svmeAddrChk,
    reserved: [{ base: RESERVED, end: RESERVED + 2 * PAGE_SIZE }]
  })
  const OPERATIONS = [
    [guestVmrun, INTERCEPT.VMRUN, "80"],
    [guestVmload, INTERCEPT.VMLOAD, "82"],
    [guestVmsave, INTERCEPT.VMSAVE, "83"]
  ] as const
  const outcome = (options: MachineOptions, operation: Operation, ...bits: ReadonlyArray<number>) =>
    tryAll(intercepting(new TestMachine(options), ...bits), operation)[0]

  it.each(OPERATIONS)("%o", (of, intercept, code) => {
    const [checked, unchecked] = [{ hostMsrs: hostMsrs(true) }, { hostMsrs: hostMsrs(false) }]
    for (const bad of [RESERVED, RESERVED + PAGE_SIZE, PAGE_SIZE + 8]) {
      // With SvmeAddrChk the intercept comes first, without it the exception, as on a bare machine.
      expect(outcome(checked, of(bad), intercept)).toBe(`#VC ${code} 0:0 0`)
      expect(outcome(unchecked, of(bad), intercept)).toBe("#GP")
      expect(outcome(unchecked, of(bad), intercept, INTERCEPT.EXCEPTION + 13)).toBe("#VC 4d 0:0 0")
      expect(outcome(checked, of(bad))).toBe("#GP")
    }
    for (const good of [RESERVED - PAGE_SIZE, RESERVED + 2 * PAGE_SIZE]) {
      expect(outcome(unchecked, of(good), intercept)).toBe(`#VC ${code} 0:0 0`)
      expect(outcome(unchecked, of(good))).toBe("#UD")
    }
    const { svmeAddrChk: _, ...unsaid } = hostMsrs(true)
    expect(outcome({ hostMsrs: unsaid }, of(RESERVED), intercept)).toBe(`#VC ${code} 0:0 0`)
    expect(outcome({}, of(PAGE_SIZE), intercept)).toBe(`#VC ${code} 0:0 0`)
  })
})

describe("an exception that the hypervisor intercepts", () => {
  it.each([
    ["#GP", wrmsr(MSR.SEV_STATUS, 0), 13],
    ["#UD", vmmcall(), 6]
  ])("%s is #VC, and without the intercept the program's", (name, operation, vector) => {
    const code = (0x40 + vector).toString(16)
    const machine = intercepting(new TestMachine(), INTERCEPT.EXCEPTION + vector)
    expect(tryAll(machine, operation)).toEqual([`#VC ${code} 0:0 0`])
    const other = intercepting(new TestMachine(), INTERCEPT.EXCEPTION + vector + 1)
    expect(tryAll(other, operation)).toEqual([name])
  })

  it("#PF has its error code in EXITINFO1 and the address in EXITINFO2", () => {
    const machine = new PagedMachine()
    machine.intercept(INTERCEPT.EXCEPTION + 14)
    expect(tryAll(machine, write(LINEAR, 1, 0))).toEqual([`#VC 4e 2:0 ${LINEAR - ENTRY}`])
  })
})

describe("PAUSE", () => {
  const spin = (times: number, gap = 0) =>
    function* (): Program {
      for (let i = 0; i < times; i++) {
        yield pause()
        for (let j = 0; j < gap; j++) yield mwait()
      }
      yield vmgexit()
    }
  const spinning = (times: number, count: number, threshold = 0, on = true) => {
    const machine = new TestMachine()
    if (on) machine.intercept(INTERCEPT.PAUSE)
    machine.host.write32(VMCB_PA + VMCB.pause_filter_thresh, threshold | (count << 16))
    machine.install(spin(times))
    return machine
  }

  it.each([
    ["as often as the count allows", 3, 3, EXIT.VMGEXIT],
    ["once more", 4, 3, EXIT.PAUSE],
    ["with a count of 0", 1, 0, EXIT.PAUSE]
  ])("%s", (_, times, count, exit) => {
    const machine = spinning(times, count)
    expect([machine.run(), machine.saved("rip")[0]]).toEqual([
      exit,
      exit === EXIT.PAUSE ? ENTRY + times : ENTRY + times + 1
    ])
    // VMRUN gives a fresh count.
    expect(machine.run()).toBe(exit === EXIT.PAUSE ? EXIT.VMGEXIT : EXIT.HLT)
  })

  it("is no exit without the intercept", () => {
    expect(spinning(10, 0, 0, false).run()).toBe(EXIT.VMGEXIT)
  })

  it("begins the count anew when the one before was longer ago than the threshold", () => {
    // One PAUSE takes 10 ns, which are 20 ticks.
    expect(spinning(10, 0, 19).run()).toBe(EXIT.VMGEXIT)
    expect(spinning(10, 3, 20).run()).toBe(EXIT.PAUSE)
    expect(spinning(3, 3, 20).run()).toBe(EXIT.VMGEXIT)
  })

  it("several in a row count one by one and leave at the one too many", () => {
    const machine = spinning(0, 4)
    machine.install(function* (): Program {
      yield pause(20)
      yield vmgexit()
    })
    expect(machine.run()).toBe(EXIT.PAUSE)
    // VMRUN, five times PAUSE, #VMEXIT.
    expect(machine.cpu.thread.time).toBe(70)
  })
})

describe("HLT", () => {
  it("that nobody intercepts waits for a physical event, and goes on behind itself", () => {
    const machine = new TestMachine()
    machine.intercept(INTERCEPT.HLT, false)
    machine.install(function* (): Program {
      yield hlt()
      yield write(GPA.data, 1, 1)
      machine.log.push(show(yield read(GPA.data, 1)))
      yield vmgexit()
    })
    machine.cpu.interruptAt = 5000
    expect(machine.run()).toBe(EXIT.INTR)
    expect([machine.cpu.thread.time, machine.saved("rip")[0]]).toEqual([5010, ENTRY + 1])
    expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "1:0"])
  })

  it("lets the horizon pass while it waits", () => {
    const machine = new TestMachine()
    machine.intercept(INTERCEPT.HLT, false)
    machine.install(function* (): Program {
      yield hlt()
    })
    expect(machine.run(3000)).toBe(-1000)
    expect(machine.cpu.thread.time).toBe(3001)
    expect(() => machine.resume()).toThrow("let run for a time")
  })

  it("is #GP off CPL 0 before the intercept is looked at", () => {
    const machine = new TestMachine()
    machine.putVmsa(PFN.vmsa, { cpl: 3 })
    expect(tryAll(machine, hlt())).toEqual(["#GP"])
    expect(new GuestException("#GP").errorCode).toBe(0)
  })
})
