import { EXIT, encodeIoio, INTERCEPT, MSR, PAGE_SIZE, setMsrIntercept, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  CR0,
  cli,
  invd,
  type Operation,
  type Program,
  portIn,
  portIns,
  portOut,
  portOuts,
  rdmsr,
  rdpmc,
  rdtsc,
  rdtscp,
  readCr,
  readDr,
  sti,
  vmgexit,
  wbinvd,
  writeCr,
  writeDr,
  wrmsr,
  xsetbv
} from "../src/index.ts"
import { EFER_SVME, IOPM, intercepting, MSRPM, PLAIN, tryAll } from "./instructions.ts"
import { ASID, ENTRY, GPA, PFN, sevEsMachine, TestMachine, VMCB_PA, type VmsaOptions } from "./machine.ts"

describe("an instruction that the hypervisor may intercept", () => {
  it.each(PLAIN)("%s is #VC with its exit code where it is intercepted", (_, operation, intercept, code) => {
    const machine = intercepting(new TestMachine(), intercept)
    const before = Uint8Array.from(machine.cpu.registers)
    expect(tryAll(machine, operation)).toEqual([`#VC ${code.toString(16)} 0:0 0`])
    // It has not been executed.
    for (const field of ["cr0", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "xcr0"] as const)
      expect(machine.saved(field)).toEqual([before[VMSA[field]], 0])
    expect(machine.vmcb("int_ctl")[0]).toBe(0)
  })

  it.each(PLAIN)("%s is executed where only the others are intercepted", (_, operation, own, __, native) => {
    const machine = intercepting(
      new TestMachine(),
      ...PLAIN.map(([, , intercept]) => intercept).filter((intercept) => intercept !== own)
    )
    expect(tryAll(machine, operation)).toEqual([native])
  })

  it("and that is done goes on behind itself, as after #VC", () => {
    const machine = intercepting(new TestMachine(), INTERCEPT.WBINVD)
    tryAll(machine, wbinvd(), invd())
    // LIDT, WBINVD, the handler's own, INVD, VMGEXIT.
    expect(machine.saved("rip")).toEqual([ENTRY + 5, 0])
  })

  it("on a register that does not exist is #UD", () => {
    expect(tryAll(new TestMachine(), readDr(4), writeDr(5, 0), readCr(2), writeCr(1, 0))).toEqual(Array(4).fill("#UD"))
  })
})

describe("CPL", () => {
  const atLevel = (cpl: number, vmsa: VmsaOptions, ...operations: ReadonlyArray<Operation>) => {
    const machine = intercepting(new TestMachine(), ...PLAIN.map(([, , intercept]) => intercept))
    machine.putVmsa(PFN.vmsa, { cpl, ...vmsa })
    return tryAll(machine, ...operations)
  }
  const EVERYONE = new Set(["RDTSC", "RDTSCP", "VMMCALL"])
  const NO_SUCH = new Set(["MONITOR", "MWAIT"])
  const [TSD, PCE] = [0x4, 0x100]

  it.each(PLAIN)("1 to 3 and %s: the exception comes before the intercept", (name, operation, _, code) => {
    const vc = `#VC ${code.toString(16)} 0:0 0`
    const user = EVERYONE.has(name) ? vc : NO_SUCH.has(name) ? "#UD" : "#GP"
    expect([0, 1, 2, 3].map((cpl) => atLevel(cpl, {}, operation)[0])).toEqual([vc, user, user, user])
  })

  it.each([
    ["RDTSC", rdtsc(), 3, TSD, "#GP"],
    ["RDTSCP", rdtscp(), 3, TSD, "#GP"],
    ["RDTSC", rdtsc(), 0, TSD, "#VC 6e 0:0 0"],
    ["RDPMC", rdpmc(0), 3, PCE, "#VC 6f 0:0 0"],
    ["RDPMC", rdpmc(0), 3, TSD, "#GP"]
  ])("lets %s pass as CR4 says", (_, operation, cpl, cr4, outcome) => {
    expect(atLevel(cpl, { cr4 }, operation)).toEqual([outcome])
  })

  it.each([
    ["IN", portIn(0x80, 1), "#VC"],
    ["OUT", portOut(0x80, 1, 0), "#VC"],
    ["INS", portIns(0x80, 1, GPA.data, 1), "#VC"],
    ["OUTS", portOuts(0x80, 1, GPA.data, 1), "#VC"],
    ["STI", sti(), "0:0"],
    ["CLI", cli(), "0:0"]
  ])("of at most IOPL lets %s pass", (_, operation, allowed) => {
    for (const cpl of [0, 1, 2, 3])
      for (const iopl of [0, 1, 2, 3]) {
        const [outcome] = atLevel(cpl, { rflags: iopl << 12 }, operation)
        expect([cpl, iopl, outcome!.split(" ")[0]]).toEqual([cpl, iopl, cpl <= iopl ? allowed : "#GP"])
      }
  })
})

describe("registers", () => {
  it("are written and read back: DR0 to DR3 in full, of DR6 and DR7 the lower half", () => {
    const operations = [0, 1, 2, 3, 6, 7].flatMap((register) => [
      writeDr(register, 0x100 + register, register < 6 ? 0x7fff : 0),
      readDr(register)
    ])
    const machine = new TestMachine()
    const values = tryAll(machine, ...operations).filter((_, index) => index % 2 === 1)
    expect(values).toEqual(["100:7fff", "101:7fff", "102:7fff", "103:7fff", "106:0", "107:0"])
    expect([machine.saved("dr3"), machine.saved("dr7")]).toEqual([
      [0x103, 0x7fff],
      [0x107, 0]
    ])
    expect(tryAll(new TestMachine(), writeDr(6, 0, 1), writeDr(7, 0, 1))).toEqual(["#GP", "#GP"])
  })

  it("CR8 is V_TPR, 4 bits", () => {
    const machine = new TestMachine()
    machine.host.write32(VMCB_PA + VMCB.int_ctl, 0x5)
    expect(tryAll(machine, readCr(8), writeCr(8, 0xb), readCr(8), writeCr(8, 0x10))).toEqual([
      "5:0",
      "5:0",
      "b:0",
      "#GP"
    ])
    expect(machine.vmcb("int_ctl")[0]).toBe(0xb)
  })

  it("CR0, CR4: a reserved upper half is #GP and leaves the old value", () => {
    const machine = new TestMachine()
    machine.putVmsa(PFN.vmsa, { cr0: 0x11, cr4: 0x40 })
    expect(tryAll(machine, writeCr(0, 1, 1), readCr(0), writeCr(4, 1, 1), readCr(4))).toEqual([
      "#GP",
      "11:0",
      "#GP",
      "40:0"
    ])
  })

  it("XCR0: XSETBV without bit 0 is #GP and leaves the old value", () => {
    const machine = new TestMachine()
    tryAll(machine, xsetbv(7), xsetbv(6))
    expect(machine.log).toEqual(["0:0", "#GP"])
    expect(machine.saved("xcr0")).toEqual([7, 0])
  })
})

describe("a write trap", () => {
  it.each([
    ["CR0", writeCr(0, 0x2_0011), INTERCEPT.CR0_WRITE_TRAP, 0x90, "cr0", 0x2_0011],
    ["CR4", writeCr(4, 0x668), INTERCEPT.CR4_WRITE_TRAP, 0x94, "cr4", 0x668],
    ["EFER", wrmsr(MSR.EFER, 0x100), INTERCEPT.EFER_WRITE, 0x8f, "efer", 0x100 | EFER_SVME]
  ] as const)(
    "of %s leaves once the register has the new value and RIP is behind",
    (_, operation, bit, code, field, value) => {
      const machine = intercepting(new TestMachine(), bit)
      machine.install(function* (): Program {
        yield operation
        machine.log.push("once")
        yield vmgexit()
      })
      expect(machine.run()).toBe(code)
      expect(machine.vmcb("exit_info_1")).toEqual([value, 0])
      expect([machine.saved(field), machine.saved("rip")]).toEqual([
        [value, 0],
        [ENTRY + 1, 0]
      ])
      expect([machine.run(), ...machine.log]).toEqual([EXIT.VMGEXIT, "once"])
    }
  )

  it("of CR8 shows the new task priority in int_ctl", () => {
    const machine = intercepting(new TestMachine(), INTERCEPT.CR8_WRITE_TRAP)
    machine.install(function* (): Program {
      yield writeCr(8, 9)
    })
    expect(machine.run()).toBe(EXIT.CR8_WRITE_TRAP)
    expect([machine.vmcb("exit_info_1"), machine.vmcb("int_ctl")[0]]).toEqual([[9, 0], 9])
    expect(machine.saved("rip")).toEqual([ENTRY + 1, 0])
  })

  it("does not come for a value that is refused, for reads, or without its intercept", () => {
    const traps = [INTERCEPT.CR0_WRITE_TRAP, INTERCEPT.CR4_WRITE_TRAP, INTERCEPT.CR8_WRITE_TRAP, INTERCEPT.EFER_WRITE]
    const reads = [readCr(0), readCr(4), readCr(8), rdmsr(MSR.EFER), writeCr(0, 0, 1), writeCr(8, 0x10)]
    expect(tryAll(intercepting(new TestMachine(), ...traps), ...reads).slice(4)).toEqual(["#GP", "#GP"])
    expect(tryAll(new TestMachine(), writeCr(0, 1), writeCr(4, 0), writeCr(8, 1), wrmsr(MSR.EFER, 0))).toHaveLength(4)
  })

  it("gives way to the intercept of the access itself", () => {
    const machine = intercepting(new TestMachine(), INTERCEPT.CR0_WRITE_TRAP, INTERCEPT.CR0_WRITE)
    expect(tryAll(machine, writeCr(0, CR0.WP))).toEqual(["#VC 10 0:0 0"])
    expect(machine.saved("cr0")).toEqual([0, 0])
  })
})

describe("port I/O of an SNP guest", () => {
  it.each([
    ["IN of 1", portIn(0x3f8, 1), { port: 0x3f8, size: 1, in: true, string: false, rep: false }],
    ["IN of 4", portIn(0xcfc, 4), { port: 0xcfc, size: 4, in: true, string: false, rep: false }],
    ["OUT of 2", portOut(0xffff, 2, 0x1234), { port: 0xffff, size: 2, in: false, string: false, rep: false }],
    ["REP INS", portIns(0x1f0, 2, GPA.data, 256), { port: 0x1f0, size: 2, in: true, string: true, rep: true }],
    ["REP OUTS", portOuts(0x402, 1, GPA.data, 5), { port: 0x402, size: 1, in: false, string: true, rep: true }]
  ])("%s is #VC without any intercept: EXITINFO1 describes it, EXITINFO2 is the next RIP", (_, operation, word) => {
    expect(tryAll(new TestMachine(), operation)).toEqual([`#VC 7b ${encodeIoio(word).toString(16)}:0 2`])
  })

  it("has these words", () => {
    const word = (operation: Operation) => tryAll(new TestMachine(), operation)[0]!.split(" ")[2]
    expect([portIn(0x3f8, 1), portOut(0x3f8, 4, 0), portIns(0x10, 2, 0, 1), portOuts(0x10, 1, 0, 1)].map(word)).toEqual(
      ["3f80211:0", "3f80240:0", "10022d:0", "100e1c:0"]
    )
  })
})

describe("port I/O of an SEV-ES guest", () => {
  const machineWith = (...ports: ReadonlyArray<number>) => {
    const machine = intercepting(sevEsMachine(), INTERCEPT.IOIO_PROT)
    machine.host.write64(VMCB_PA + VMCB.iopm_base_pa, IOPM * PAGE_SIZE, 0)
    for (const port of ports) machine.host.write8(IOPM * PAGE_SIZE + (port >> 3), 1 << (port & 7))
    return machine
  }
  const outcome = (machine: TestMachine, operation: Operation) => tryAll(machine, operation)[0]!.split(" ")[0]

  it.each([
    ["the port itself", 0x70, portIn(0x70, 1), "#VC"],
    ["the port below", 0x70, portIn(0x71, 1), "ff:0"],
    ["the port above", 0x71, portIn(0x70, 1), "ff:0"],
    ["the last byte of the access", 0x73, portIn(0x70, 4), "#VC"],
    ["the byte after the access", 0x74, portIn(0x70, 4), "ffffffff:0"],
    ["the second byte of a word", 0x71, portOut(0x70, 2, 0), "#VC"],
    ["a byte beyond the last port", 0x1_0000, portIn(0xffff, 2), "#VC"]
  ])("is intercepted as the map has %s", (_, intercepted, operation, expected) => {
    expect(outcome(machineWith(intercepted), operation)).toBe(expected)
  })

  it("reads ones where nobody intercepts it, into memory too, and writes nothing", () => {
    const machine = machineWith()
    machine.memory.replace(PFN.data, ASID, null)
    tryAll(machine, portIn(1, 2), portIns(1, 2, GPA.data + 8, 3), portOuts(1, 4, GPA.data + 32, 2), portOut(1, 1, 5))
    expect(machine.log[0]).toBe("ffff:0")
    const bytes = Array.from({ length: 24 }, (_, index) => machine.byte(PFN.data, ASID, index))
    expect(bytes).toEqual([...Array(8).fill(0), ...Array(6).fill(0xff), ...Array(10).fill(0)])
  })

  it("does not look at the map without the intercept, nor is it #VC", () => {
    const machine = machineWith(0x70)
    machine.intercept(INTERCEPT.IOIO_PROT, false)
    expect(outcome(machine, portIn(0x70, 1))).toBe("ff:0")
  })

  it("whose string is at an unmapped page leaves with a nested page fault", () => {
    for (const operation of [portIns(1, 1, 0x7_0000_0000, 1), portOuts(1, 1, 0x7_0000_0000, 1)]) {
      const machine = machineWith()
      machine.install(function* (): Program {
        yield operation
      })
      expect(machine.run()).toBe(EXIT.NPF)
    }
  })
})

describe("the MSR permission map", () => {
  const machineWith = (msr: number, onRead: boolean, onWrite: boolean, vmsa: VmsaOptions = {}) => {
    const machine = intercepting(new TestMachine(), INTERCEPT.MSR_PROT)
    const map = new Uint8Array(2 * PAGE_SIZE)
    setMsrIntercept(map, msr, onRead, onWrite)
    for (const page of [0, 1])
      machine.host.writePage(MSRPM + page, map.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
    machine.host.write64(VMCB_PA + VMCB.msrpm_base_pa, MSRPM * PAGE_SIZE, 0)
    machine.putVmsa(PFN.vmsa, vmsa)
    return machine
  }

  it.each([
    [true, true, ["#VC 7c 0:0 0", "#VC 7c 1:0 0"]],
    [true, false, ["#VC 7c 0:0 0", "0:0"]],
    [false, true, ["0:0", "#VC 7c 1:0 0"]],
    [false, false, ["0:0", "0:0"]]
  ])("intercepts reads %s and writes %s", (onRead, onWrite, expected) => {
    for (const msr of [MSR.PAT, MSR.XSS, MSR.EFER, MSR.TSC_AUX, MSR.GHCB]) {
      const [first, second] = tryAll(machineWith(msr, onRead, onWrite), rdmsr(msr), wrmsr(msr, 0))
      const native = msr === MSR.EFER ? "1000:0" : "0:0"
      expect([first === native ? "0:0" : first, second === native ? "0:0" : second]).toEqual(expected)
    }
  })

  it("leaves out other MSRs, takes those it does not cover, and matters only with the intercept", () => {
    const machine = machineWith(MSR.PAT, true, true)
    const other = tryAll(machine, rdmsr(MSR.XSS), rdmsr(0x4000_0000), rdmsr(MSR.SVSM_CAA))
    expect(other).toEqual(["0:0", "#VC 7c 0:0 0", "#VC 7c 0:0 0"])
    const without = machineWith(MSR.PAT, true, true)
    without.intercept(INTERCEPT.MSR_PROT, false)
    expect(tryAll(without, rdmsr(MSR.PAT), rdmsr(0x4000_0000))).toEqual(["0:0", "#GP"])
  })

  it("cannot intercept SEV_STATUS, which is read-only", () => {
    const machine = machineWith(MSR.SEV_STATUS, true, true)
    expect(tryAll(machine, rdmsr(MSR.SEV_STATUS), wrmsr(MSR.SEV_STATUS, 0))).toEqual(["7:0", "#GP"])
  })

  it("lets what passes reach the VMSA; EFER keeps SVME, TSC_AUX has one half", () => {
    const machine = machineWith(MSR.XSS, true, true)
    tryAll(
      machine,
      wrmsr(MSR.PAT, 0x0606, 0x0707),
      wrmsr(MSR.TSC_AUX, 5, 6),
      rdmsr(MSR.TSC_AUX),
      rdmsr(MSR.PAT),
      wrmsr(MSR.EFER, 0x800)
    )
    expect(machine.log.slice(2, 4)).toEqual(["5:0", "606:707"])
    expect([machine.saved("g_pat"), machine.saved("efer")]).toEqual([
      [0x0606, 0x0707],
      [0x1800, 0]
    ])
  })
})
