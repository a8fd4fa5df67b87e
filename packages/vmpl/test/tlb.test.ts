// @section 4.3
import { PAGE_2M, PAGE_4K, PERMISSION } from "@vmpl-lab/rmp"
import { EXIT, NPF_INFO1_HI, PAGE_SIZE, TLB_CONTROL, VMCB, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  hlt,
  invlpg,
  invlpgb,
  type Operation,
  type Processor,
  PTE,
  pvalidate,
  read,
  rmpadjust,
  type Tlb,
  TlbSet,
  tlbsync,
  vmgexit,
  write,
  writeBytes,
  writeCr3,
  writeShared
} from "../src/index.ts"
import { ASID, GFN, GPA, PFN, script, TestMachine, VMCB_PA } from "./machine.ts"
import { FULL, LINEAR, PagedMachine, pte, tableGpa } from "./pages.ts"

const { READ, WRITE } = PERMISSION
const CAPACITY = 64
/** Where VMPL0's program lies in the code page; VMPL2's begins at the usual entry. */
const VMPL0_RIP = 0x10

/** VMPL2 runs `lower` in one VMSA, VMPL0 `upper` in the other; both may execute, VMPL2 may do all with the data page. */
const twoLevels = (
  lower: ReadonlyArray<Operation>,
  upper: ReadonlyArray<Operation>,
  tlb: number | null = CAPACITY
): TestMachine => {
  const machine = new TestMachine(tlb === null ? {} : { tlb })
  machine.putVmsa(PFN.vmsa2, { vmpl: 2 })
  machine.putVmsa(PFN.vmsa, { vmpl: 0, rip: VMPL0_RIP })
  machine.grant(PFN.code, 0xf)
  machine.grant(PFN.data, 0xf)
  machine.memory.replace(PFN.data, ASID, null)
  machine.install(script([...lower, hlt()], ({ lo }) => machine.log.push(lo.toString(16))))
  machine.install(script([...upper, hlt()]), GPA.code + VMPL0_RIP)
  return machine
}
const run = (machine: TestMachine, vmsa: number) => {
  machine.select(vmsa)
  return machine.run()
}
const lower = (machine: TestMachine) => run(machine, PFN.vmsa2)
const upper = (machine: TestMachine) => run(machine, PFN.vmsa)
const setTlbControl = (machine: TestMachine, control: number) => machine.host.write8(VMCB_PA + VMCB.tlb_ctl, control)

const revoke = rmpadjust(GPA.data, 2, 0, false)
const stores = [write(GPA.data, 1, 1), vmgexit(), write(GPA.data, 1, 2), vmgexit(), write(GPA.data, 1, 3)]

/** The ways to see to it that no stale entry is used, each as what happens between revocation and the next entry. */
const FLUSHES: ReadonlyArray<readonly [string, ReadonlyArray<Operation>, (machine: TestMachine) => void]> = [
  ["INVLPGB at VMPL0", [invlpgb(), tlbsync()], () => {}],
  ["TLB_CONTROL, this ASID", [], (m) => setTlbControl(m, TLB_CONTROL.FLUSH_ASID)],
  ["TLB_CONTROL, this ASID's, not global", [], (m) => setTlbControl(m, TLB_CONTROL.FLUSH_ASID_LOCAL)],
  ["TLB_CONTROL, everything", [], (m) => setTlbControl(m, TLB_CONTROL.FLUSH_ALL_ASID)],
  ["PCPU_ID = 0 written by VMPL0", [write(GPA.vmsa2 + VMSA.pcpu_id, 8, 0)], () => {}],
  ["RMPUPDATE of any page", [], (m) => m.rmp.rmpupdate(40, true, PAGE_4K, false, 0x140, ASID)],
  [
    "a move to another core",
    [],
    (m) => {
      m.cpu = m.newCore()
    }
  ]
]

describe("V4: rights that VMPL0 revoked", () => {
  it.each(FLUSHES)("hold through the TLB until flushed by %s", (_, flush, between) => {
    const machine = twoLevels(stores, [revoke, vmgexit(), ...flush])
    machine.npt.map(GFN.vmsa2, PFN.vmsa2)
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.VMGEXIT, 1])
    expect(upper(machine)).toBe(EXIT.VMGEXIT)
    expect(machine.rmp.entry(PFN.data).perms).toEqual([0xf, 0, 0, 0])
    // Stale: the store passes although the RMP forbids it by now.
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.VMGEXIT, 2])
    expect(upper(machine)).toBe(EXIT.HLT)
    between(machine)
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.NPF, 2])
    expect(machine.vmcb("exit_info_1")[1] & NPF_INFO1_HI.VMPL).toBe(NPF_INFO1_HI.VMPL)
    expect(machine.vmcb("exit_info_2")).toEqual([GPA.data, 0])
  })

  it("are gone at once in a machine without TLBs, where flushing does nothing", () => {
    const machine = twoLevels(stores, [revoke, invlpg(GPA.data), invlpgb(), tlbsync()], null)
    expect([lower(machine), upper(machine), lower(machine)]).toEqual([EXIT.VMGEXIT, EXIT.HLT, EXIT.NPF])
    expect(machine.saved("pcpu_id", PFN.vmsa2)).toEqual([0, 0])
  })

  it("are gone without a flush where the entry was made by a core that has been left for good", () => {
    const machine = twoLevels(stores, [revoke])
    const first = machine.cpu
    lower(machine)
    machine.cpu = machine.newCore()
    upper(machine)
    // VMPL2 runs on the second core, then returns: what the first one has of it is of another TLB_ID.
    expect(lower(machine)).toBe(EXIT.NPF)
    machine.cpu = first
    expect(lower(machine)).toBe(EXIT.NPF)
  })

  it("hold at CPL 3 as well", () => {
    const machine = twoLevels(stores, [revoke])
    machine.putVmsa(PFN.vmsa2, { vmpl: 2, cpl: 3 })
    lower(machine)
    upper(machine)
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.VMGEXIT, 2])
  })

  it("are seen revoked by a VMPL0 that waits for PCPU_ID to become nonzero", () => {
    const machine = twoLevels(stores, [revoke, write(GPA.vmsa2 + VMSA.pcpu_id, 8, 0)])
    machine.npt.map(GFN.vmsa2, PFN.vmsa2)
    lower(machine)
    const { pcpuId } = machine.cpu.tlb!
    expect(machine.saved("pcpu_id", PFN.vmsa2)).toEqual([pcpuId, 0])
    upper(machine)
    expect(machine.saved("pcpu_id", PFN.vmsa2)).toEqual([0, 0])
    // VMRUN itself sets it: whoever looks while the guest runs sees it.
    machine.select(PFN.vmsa2)
    expect(machine.vmrun()).toBe("entered")
    expect(machine.saved("pcpu_id", PFN.vmsa2)).toEqual([pcpuId, 0])
  })

  it("stay until the next VMRUN where PCPU_ID is written while the VMSA runs: the write is not lost", () => {
    const machine = twoLevels(stores, [])
    lower(machine)
    machine.select(PFN.vmsa2)
    expect(machine.vmrun()).toBe("entered")
    machine.rmp.rmpadjust(ASID, 0, GFN.data, PFN.data, PAGE_4K, PAGE_4K, 2, 0, false)
    machine.vmsa(PFN.vmsa2).setUint32(VMSA.pcpu_id, 0, true)
    expect([machine.resume(), machine.byte(PFN.data, ASID)]).toEqual([EXIT.VMGEXIT, 2])
    expect(machine.saved("pcpu_id", PFN.vmsa2)).toEqual([0, 0])
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.NPF, 2])
  })
})

describe("INVLPGB", () => {
  const bothCores = (...upperOperations: ReadonlyArray<Operation>) => {
    const machine = twoLevels(stores, [revoke, ...upperOperations])
    const here = machine.cpu
    lower(machine)
    machine.cpu = machine.newCore()
    upper(machine)
    machine.cpu = here
    return { machine, exit: lower(machine) }
  }

  it("reaches the other cores with TLBSYNC, and until then a stale entry may be used", () => {
    expect(bothCores().exit).toBe(EXIT.VMGEXIT)
    expect(bothCores(invlpgb()).exit).toBe(EXIT.VMGEXIT)
    expect(bothCores(tlbsync()).exit).toBe(EXIT.VMGEXIT)
    expect(bothCores(invlpgb(), tlbsync()).exit).toBe(EXIT.NPF)
  })

  it("is completed once: a later TLBSYNC alone drops nothing", () => {
    const tlbs = new TlbSet(4)
    const [from, other] = [tlbs.attach(), tlbs.attach()]
    const entry = { pfn: 7, key: 1, mapping: 0, rights: 1 }
    other.enter(1, 0, 1)
    other.fill(0x5000, 0, true, entry)
    from.outstanding.add(1)
    tlbs.synchronize(from)
    expect(other.size).toBe(0)
    other.fill(0x5000, 0, true, entry)
    tlbs.synchronize(from)
    expect(other.size).toBe(1)
  })

  it("leaves other guests' entries alone, and so does TLB_CONTROL for one ASID", () => {
    for (const control of [TLB_CONTROL.DO_NOTHING, TLB_CONTROL.FLUSH_ASID, TLB_CONTROL.FLUSH_ALL_ASID]) {
      const machine = twoLevels([invlpgb(), tlbsync()], [])
      const tlb = machine.cpu.tlb!
      tlb.enter(2, 0, 99)
      tlb.fill(0x5000, 0, true, { pfn: 7, key: 2, mapping: 0, rights: 1 })
      setTlbControl(machine, control)
      lower(machine)
      tlb.enter(2, 0, 99)
      expect(tlb.lookup(0x5000, 0, true)?.pfn).toBe(control === TLB_CONTROL.FLUSH_ALL_ASID ? undefined : 7)
    }
  })
})

describe("an entry of the TLB", () => {
  it("is of one VMPL: another level's rights are checked for itself", () => {
    const machine = twoLevels([write(GPA.private2, 1, 1)], [write(GPA.private2, 1, 1), write(GPA.data, 1, 1)])
    expect([upper(machine), lower(machine)]).toEqual([EXIT.HLT, EXIT.NPF])
    expect(machine.vmcb("exit_info_2")).toEqual([GPA.private2, 0])
  })

  it("is of one VMSA even where software has copied its TLB_ID and PCPU_ID to another level's", () => {
    const machine = twoLevels([write(GPA.private2, 1, 1)], [write(GPA.private2, 1, 1)])
    upper(machine)
    for (const field of ["tlb_id", "pcpu_id"] as const)
      machine.vmsa(PFN.vmsa2).setUint32(VMSA[field], machine.saved(field)[0], true)
    expect(lower(machine)).toBe(EXIT.NPF)
  })

  it("grants no more than it did when it was made; what it lacks is looked up, so a grant needs no flush", () => {
    const machine = twoLevels([read(GPA.data, 1), vmgexit(), write(GPA.data, 1, 5)], [])
    machine.grant(PFN.data, READ)
    expect(lower(machine)).toBe(EXIT.VMGEXIT)
    machine.grant(PFN.data, READ | WRITE)
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 5])
  })

  it("made by a load holds the right to store too, as the whole mask is cached", () => {
    const machine = twoLevels([read(GPA.data, 1), vmgexit(), write(GPA.data, 1, 5)], [revoke])
    lower(machine)
    upper(machine)
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 5])
  })

  it("survives a change of the nested table without a flush, but no change of owner", () => {
    const machine = twoLevels(stores, [])
    lower(machine)
    machine.npt.map(GFN.data, PFN.private2)
    // The host has moved the GFN: the guest goes on with its own old page, which is sound as long as it owns that.
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.VMGEXIT, 2])
    expect(machine.rmp.rmpupdate(PFN.data, false, PAGE_4K, false, 0, 0)).toBe(0)
    expect(lower(machine)).toBe(EXIT.NPF)
  })

  it("survives PVALIDATE, but no PSMASH; an RMPUPDATE that fails flushes nothing", () => {
    const machine = twoLevels(stores, [pvalidate(GPA.data, false)])
    lower(machine)
    upper(machine)
    machine.rmp.rmpupdate(PFN.data, false, PAGE_2M, false, 0, 0)
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.VMGEXIT, 2])
    const large = new TestMachine({ tlb: CAPACITY, pages: 1024 })
    large.rmp.rmpupdate(512, true, PAGE_2M, false, 512, ASID)
    large.cpu.tlb!.fill(0, 0, true, { pfn: 1, key: 1, mapping: 0, rights: 1 })
    expect([large.cpu.tlb!.size, large.rmp.psmash(512), large.cpu.tlb!.size]).toEqual([1, 0, 0])
  })

  it("keeps Execute-User and Execute-Supervisor apart", () => {
    const machine = twoLevels([vmgexit(), vmgexit()], [])
    machine.grant(PFN.code, PERMISSION.READ | PERMISSION.EXECUTE_SUPERVISOR)
    expect(lower(machine)).toBe(EXIT.VMGEXIT)
    machine.vmsa(PFN.vmsa2).setUint8(VMSA.cpl, 3)
    expect(lower(machine)).toBe(EXIT.NPF)
    machine.vmsa(PFN.vmsa2).setUint8(VMSA.cpl, 0)
    expect(lower(machine)).toBe(EXIT.VMGEXIT)
  })

  it("of a shared mapping is not that of the private one", () => {
    const machine = twoLevels([writeShared(GPA.shared, 1, 1), write(GPA.shared, 1, 1)], [])
    expect(lower(machine)).toBe(EXIT.NPF)
    expect([machine.log, machine.vmcb("exit_info_2")]).toEqual([["0"], [GPA.shared, 0]])
    expect(machine.host.read8(PFN.shared * PAGE_SIZE)).toBe(1)
  })

  it("sees private data under the guest's key and shared data without, from the entry as from the walk", () => {
    const bytes = Uint8Array.of(1, 2, 3, 4)
    const twice = [writeBytes(GPA.data, bytes), writeBytes(GPA.data + 4, bytes), read(GPA.data + 4, 4)]
    const machine = twoLevels([...twice, writeShared(GPA.shared, 1, 7), writeShared(GPA.shared + 1, 1, 8)], [])
    expect([lower(machine), machine.log[2]]).toEqual([EXIT.HLT, "4030201"])
    expect(machine.host.read16(PFN.shared * PAGE_SIZE)).toBe(0x807)
  })
})

describe("room in the TLB", () => {
  const filled = (capacity: number, pages: number) => {
    const tlb = new TlbSet(capacity).attach()
    tlb.enter(1, 0, 1)
    for (let page = 0; page < pages; page++)
      tlb.fill(page * PAGE_SIZE, 0, true, { pfn: page, key: 1, mapping: 0, rights: 1 })
    return tlb
  }

  it("is what was asked for; the oldest entry gives way, used or not", () => {
    const tlb = filled(4, 4)
    tlb.lookup(0, 0, true)
    tlb.fill(0, 0, true, { pfn: 99, key: 1, mapping: 0, rights: 1 })
    tlb.fill(4 * PAGE_SIZE, 0, true, { pfn: 4, key: 1, mapping: 0, rights: 1 })
    const found = [0, 1, 2, 3, 4].map((page) => tlb.lookup(page * PAGE_SIZE, 0, true)?.pfn)
    expect([tlb.size, found]).toEqual([4, [undefined, 1, 2, 3, 4]])
  })

  it("is at least one entry", () => {
    for (const capacity of [0, -1, 1.5, Number.NaN]) expect(() => new TlbSet(capacity)).toThrow("a TLB of")
    const machine = twoLevels([read(GPA.data, 1), write(GPA.data, 1, 9)], [], 1)
    expect([lower(machine), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 9])
  })

  it("has tags for any number of VMSAs: when they run out everything is dropped", () => {
    const tlb = filled(4, 1)
    for (let tlbId = 2; tlbId <= 1024; tlbId++) tlb.enter(1, 0, tlbId)
    tlb.enter(1, 0, 1)
    expect(tlb.lookup(0, 0, true)?.pfn).toBe(0)
    tlb.enter(1, 0, 1025)
    tlb.enter(1, 0, 1)
    expect([tlb.size, tlb.lookup(0, 0, true)]).toEqual([0, undefined])
  })

  it("is kept apart by address, kind and half of the address space", () => {
    const tlb = filled(16, 1)
    const other = { pfn: 77, key: 1, mapping: 0, rights: 1 }
    tlb.fill(-PAGE_SIZE, 0, true, other)
    expect([tlb.lookup(-1, 0, true)?.pfn, tlb.lookup(0, 2, true), tlb.lookup(0, 0, false)]).toEqual([
      77,
      undefined,
      undefined
    ])
    tlb.enter(1, 0, 2)
    expect(tlb.lookup(0, 0, true)).toBe(undefined)
  })
})

describe("a flush", () => {
  const entry = { pfn: 7, key: 1, mapping: 0, rights: 1 }
  /** Three tags, the second of another ASID, each with the same page in all four ways, its neighbour and an upper one. */
  const three = () => {
    const tlb = new TlbSet(64).attach()
    for (const tag of [1, 2, 3]) {
      tlb.enter(tag === 2 ? 2 : 1, 0, tag)
      for (const kind of [0, 2]) for (const cbit of [false, true]) tlb.fill(0x5000, kind, cbit, entry)
      tlb.fill(0x6000, 0, true, entry)
      tlb.fill(-0x5000, 0, true, entry)
    }
    tlb.enter(2, 0, 2)
    return tlb
  }
  const left = (tlb: Tlb): ReadonlyArray<number> => {
    const counts = [1, 2, 3].map((tag) => {
      tlb.enter(tag === 2 ? 2 : 1, 0, tag)
      const page = [0, 2].flatMap((kind) => [false, true].map((cbit) => tlb.lookup(0x5000, kind, cbit)))
      return [...page, tlb.lookup(0x6000, 0, true), tlb.lookup(-0x5000, 0, true)].filter((found) => found !== undefined)
    })
    return counts.map((found) => found.length)
  }

  it.each<readonly [string, (tlb: Tlb) => void, ReadonlyArray<number>]>([
    ["nothing", () => {}, [6, 6, 6]],
    ["a page", (tlb) => tlb.flushPage(0x5fff), [6, 2, 6]],
    ["an upper page", (tlb) => tlb.flushPage(-0x5000), [6, 5, 6]],
    ["the tag", (tlb) => tlb.flushContext(), [6, 0, 6]],
    ["the ASID", (tlb) => tlb.flushAsid(2), [6, 0, 6]],
    ["an ASID with two tags", (tlb) => tlb.flushAsid(1), [0, 6, 0]],
    ["all", (tlb) => tlb.flush(), [0, 0, 0]],
    ["all entries", (tlb) => tlb.flushEntries(), [0, 0, 0]]
  ])("of %s drops that and no more", (_, flush, expected) => {
    const tlb = three()
    flush(tlb)
    expect(left(tlb)).toEqual(expected)
  })
})

describe("the TLB over guest page tables", () => {
  const paged = (...operations: ReadonlyArray<Operation>): PagedMachine => {
    const machine = new PagedMachine({}, { tlb: CAPACITY })
    machine.mapLinear(LINEAR, pte(GPA.data, FULL))
    machine.memory.replace(
      PFN.data,
      ASID,
      Uint8Array.from({ length: PAGE_SIZE }, () => 1)
    )
    machine.memory.replace(
      PFN.private2,
      ASID,
      Uint8Array.from({ length: PAGE_SIZE }, () => 2)
    )
    machine.install(script([...operations, hlt()], ({ lo }) => machine.log.push(lo.toString(16))))
    return machine
  }
  const remap = (machine: PagedMachine) => machine.putEntry(LINEAR, 1, pte(GPA.private2, FULL))

  it.each([
    ["nothing", vmgexit(), "1"],
    ["INVLPG", invlpg(LINEAR), "2"],
    ["INVLPG of another page", invlpg(LINEAR + PAGE_SIZE), "1"],
    ["MOV to CR3", writeCr3(tableGpa(4)), "2"],
    ["INVLPGB", invlpgb(), "2"]
  ])("keeps an old mapping until the guest drops it: %s", (_, flush, expected) => {
    const machine = paged(read(LINEAR, 1), vmgexit(), flush, read(LINEAR, 1))
    machine.run()
    remap(machine)
    while (machine.run() !== EXIT.HLT);
    expect(machine.log.at(-1)).toBe(expected)
  })

  it("walks again for the first store, to set Dirty, and checks the mapping's rights on every hit", () => {
    const machine = paged(read(LINEAR, 1), write(LINEAR, 1, 3), read(LINEAR, 1))
    expect([machine.run(), machine.log.at(-1)]).toEqual([EXIT.HLT, "3"])
    expect(machine.entry(LINEAR, 1).lo & PTE.D).toBe(PTE.D)
    const readOnly = paged(read(LINEAR, 1), write(LINEAR, 1, 3))
    readOnly.putEntry(LINEAR, 1, pte(GPA.data, PTE.P | PTE.D))
    expect([readOnly.run(), readOnly.byte(PFN.data, ASID)]).toEqual([EXIT.SHUTDOWN, 1])
  })

  it("has a mapping that was stored through as dirty: the next store needs no walk", () => {
    const machine = paged(write(LINEAR, 1, 3), vmgexit(), write(LINEAR, 1, 4))
    machine.run()
    remap(machine)
    expect([machine.run(), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 4])
  })

  it("hits by the leaf's C-bit, not the operation's", () => {
    const machine = paged(write(LINEAR, 1, 3), writeShared(LINEAR, 1, 4))
    const size = (cpu: Processor): number => cpu.tlb!.size
    machine.run()
    expect([machine.byte(PFN.data, ASID), size(machine.cpu)]).toEqual([4, 2])
  })
})
