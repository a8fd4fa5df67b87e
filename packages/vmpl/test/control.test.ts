import { CLEAN, EXIT, INTERCEPT, MSR, PAGE_SIZE, setMsrIntercept, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { hlt, type Operation, type Program, rdmsr, runGuest, sealVmsa, vmgexit, vmrun, wbinvd } from "../src/index.ts"
import { ASID, ENTRY, PFN, sevEsMachine, TestMachine, VMCB_PA } from "./machine.ts"

const MSRPM = 30
const OTHER_VMCB = PFN.shared

/** A guest that does one operation over and over, with an exit before each. */
const repeating = (operation: Operation, machine = new TestMachine()): TestMachine => {
  machine.install(function* (): Program {
    for (;;) {
      yield vmgexit()
      yield operation
    }
  })
  machine.run()
  return machine
}
const clean = (machine: TestMachine, bits: number, vmcb = VMCB_PA) =>
  machine.host.write32(vmcb + VMCB.clean, bits >>> 0)
const VC_WITHOUT_HANDLER = EXIT.SHUTDOWN

describe("the clean bit of the intercepts", () => {
  it("makes a core keep the old ones of the VMCB that it ran last", () => {
    const machine = repeating(wbinvd())
    machine.intercept(INTERCEPT.WBINVD)
    clean(machine, CLEAN.INTERCEPTS)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    clean(machine, ~CLEAN.INTERCEPTS)
    expect(machine.run()).toBe(VC_WITHOUT_HANDLER)
  })

  it("means nothing on another core, which then has the new ones, and nothing on the first VMRUN", () => {
    const machine = repeating(wbinvd())
    machine.intercept(INTERCEPT.WBINVD)
    clean(machine, 0xffff_ffff)
    const [first, second] = [machine.cpu, machine.newCore()]
    machine.cpu = second
    expect(machine.run()).toBe(VC_WITHOUT_HANDLER)
    // The first core still has the old ones.
    machine.cpu = first
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    const fresh = new TestMachine()
    fresh.intercept(INTERCEPT.WBINVD)
    clean(fresh, 0xffff_ffff)
    fresh.install(function* (): Program {
      yield wbinvd()
    })
    expect(fresh.run()).toBe(VC_WITHOUT_HANDLER)
  })

  it("means nothing once the core has run another VMCB in between", () => {
    const machine = repeating(wbinvd())
    machine.host.writePage(OTHER_VMCB, machine.host.readPage(PFN.vmcb))
    machine.intercept(INTERCEPT.WBINVD)
    clean(machine, CLEAN.INTERCEPTS)
    expect(vmrun(machine.cpu, OTHER_VMCB * PAGE_SIZE)).toBe("entered")
    expect(runGuest(machine.cpu, Infinity)).toBe(EXIT.VMGEXIT)
    expect(machine.run()).toBe(VC_WITHOUT_HANDLER)
  })

  it("covers neither the other groups nor what VMRUN always reads", () => {
    const machine = repeating(wbinvd())
    machine.intercept(INTERCEPT.WBINVD)
    clean(machine, 0xffff_ffff & ~CLEAN.INTERCEPTS)
    expect(machine.run()).toBe(VC_WITHOUT_HANDLER)
  })
})

describe("the clean bit of the permission maps", () => {
  it("makes a core keep the old addresses, not the old contents", () => {
    const machine = repeating(rdmsr(MSR.PAT))
    const map = new Uint8Array(2 * PAGE_SIZE)
    setMsrIntercept(map, MSR.PAT, true, true)
    const put = (pfn: number, bytes: Uint8Array) => {
      for (const page of [0, 1])
        machine.host.writePage(pfn + page, bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
    }
    put(MSRPM, new Uint8Array(2 * PAGE_SIZE))
    put(MSRPM + 2, map)
    machine.intercept(INTERCEPT.MSR_PROT)
    const at = (pfn: number) => machine.host.write64(VMCB_PA + VMCB.msrpm_base_pa, pfn * PAGE_SIZE, 0)
    at(MSRPM)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    at(MSRPM + 2)
    clean(machine, CLEAN.PERM_MAP)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    put(MSRPM, map)
    expect(machine.run()).toBe(VC_WITHOUT_HANDLER)
    const dirty = repeating(rdmsr(MSR.PAT))
    dirty.intercept(INTERCEPT.MSR_PROT)
    for (const page of [0, 1])
      dirty.host.writePage(MSRPM + 2 + page, map.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
    dirty.host.write64(VMCB_PA + VMCB.msrpm_base_pa, (MSRPM + 2) * PAGE_SIZE, 0)
    clean(dirty, CLEAN.INTERCEPTS & 0)
    expect(dirty.run()).toBe(VC_WITHOUT_HANDLER)
  })
})

describe("the VMSA of an SEV-ES guest without SNP", () => {
  const sealed = (integrity = true) => {
    const machine = sevEsMachine({}, { integrity })
    machine.install(function* (): Program {
      yield vmgexit()
      yield hlt()
    })
    return machine
  }

  it("that nobody has changed is entered, and again after each exit", () => {
    const machine = sealed()
    expect([machine.run(), machine.run()]).toEqual([EXIT.VMGEXIT, EXIT.HLT])
    expect(machine.saved("rip")[0]).toBe(ENTRY + 2)
  })

  it.each([
    ["in the state", VMSA.rip, 1],
    ["in its last byte", PAGE_SIZE - 1, 1]
  ])("that the host has changed %s exits SHUTDOWN, at launch and later", (_, offset) => {
    for (const runs of [0, 1]) {
      const machine = sealed()
      for (let i = 0; i < runs; i++) machine.run()
      // The host has no key, but it can write.
      const at = PFN.vmsa * PAGE_SIZE + offset
      machine.host.write8(at, machine.host.read8(at) ^ 1)
      expect(machine.run()).toBe(EXIT.SHUTDOWN)
      expect([machine.vmcb("exit_code")[0], machine.rmp.isInUse(PFN.vmsa)]).toEqual([EXIT.SHUTDOWN, false])
      // Undone it is what the CPU has sealed.
      machine.host.write8(at, machine.host.read8(at) ^ 1)
      expect(machine.run()).toBe(runs === 0 ? EXIT.VMGEXIT : EXIT.HLT)
    }
  })

  it("that the host puts back as it was at an earlier exit is refused too", () => {
    const machine = sealed()
    machine.run()
    const old = machine.host.readPage(PFN.vmsa)
    machine.run()
    machine.host.writePage(PFN.vmsa, old)
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
  })

  it("that was never sealed is refused", () => {
    const machine = sealed()
    machine.hardware.vmsaIntegrity!.clear()
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
    sealVmsa(machine.hardware, PFN.vmsa, ASID)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
  })

  it("is not looked at in a machine without integrity values, nor with SNP", () => {
    const machine = sealed(false)
    machine.run()
    machine.vmsa().setUint32(VMSA.rbx, 5, true)
    expect(machine.run()).toBe(EXIT.HLT)
    const snp = new TestMachine({ integrity: true })
    snp.install(function* (): Program {
      yield vmgexit()
    })
    snp.vmsa().setUint32(VMSA.rbx, 5, true)
    expect(snp.run()).toBe(EXIT.VMGEXIT)
    expect(snp.hardware.vmsaIntegrity!.size).toBe(0)
  })
})
