// @section 3.6, 4.1
import { PAGE_4K, RETURN_CODE } from "@vmpl-lab/rmp"
import { EFER_SVME, EXIT, NESTED_CTL, PAGE_SIZE, SEV_FEATURES, TLB_CONTROL, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { COUNTER, PRIMITIVE, Span } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import { hlt, pause, runGuest, VMRUN_GP, vmgexit } from "../src/index.ts"
import { ASID, GFN, PFN, script, TestMachine, VMCB_PA, vmsaBytes } from "./machine.ts"

const set32 = (machine: TestMachine, field: keyof typeof VMCB, value: number): void => {
  expect(machine.host.write32(VMCB_PA + VMCB[field], value)).toBe(0)
}
const { NP_ENABLE, SEV_ENABLE, SEV_ES_ENABLE } = NESTED_CTL
const ALL = NP_ENABLE | SEV_ENABLE | SEV_ES_ENABLE

type Spoil = (machine: TestMachine) => void

const INVALID: ReadonlyArray<readonly [string, Spoil]> = [
  ["ASID 0", (m) => set32(m, "asid", 0)],
  [
    "ASID 0, which is no guest's, whatever page is offered",
    (m) => {
      set32(m, "asid", 0)
      m.rmp.firmwareSet(PFN.vmsa, { asid: 0 })
      m.memory.replace(PFN.vmsa, 0, vmsaBytes())
    }
  ],
  ["another guest's ASID", (m) => set32(m, "asid", 2)],
  ["nested paging off", (m) => set32(m, "nested_ctl", ALL & ~NP_ENABLE)],
  ["SEV off", (m) => set32(m, "nested_ctl", ALL & ~SEV_ENABLE)],
  ["SEV-ES off", (m) => set32(m, "nested_ctl", ALL & ~SEV_ES_ENABLE)],
  ["an nCR3 without a table", (m) => set32(m, "nested_cr3", 0x9000)],
  ["a VMSA address off its page", (m) => set32(m, "vmsa_pa", PFN.vmsa * PAGE_SIZE + 8)],
  ["a VMSA page beyond the RMP", (m) => set32(m, "vmsa_pa", 512 * PAGE_SIZE)],
  ["a hypervisor-owned VMSA page", (m) => set32(m, "vmsa_pa", PFN.shared * PAGE_SIZE)],
  ["a page of the guest that is no VMSA", (m) => m.rmp.firmwareSet(PFN.vmsa, { vmsa: false })],
  ["a VMSA page of another guest", (m) => m.give(PFN.vmsa, GFN.vmsa, { vmsa: true, asid: 2 })],
  ["an immutable VMSA page", (m) => m.rmp.firmwareSet(PFN.vmsa, { immutable: true })],
  ["a VMSA page that the host took back", (m) => m.rmp.rmpupdate(PFN.vmsa, false, PAGE_4K, false, 0, 0)],
  ["a VMSA page that the host gave again", (m) => m.rmp.rmpupdate(PFN.vmsa, true, PAGE_4K, false, GFN.data, ASID)],
  ["EFER.SVME clear", (m) => m.vmsa().setUint32(VMSA.efer, ~EFER_SVME, true)],
  ["SNPActive clear", (m) => m.vmsa().setUint32(VMSA.sev_features, ~SEV_FEATURES.SNPActive, true)],
  ["VMPL 4", (m) => m.vmsa().setUint8(VMSA.vmpl, 4)],
  ["VMPL 255", (m) => m.vmsa().setUint8(VMSA.vmpl, 255)]
]

const BUSY: ReadonlyArray<readonly [string, Spoil]> = [
  ["a VMSA that another core runs", (m) => m.rmp.markInUse(PFN.vmsa)],
  ["VINTR_CTRL.BUSY", (m) => m.vmsa().setUint32(VMSA.vintr_ctrl + 4, 0x8000_0000, true)]
]

const REFUSALS = [
  ...INVALID.map(([name, spoil]) => [name, "INVALID", spoil] as const),
  ...BUSY.map(([name, spoil]) => [name, "BUSY", spoil] as const)
]

describe("VMRUN", () => {
  it.each(REFUSALS)("of %s exits at once with VMEXIT_%s", (_, name, spoil) => {
    const machine = new TestMachine()
    machine.install(script([hlt()]))
    spoil(machine)
    const inUse = machine.rmp.isInUse(PFN.vmsa)
    expect(machine.vmrun()).toBe(EXIT[name])
    expect(machine.vmcb("exit_code")).toEqual([EXIT[name] >>> 0, 0xffff_ffff])
    expect([...machine.vmcb("exit_info_1"), ...machine.vmcb("exit_info_2")]).toEqual([0, 0, 0, 0])
    expect(machine.rmp.isInUse(PFN.vmcb)).toBe(false)
    expect(machine.rmp.isInUse(PFN.vmsa)).toBe(inUse)
  })

  it.each([
    ["that is assigned to a guest", PFN.data * PAGE_SIZE],
    ["that is a VMSA", PFN.vmsa * PAGE_SIZE],
    ["off its page", VMCB_PA + 8],
    ["off a page that is assigned to a guest", PFN.data * PAGE_SIZE + 8]
  ])("of a VMCB %s is #GP in the host", (_, vmcb) => {
    const machine = new TestMachine()
    expect(machine.vmrun(vmcb)).toBe(VMRUN_GP)
    expect([PFN.vmcb, PFN.data, PFN.vmsa].some((pfn) => machine.rmp.isInUse(pfn))).toBe(false)
  })

  it("accepts each level that exists, bits beside the ones it asks for, and an unvalidated VMSA", () => {
    for (const vmpl of [0, 1, 2, 3]) {
      const machine = new TestMachine()
      machine.vmsa().setUint8(VMSA.vmpl, vmpl)
      machine.vmsa().setUint32(VMSA.efer, 0xffff_ffff, true)
      machine.vmsa().setUint32(VMSA.vintr_ctrl + 4, 0x7fff_ffff, true)
      machine.rmp.firmwareSet(PFN.vmsa, { validated: false })
      expect(machine.vmrun()).toBe("entered")
      expect([machine.cpu.vmpl, machine.cpu.asid]).toEqual([vmpl, ASID])
    }
  })

  it("looks at EFER, SEV_FEATURES and VMPL with the guest's key only", () => {
    const machine = new TestMachine()
    const plain = machine.memory.read(PFN.vmsa, ASID)
    machine.memory.replace(PFN.vmsa, 0, new Uint8Array(plain.buffer, plain.byteOffset, PAGE_SIZE))
    // The same bytes without the key: whatever they decrypt to, it is not this VMSA.
    expect(machine.vmrun()).toBe(EXIT.INVALID)
  })

  it("marks VMCB and VMSA in use until #VMEXIT: the host cannot take them away meanwhile", () => {
    const machine = new TestMachine()
    machine.install(script([hlt()]))
    const take = (pfn: number) => machine.rmp.rmpupdate(pfn, true, PAGE_4K, false, GFN.spare, ASID)
    expect(machine.vmrun()).toBe("entered")
    expect([machine.rmp.isInUse(PFN.vmcb), machine.rmp.isInUse(PFN.vmsa)]).toEqual([true, true])
    expect(machine.rmp.isInUse(PFN.vmsa2)).toBe(false)
    expect([take(PFN.vmcb), take(PFN.vmsa)]).toEqual([RETURN_CODE.FAIL_INUSE, RETURN_CODE.FAIL_INUSE])
    expect(runGuest(machine.cpu, Infinity)).toBe(EXIT.HLT)
    expect([machine.rmp.isInUse(PFN.vmcb), machine.rmp.isInUse(PFN.vmsa)]).toEqual([false, false])
    expect([take(PFN.vmcb), take(PFN.vmsa)]).toEqual([RETURN_CODE.SUCCESS, RETURN_CODE.SUCCESS])
  })

  it("of a VMSA that a core runs is busy for a second core, and free again after", () => {
    const machine = new TestMachine()
    machine.install(script([hlt(), hlt()]))
    const other = PFN.spare
    machine.rmp.rmpupdate(other, false, PAGE_4K, false, 0, 0)
    machine.host.writePage(other, machine.host.readPage(PFN.vmcb))
    expect(machine.vmrun()).toBe("entered")
    // The second core borrows the first one's registers: a refusal must not touch what runs.
    const { vmcb } = machine.cpu
    expect(machine.vmrun(other * PAGE_SIZE)).toBe(EXIT.BUSY)
    expect(machine.host.read32(other * PAGE_SIZE + VMCB.exit_code)).toBe(EXIT.BUSY >>> 0)
    machine.cpu.vmcb = vmcb
    expect(runGuest(machine.cpu, Infinity)).toBe(EXIT.HLT)
    expect(machine.vmrun(other * PAGE_SIZE)).toBe("entered")
  })

  it.each([
    ["nothing", TLB_CONTROL.DO_NOTHING, 0],
    ["this ASID", TLB_CONTROL.FLUSH_ASID, 1],
    ["everything", TLB_CONTROL.FLUSH_ALL_ASID, 1]
  ])("flushes %s as TLB_CONTROL says, and charges it", (_, control, flushes) => {
    const machine = new TestMachine()
    const span = new Span()
    machine.cpu.thread.span = span
    machine.host.write8(VMCB_PA + VMCB.tlb_ctl, control)
    machine.vmrun()
    expect(span.counters[COUNTER.TLB_FLUSHES]).toBe(flushes)
    expect(span.count[PRIMITIVE.tlb_flush_asid]).toBe(flushes)
    expect(span.count[PRIMITIVE.vmrun_sev_snp]).toBe(1)
  })

  it("of a VMSA whose CS:RIP holds no program ends in a triple fault", () => {
    const machine = new TestMachine()
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
    expect(machine.rmp.isInUse(PFN.vmsa)).toBe(false)
  })

  it("adds CS.base to RIP", () => {
    const machine = new TestMachine()
    machine.install(script([vmgexit()]), 0x105_020)
    machine.putVmsa(PFN.vmsa, { codeBase: 0x105_000, rip: 0x20 })
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    machine.install(script([pause(), hlt()]), 0x105_800)
    machine.putVmsa(PFN.vmsa, { codeBase: 0, rip: 0x105_800 })
    expect(machine.run()).toBe(EXIT.HLT)
  })
})
