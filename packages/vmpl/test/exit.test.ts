import { EXIT, MSR_GHCB, VMCB, VMSA, VMSA_FIELDS } from "@vmpl-lab/sev-es"
import { COUNTER, PRIMITIVE, Span } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import {
  hlt,
  type Operation,
  type Program,
  pause,
  rdmsr,
  read,
  readRegister,
  runGuest,
  STILL_IN_GUEST,
  vmgexit,
  writeRegister,
  wrmsr
} from "../src/index.ts"
import { ENTRY, GPA, PFN, STEP_NS, script, TestMachine, VMCB_PA } from "./machine.ts"

/** A machine that has run the operations up to its first exit. */
const runTo = (...operations: ReadonlyArray<Operation>): TestMachine => {
  const machine = new TestMachine()
  machine.install(script(operations, ({ lo, hi }) => machine.log.push(`${lo.toString(16)}:${hi.toString(16)}`)))
  machine.run()
  return machine
}

const UNMAPPED = 0x7_0000_0abc

describe("#VMEXIT", () => {
  it("saves registers to the VMSA and VMRUN loads them back", () => {
    const machine = runTo(writeRegister(VMSA.rbx, 0x1234_5678, 0x9abc_def0), vmgexit(), readRegister(VMSA.rbx), hlt())
    expect(machine.saved("rbx")).toEqual([0x1234_5678, 0x9abc_def0])
    machine.vmsa().setUint32(VMSA.rbx + 4, 0x5555, true)
    machine.cpu.registers.fill(0xee)
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log).toContain("12345678:5555")
  })

  it("keeps every byte of the saved state that nobody wrote", () => {
    const machine = new TestMachine()
    machine.install(script([hlt()]))
    const mine = new Set(["rip", "guest_exit_code", "guest_exit_info_1", "guest_exit_info_2", "guest_nrip"])
    const fixed = new Set(["cs", "efer", "sev_features", "vmpl", "vintr_ctrl"])
    const view = machine.vmsa()
    for (const { field, offset, size } of VMSA_FIELDS) {
      if (!mine.has(field) && !fixed.has(field))
        for (let i = 0; i < size; i++) view.setUint8(offset + i, offset * 3 + i)
    }
    const before = new Uint8Array(4096)
    before.set(new Uint8Array(view.buffer, view.byteOffset, 4096))
    machine.run()
    const after = machine.vmsa()
    for (const { field, offset, size } of VMSA_FIELDS) {
      if (mine.has(field)) continue
      for (let i = 0; i < size; i++)
        expect(`${field} ${after.getUint8(offset + i)}`).toBe(`${field} ${before[offset + i]}`)
    }
  })

  it("shows the host none of it: the VMSA reads as ciphertext and the VMCB holds no register", () => {
    const secret = [0x5ec2_e7aa, 0x5ec2_e7bb] as const
    const machine = runTo(writeRegister(VMSA.rdi, ...secret), writeRegister(VMSA.r8, ...secret), vmgexit())
    const bytes = new Uint8Array(8)
    const view = new DataView(bytes.buffer)
    for (const [index, half] of secret.entries()) view.setUint32(4 * index, half, true)
    const holds = (page: Uint8Array) => Buffer.from(page).includes(Buffer.from(bytes))
    expect(holds(machine.hostViewOfState())).toBe(false)
    expect(holds(machine.host.readPage(PFN.vmcb))).toBe(false)
    expect(machine.saved("rdi")).toEqual(secret)
    // Equal registers at two places of the VMSA do not show as equal ciphertext either.
    const state = machine.hostViewOfState()
    expect(state.subarray(VMSA.rdi, VMSA.rdi + 8)).not.toEqual(state.subarray(VMSA.r8, VMSA.r8 + 8))
  })

  it.each([
    ["VMGEXIT", [vmgexit()], EXIT.VMGEXIT],
    ["HLT", [hlt()], EXIT.HLT],
    ["the program's return", [], EXIT.HLT],
    ["a nested page fault", [read(UNMAPPED, 4)], EXIT.NPF],
    ["a #VC without a handler", [read(GPA.spare, 4)], EXIT.SHUTDOWN],
    ["a #GP that nobody catches", [rdmsr(0xc000_0081)], EXIT.SHUTDOWN]
  ])("after %s puts code and information into VMCB and VMSA", (_, operations, code) => {
    const machine = runTo(...operations)
    expect(machine.vmcb("exit_code")).toEqual([code, 0])
    expect(machine.saved("guest_exit_code")).toEqual([code, 0])
    expect(machine.saved("guest_exit_info_1")).toEqual(machine.vmcb("exit_info_1"))
    expect(machine.saved("guest_exit_info_2")).toEqual(machine.vmcb("exit_info_2"))
    expect(machine.saved("guest_nrip")).toEqual(machine.saved("rip"))
    const faulted = code === EXIT.NPF
    expect(machine.vmcb("exit_info_2")).toEqual(faulted ? [0xabc, 7] : [0, 0])
    expect(machine.vmcb("exit_info_1")[0] !== 0).toBe(faulted)
  })

  it.each([
    ["VMGEXIT", vmgexit()],
    ["HLT", hlt()],
    ["a nested page fault", read(UNMAPPED, 4)],
    ["shutdown", rdmsr(1)]
  ])("by %s carries the GHCB MSR in the VMCB, and VMRUN takes it from there", (_, leave) => {
    const machine = new TestMachine()
    const reports = script([rdmsr(MSR_GHCB), wrmsr(MSR_GHCB, 0x2000_0016, 3), leave], ({ lo, hi }) =>
      machine.log.push(`${lo.toString(16)}:${hi.toString(16)}`)
    )
    machine.install(reports)
    machine.host.write64(VMCB_PA + VMCB.ghcb_gpa, 0x9000_0001, 0xabcd)
    machine.run()
    expect(machine.log[0]).toBe("90000001:abcd")
    expect(machine.vmcb("ghcb_gpa")).toEqual([0x2000_0016, 3])
    // Another VMSA through the same VMCB sees the same MSR: it is no part of a VMSA.
    machine.putVmsa(PFN.vmsa2, {})
    machine.select(PFN.vmsa2)
    machine.run()
    expect(machine.log.at(-2)).toBe("20000016:3")
    expect(Buffer.from(machine.vmsa().buffer).includes(Buffer.of(0x16, 0, 0, 0x20, 3))).toBe(false)
  })

  it("leaves the VMCB's other fields to the host", () => {
    const machine = new TestMachine()
    machine.install(script([vmgexit()]))
    const before = machine.host.readPage(PFN.vmcb)
    machine.run()
    const after = machine.host.readPage(PFN.vmcb)
    const written = [VMCB.exit_code, VMCB.exit_info_1, VMCB.exit_info_2, VMCB.ghcb_gpa]
    for (const at of written) after.set(before.subarray(at, at + 8), at)
    expect(after).toEqual(before)
  })

  it("counts and charges one exit, on a path that it begins when told to", () => {
    const machine = new TestMachine()
    machine.install(script([vmgexit(), vmgexit()]))
    const { cpu } = machine
    const [own, observer] = [new Span(), new Span()]
    cpu.thread.span = own
    cpu.exitSpan = observer
    machine.run()
    expect([own.count[PRIMITIVE.vmexit_sev_snp], own.counters[COUNTER.VM_EXITS], cpu.thread.span]).toEqual([1, 1, own])
    cpu.thread.span = null
    machine.run()
    expect([cpu.thread.span, observer.begin]).toEqual([observer, cpu.thread.time - STEP_NS])
    expect([observer.total(), observer.count[PRIMITIVE.vmexit_sev_snp]]).toEqual([STEP_NS, 1])
  })
})

describe("an interrupt", () => {
  /** A guest that counts in a register for ever. */
  const counter = function* (): Program {
    for (let n = 1; ; n++) {
      yield writeRegister(VMSA.rcx, n)
      yield pause()
    }
  }

  it("takes the core out of guest mode at its time, and nothing is lost", () => {
    const machine = new TestMachine()
    machine.install(counter)
    const path = new Span()
    machine.cpu.interruptAt = 105
    machine.cpu.interruptSpan = path
    path.start(60)
    expect(machine.run()).toBe(EXIT.INTR)
    const [count] = machine.saved("rcx")
    // 10 ns of VMRUN, 10 ns of each PAUSE, 10 ns of #VMEXIT.
    expect([count, machine.cpu.thread.time]).toEqual([10, 120])
    expect([machine.cpu.interruptAt, machine.cpu.interruptSpan]).toEqual([Infinity, null])
    // The core was busy from the path's begin to the interrupt: that counts as waiting.
    expect([machine.cpu.thread.span, path.total()]).toEqual([path, 60])
    machine.cpu.interruptAt = 225
    expect(machine.run()).toBe(EXIT.INTR)
    expect(machine.saved("rcx")).toEqual([count + 10, 0])
  })

  it("that comes before the guest did anything leaves it untouched", () => {
    const machine = new TestMachine()
    machine.install(counter)
    machine.cpu.interruptAt = 0
    expect(machine.run()).toBe(EXIT.INTR)
    expect([machine.saved("rcx"), machine.saved("rip")]).toEqual([
      [0, 0],
      [ENTRY, 0]
    ])
    expect(machine.vmcb("exit_code")).toEqual([EXIT.INTR, 0])
  })

  it("that is on its way when the guest leaves by itself finds the host", () => {
    const machine = new TestMachine()
    machine.install(script([vmgexit(), pause(), pause(), hlt()]))
    machine.cpu.interruptAt = 1000
    machine.cpu.interruptSpan = new Span()
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect([machine.cpu.interruptAt, machine.cpu.interruptSpan]).toEqual([Infinity, null])
    expect(machine.run()).toBe(EXIT.HLT)
  })

  it("waits for no horizon, and a horizon for no interrupt: the guest goes on where it stopped", () => {
    const stretches = (horizons: ReadonlyArray<number>) => {
      const machine = new TestMachine()
      machine.install(counter)
      machine.cpu.interruptAt = 1000
      expect(machine.vmrun()).toBe("entered")
      for (const horizon of horizons) {
        expect(runGuest(machine.cpu, horizon)).toBe(STILL_IN_GUEST)
        expect(machine.cpu.thread.time).toBeGreaterThan(horizon)
        expect(machine.rmp.isInUse(PFN.vmsa)).toBe(true)
      }
      expect(runGuest(machine.cpu, Infinity)).toBe(EXIT.INTR)
      return [machine.saved("rcx"), machine.saved("rip"), machine.cpu.thread.time]
    }
    const whole = stretches([])
    expect(whole[0]).toEqual([99, 0])
    expect(stretches([5, 100, 100, 333, 700])).toEqual(whole)
    expect(stretches([985])).toEqual(whole)
  })
})
