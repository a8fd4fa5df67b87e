import { PAGE_4K, PERMISSION } from "@vmpl-lab/rmp"
import { EXIT, NPF_INFO1_HI, TLB_CONTROL, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { hlt, invlpgb, type Operation, read, rmpadjust, Tlb, vmgexit, write } from "../src/index.ts"
import { ENTRY, GFN, GPA, PFN, script, TestMachine, VMCB_PA } from "./machine.ts"

/** VMPL2 reads the data page once at each visit; VMPL0 does what the case says, then both go on. */
const scenario = (atVmpl0: ReadonlyArray<Operation>, withTlb = true) => {
  const machine = new TestMachine(withTlb ? { tlb: new Tlb(64) } : {})
  const seen: Array<number> = []
  machine.grant(PFN.data, PERMISSION.READ | PERMISSION.WRITE)
  machine.grant(PFN.code, PERMISSION.ALL)
  machine.host.write32(PFN.shared * 4096, 0)
  machine.putVmsa(PFN.vmsa2, { vmpl: 2, rip: ENTRY - 0x100 })
  machine.install(script([write(GPA.data, 4, 0xcafe), vmgexit(), ...atVmpl0, vmgexit(), hlt()]))
  const reads = [read(GPA.data, 4), vmgexit(), read(GPA.data, 4), vmgexit(), read(GPA.data, 4), vmgexit()]
  machine.install(
    script(reads, ({ lo }, index) => {
      if (index % 2 === 0) seen.push(lo)
    }),
    GPA.code + ENTRY - 0x100
  )
  const runVmpl = (pfn: number) => {
    machine.select(pfn)
    return machine.run()
  }
  expect(runVmpl(PFN.vmsa)).toBe(EXIT.VMGEXIT)
  expect(runVmpl(PFN.vmsa2)).toBe(EXIT.VMGEXIT)
  expect(seen).toEqual([0xcafe])
  expect(runVmpl(PFN.vmsa)).toBe(EXIT.VMGEXIT)
  return { machine, seen, again: () => runVmpl(PFN.vmsa2) }
}

const revoke = rmpadjust(GPA.data, 2, 0, false)

const expectVmplFault = (machine: TestMachine): void => {
  const [, hi] = machine.vmcb("exit_info_1")
  expect(hi & NPF_INFO1_HI.VMPL).toBe(NPF_INFO1_HI.VMPL)
  expect(machine.vmcb("exit_info_2")[0]).toBe(GPA.data)
}

describe("V4: rights that were taken away", () => {
  it("survive in a TLB entry until somebody flushes", () => {
    const { machine, seen, again } = scenario([revoke])
    expect(machine.rmp.entry(PFN.data).perms[2]).toBe(0)
    expect(again()).toBe(EXIT.VMGEXIT)
    expect(seen).toEqual([0xcafe, 0xcafe])
    // The VMCB's TLB_CONTROL is one way to end it.
    machine.host.write8(VMCB_PA + VMCB.tlb_ctl, TLB_CONTROL.FLUSH_ASID)
    expect(again()).toBe(EXIT.NPF)
    expectVmplFault(machine)
  })

  it("are gone at once where there is no TLB", () => {
    const { machine, again } = scenario([revoke], false)
    expect(again()).toBe(EXIT.NPF)
    expectVmplFault(machine)
  })

  it("end with INVLPGB and TLBSYNC by the software that revoked them", () => {
    const { machine, again } = scenario([revoke, invlpgb()])
    expect(again()).toBe(EXIT.NPF)
    expectVmplFault(machine)
  })

  it("end when PCPU_ID is zeroed in the VMSA; hardware writes it again", () => {
    const { machine, again, seen } = scenario([revoke])
    expect(machine.saved("pcpu_id", PFN.vmsa2)).toEqual([1, 0])
    machine.vmsa(PFN.vmsa2).setUint32(VMSA.pcpu_id, 0, true)
    expect(again()).toBe(EXIT.NPF)
    expectVmplFault(machine)
    expect(machine.saved("pcpu_id", PFN.vmsa2)).toEqual([1, 0])
    expect(seen).toHaveLength(1)
  })

  it("end with any RMPUPDATE of the host", () => {
    const { machine, again } = scenario([revoke])
    machine.rmp.rmpupdate(PFN.spare, false, PAGE_4K, false, 0, 0)
    expect(again()).toBe(EXIT.NPF)
  })

  it("do not let a kind of access pass that never did", () => {
    const { machine, again } = scenario([])
    machine.rmp.firmwareSet(PFN.data, { perms: [0xf, 0, PERMISSION.READ, 0] })
    const writes = script([write(GPA.data, 4, 1)])
    machine.install(writes, GPA.code + ENTRY - 0x200)
    machine.putVmsa(PFN.vmsa2, { vmpl: 2, rip: ENTRY - 0x200 })
    expect(again()).toBe(EXIT.NPF)
    expectVmplFault(machine)
  })

  it("stay with their VMPL: another one has its own entries", () => {
    const { machine, again } = scenario([])
    machine.putVmsa(PFN.vmsa2, { vmpl: 3, rip: ENTRY - 0x100 })
    machine.rmp.firmwareSet(PFN.code, { perms: [0xf, 0, 0xf, 0xf] })
    expect(again()).toBe(EXIT.NPF)
    expectVmplFault(machine)
  })
})

describe("the TLB", () => {
  const found = { pfn: 7, cbit: true }
  const look = (tlb: Tlb, page: number, asid = 1, vmpl = 0, core = 0, kind = 0, cpl = 0, cbit = true) =>
    tlb.lookup(asid, vmpl, core, page, kind, cpl, cbit)?.pfn

  it("finds an entry only for the same ASID, VMPL, core, page, C-bit, kind and privilege", () => {
    const tlb = new Tlb(4)
    tlb.insert(1, 2, 3, 0x10, 0, 0, true, found)
    expect(look(tlb, 0x10, 1, 2, 3)).toBe(7)
    const others = [
      look(tlb, 0x11, 1, 2, 3),
      look(tlb, 0x10, 2, 2, 3),
      look(tlb, 0x10, 1, 1, 3),
      look(tlb, 0x10, 1, 2, 4),
      look(tlb, 0x10, 1, 2, 3, 1),
      look(tlb, 0x10, 1, 2, 3, 0, 3),
      look(tlb, 0x10, 1, 2, 3, 0, 0, false)
    ]
    expect(others).toEqual(Array(7).fill(undefined))
    tlb.insert(1, 2, 3, 0x10, 1, 0, true, found)
    expect([look(tlb, 0x10, 1, 2, 3, 0), look(tlb, 0x10, 1, 2, 3, 1), tlb.size]).toEqual([7, 7, 1])
  })

  it("forgets rights of an older translation when the page is found elsewhere", () => {
    const tlb = new Tlb(4)
    tlb.insert(1, 0, 0, 5, 1, 0, true, found)
    tlb.insert(1, 0, 0, 5, 0, 0, true, { pfn: 8, cbit: true })
    expect([look(tlb, 5), look(tlb, 5, 1, 0, 0, 1)]).toEqual([8, undefined])
  })

  it("drops the oldest entry when it is full", () => {
    const tlb = new Tlb(2)
    for (const page of [1, 2, 3]) tlb.insert(1, 0, 0, page, 0, 0, true, found)
    expect([1, 2, 3].map((page) => look(tlb, page))).toEqual([undefined, 7, 7])
  })

  it("flushes by ASID, by ASID on one core, by VMPL on one core, and everything", () => {
    const make = () => {
      const tlb = new Tlb(4)
      for (const asid of [1, 2])
        for (const vmpl of [0, 3]) for (const core of [0, 9]) tlb.insert(asid, vmpl, core, 1, 0, 0, true, found)
      return tlb
    }
    const sizes = [
      (tlb: Tlb) => tlb.flushAsid(1),
      (tlb: Tlb) => tlb.flushAsid(1, 9),
      (tlb: Tlb) => tlb.flushVmpl(1, 3, 9),
      (tlb: Tlb) => tlb.flushAll()
    ].map((flush) => {
      const tlb = make()
      flush(tlb)
      return [tlb.size, look(tlb, 1, 1, 3, 9)]
    })
    expect(sizes).toEqual([
      [4, undefined],
      [6, undefined],
      [7, undefined],
      [0, undefined]
    ])
  })
})

describe("stale nested translations", () => {
  it("survive a change of the nested table, but not the RMPUPDATE that gives the old frame away", () => {
    const machine = new TestMachine({ tlb: new Tlb(64) })
    const seen: Array<number> = []
    machine.install(
      script(
        [write(GPA.data, 4, 0x11), vmgexit(), read(GPA.data, 4), vmgexit(), read(GPA.data, 4)],
        ({ lo }) => void seen.push(lo)
      )
    )
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    machine.npt.map(GFN.data, PFN.spare)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect(seen[2]).toBe(0x11)
    machine.rmp.rmpupdate(PFN.spare, true, PAGE_4K, false, GFN.data, 1)
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
  })
})
