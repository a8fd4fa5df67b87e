import { EXIT, NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  CR0,
  CR4,
  EFER,
  GuestException,
  hlt,
  type Operation,
  PF,
  type Program,
  PTE,
  PTE_HI,
  pvalidate,
  read,
  readRegister,
  readShadowStack,
  rmpadjust,
  rmpquery,
  vmgexit,
  write,
  writeCr3,
  writeShadowStack
} from "../src/index.ts"
import { ASID, ENTRY, GFN, GPA, HOST_ASID, PFN, script, type VmsaOptions } from "./machine.ts"
import { CODE_LINEAR, type Entry, FULL, LINEAR, PagedMachine, pte, tableGpa, tablePfn, UPPER } from "./pages.ts"

const { P, W, U, A, D, PS } = PTE
const { C, NX } = PTE_HI

/** Runs operations and logs values or "#PF code CR2" or "#GP"; then HLT. */
const guest = (machine: PagedMachine, ...operations: ReadonlyArray<Operation>): PagedMachine => {
  machine.install(function* (): Program {
    for (const operation of operations) {
      try {
        machine.log.push((yield operation).lo.toString(16))
      } catch (exception) {
        const { vector, errorCode } = exception as GuestException
        expect(exception).toBeInstanceOf(GuestException)
        const { lo, hi } = yield readRegister(VMSA.cr2)
        const cr2 = BigInt.asIntN(64, (BigInt(hi) << 32n) | BigInt(lo))
        machine.log.push(vector === "#PF" ? `#PF ${errorCode.toString(16)} ${cr2.toString(16)}` : vector)
      }
    }
  })
  return machine
}

describe("a guest's page tables", () => {
  it.each([
    ["4 KiB", 1, GPA.data, 0, PFN.data],
    ["2 MiB", 2, 0, PS, PFN.data],
    ["1 GiB", 3, 0, PS, PFN.data]
  ])("map a %s leaf, in both halves of the address space", (_, level, gpa, ps, pfn) => {
    // A large leaf at GPA 0 reaches the data page by the offset in the address.
    for (const half of [LINEAR, UPPER]) {
      const span = PAGE_SIZE * 512 ** (level - 1)
      const linear = level === 1 ? half : Math.floor(half / span) * span + GPA.data
      const machine = new PagedMachine()
      machine.mapLinear(linear, pte(gpa, FULL | ps), level)
      guest(machine, write(linear + 0x123, 4, 0xfeed), read(linear + 0x123, 4))
      expect([machine.run(), ...machine.log.slice(1)]).toEqual([EXIT.HLT, "feed"])
      expect(machine.byte(pfn, ASID, 0x123)).toBe(0xed)
      // All entries on the way were used, the leaf was written through.
      for (let above = 4; above > level; above--) expect(machine.entry(linear, above).lo & (A | D)).toBe(A)
      expect(machine.entry(linear, level)).toEqual(pte(gpa, FULL | ps | A | D))
    }
  })

  it("tell by the leaf's C-bit whether data is private, whatever the operation says", () => {
    const machine = new PagedMachine()
    machine.mapLinear(LINEAR, pte(GPA.shared, FULL, 0))
    guest(machine, write(LINEAR, 4, 0x1234))
    expect([machine.run(), machine.host.read32(PFN.shared * PAGE_SIZE)]).toEqual([EXIT.HLT, 0x1234])
    const privately = new PagedMachine()
    privately.mapLinear(LINEAR, pte(GPA.data, FULL))
    guest(privately, write(LINEAR, 4, 0x77))
    privately.run()
    expect([privately.byte(PFN.data, ASID), privately.byte(PFN.data, HOST_ASID) === 0x77]).toEqual([0x77, false])
  })

  it("are private without the C-bit in the entries above and in CR3, and so are fetches", () => {
    const machine = new PagedMachine()
    for (let level = 4; level > 1; level--) machine.putEntry(LINEAR, level, pte(tableGpa(level - 1), FULL, 0))
    machine.putEntry(LINEAR, 1, pte(GPA.data, FULL))
    machine.mapLinear(CODE_LINEAR, pte(GPA.code, FULL, 0))
    guest(machine, write(LINEAR, 1, 5))
    expect([machine.run(), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 5])
  })

  it("do not set Dirty by a load, nor write what is set already", () => {
    const machine = new PagedMachine()
    machine.mapLinear(LINEAR, pte(GPA.data, P | W))
    guest(machine, read(LINEAR, 1))
    machine.run()
    expect(machine.entry(LINEAR, 1)).toEqual(pte(GPA.data, P | W | A))
    const set = new PagedMachine({ vmpl: 2 })
    for (let level = 1; level <= 4; level++) set.grant(tablePfn(level), 1)
    for (const name of ["code", "data"] as const) set.grant(PFN[name], 0xf)
    for (const linear of [LINEAR, CODE_LINEAR])
      for (let level = 4; level > 0; level--)
        set.putEntry(
          linear,
          level,
          pte(level === 1 ? GPA[linear === LINEAR ? "data" : "code"] : tableGpa(level - 1), FULL | A | D)
        )
    guest(set, write(LINEAR, 1, 5))
    expect(set.run()).toBe(EXIT.HLT)
  })

  it("reach every address below the C-bit: tables, leaf and root", () => {
    const far = 2 ** 50 + 2 ** 48 + 2 ** 32 + GPA.data
    const farTable = 2 ** 50 + 2 ** 33 + tableGpa(1)
    const farRoot = 2 ** 49 + tableGpa(4)
    const machine = new PagedMachine({ cr3: farRoot })
    for (const [gpa, pfn] of [
      [far, PFN.data],
      [farRoot, tablePfn(4)],
      [farTable, PFN.private2]
    ] as const) {
      machine.give(pfn, gpa / PAGE_SIZE)
      machine.npt.map(gpa / PAGE_SIZE, pfn)
    }
    machine.memory.replace(PFN.private2, ASID, null)
    machine.mapLinear(LINEAR, pte(farTable, FULL), 2)
    const entries = machine.memory.write(PFN.private2, ASID)
    const { lo, hi } = pte(far, FULL)
    const at = (Math.floor(LINEAR / PAGE_SIZE) & 511) * 8
    entries.setUint32(at, lo, true)
    entries.setUint32(at + 4, hi, true)
    guest(machine, write(LINEAR, 1, 0x33))
    expect([machine.run(), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 0x33])
  })

  it("map code in the upper half too, which is resumed after an exit", () => {
    const machine = new PagedMachine({ codeBase: 0, rip: UPPER + ENTRY })
    machine.mapLinear(UPPER, pte(GPA.code, FULL))
    machine.install(script([vmgexit(), vmgexit()]), UPPER + ENTRY)
    expect([machine.run(), machine.run(), machine.run()]).toEqual([EXIT.VMGEXIT, EXIT.VMGEXIT, EXIT.HLT])
    expect(machine.saved("rip")[1]).toBe(Math.floor(UPPER / 2 ** 32) >>> 0)
  })

  it("may be changed by MOV to CR3", () => {
    const machine = new PagedMachine()
    machine.mapLinear(LINEAR, pte(GPA.data, FULL))
    // The level 1 table as a root: its entries lead nowhere from there.
    guest(machine, writeCr3(tableGpa(1)))
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
    expect(machine.saved("cr3")).toEqual([tableGpa(1), 0])
    expect(machine.saved("cr2")).toEqual([CODE_LINEAR + ENTRY + 1, 0])
  })

  it.each([2 ** 47, -(2 ** 47) - PAGE_SIZE])("take no address that is not canonical: %i is #GP(0)", (address) => {
    const machine = guest(new PagedMachine(), read(address, 1))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "#GP"])
    const fetching = new PagedMachine({ codeBase: address, rip: 0 })
    fetching.install(script([hlt()]), address)
    expect([fetching.run(), fetching.saved("cr2")]).toEqual([EXIT.SHUTDOWN, [0, 0]])
  })
})

type Case = readonly [name: string, vmsa: VmsaOptions, leaf: Entry, operation: Operation, expected: string]
const ok = "0"
const data = (lo: number, hi: number = C): Entry => pte(GPA.data, lo, hi)
const load = read(LINEAR, 1)
const store = write(LINEAR, 1, 0)
const fault = (...bits: ReadonlyArray<number>): string =>
  `#PF ${bits.reduce((all, bit) => all | bit, 0).toString(16)} ${LINEAR.toString(16)}`
const USER: VmsaOptions = { cpl: 3 }
const supervisor = (cr4: number, rflags = 0): VmsaOptions => ({ cr4: CR4.PAE | cr4, rflags })

const RIGHTS: ReadonlyArray<Case> = [
  ["a load of an absent page", {}, data(0), load, fault()],
  ["a store to an absent page", {}, data(W | U), store, fault(PF.W)],
  ["a user's load of an absent page", USER, data(0), load, fault(PF.U)],
  ["a supervisor's store to a read-only page", {}, data(P | U), store, fault(PF.P, PF.W)],
  ["the same with CR0.WP clear", { cr0: (CR0.PG | 1) >>> 0 }, data(P | U), store, ok],
  [
    "a user's store to a read-only page, CR0.WP clear",
    { ...USER, cr0: CR0.PG },
    data(P | U),
    store,
    fault(PF.P, PF.W, PF.U)
  ],
  ["a user's load of a supervisor page", USER, data(P | W), load, fault(PF.P, PF.U)],
  ["a user's load of a read-only page", USER, data(P | U), load, ok],
  ["a user's store", USER, data(FULL), store, ok],
  ["a supervisor's load of a user page under SMAP", supervisor(CR4.SMAP), data(FULL), load, fault(PF.P)],
  ["the same with RFLAGS.AC", supervisor(CR4.SMAP, 0x4_0000), data(FULL), load, ok],
  ["a supervisor's load of a supervisor page under SMAP", supervisor(CR4.SMAP), data(P), load, ok],
  ["a user's load under SMAP", { ...supervisor(CR4.SMAP), cpl: 3 }, data(FULL), load, ok],
  ["a load of a page with NX", {}, data(P, C | NX), load, ok],
  ["NX without EFER.NXE", { efer: EFER.LMA }, data(P, C | NX), load, fault(PF.P, PF.RSVD)],
  ["a store there", { efer: EFER.LMA }, data(P | W, C | NX), store, fault(PF.P, PF.W, PF.RSVD)],
  ["a leaf with its C-bit under vTOM", { features: SEV_FEATURES.vTOM }, data(P, C), load, fault(PF.P, PF.RSVD)],
  ["a shadow-stack load", {}, data(P | D), readShadowStack(LINEAR), ok],
  ["a shadow-stack store", {}, data(P | D), writeShadowStack(LINEAR, 1), ok],
  ["a shadow-stack load of a plain page", {}, data(P | W | D), readShadowStack(LINEAR), fault(PF.P, PF.SS)],
  ["a shadow-stack store to a clean page", {}, data(P), writeShadowStack(LINEAR, 1), fault(PF.P, PF.W, PF.SS)],
  ["a shadow-stack load of a user page", {}, data(P | U | D), readShadowStack(LINEAR), fault(PF.P, PF.SS)],
  ["a shadow-stack load by a user", USER, data(P | D), readShadowStack(LINEAR), fault(PF.P, PF.U, PF.SS)],
  ["a plain store to a shadow stack", {}, data(P | D), store, fault(PF.P, PF.W)]
]

describe("#PF", () => {
  it.each(RIGHTS)("of %s", (_, vmsa, leaf, operation, expected) => {
    const machine = new PagedMachine(vmsa)
    machine.mapLinear(LINEAR, leaf)
    if (vmsa.features === SEV_FEATURES.vTOM) machine.clearCbits(LINEAR, CODE_LINEAR)
    machine.putEntry(LINEAR, 1, leaf)
    machine.memory.replace(PFN.data, ASID, null)
    guest(machine, operation)
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log[0]).toBe(expected)
    // A fault leaves the tables as they were.
    if (expected !== ok) expect(machine.entry(LINEAR, 1)).toEqual(leaf)
  })
})

describe("#PF of a fetch", () => {
  const CASES: ReadonlyArray<readonly [string, VmsaOptions, Entry, runs: boolean]> = [
    ["a page with NX", {}, pte(GPA.code, FULL, C | NX), false],
    ["a user page under SMEP", supervisor(CR4.SMEP), pte(GPA.code, FULL), false],
    ["a supervisor page under SMEP", supervisor(CR4.SMEP), pte(GPA.code, P), true],
    ["a user page under SMAP", supervisor(CR4.SMAP), pte(GPA.code, FULL), true],
    ["a user page under SMEP, by a user", { ...supervisor(CR4.SMEP), cpl: 3 }, pte(GPA.code, FULL), true],
    ["a supervisor page, by a user", USER, pte(GPA.code, P), false],
    ["an absent page", {}, pte(GPA.code, 0), false]
  ]
  it.each(CASES)("%#: %s", (_, vmsa, leaf, runs) => {
    const machine = guest(new PagedMachine(vmsa))
    machine.putEntry(CODE_LINEAR, 1, leaf)
    expect(machine.run()).toBe(runs ? EXIT.HLT : EXIT.SHUTDOWN)
    if (!runs) {
      expect(machine.saved("cr2")).toEqual([CODE_LINEAR + ENTRY, 0])
      expect(machine.cpu.pageFaultCode & PF.ID).toBe(PF.ID)
    }
  })

  it("says that it is one only where NX or SMEP is on", () => {
    const machine = guest(new PagedMachine({ efer: EFER.LMA }))
    machine.putEntry(CODE_LINEAR, 1, pte(GPA.code, 0))
    machine.run()
    expect(machine.cpu.pageFaultCode).toBe(0)
  })
})

describe("reserved bits", () => {
  it.each([
    ["PS in a level 4 entry", 4, PS],
    ["bit 13 of a 1 GiB leaf", 3, PS | 0x2000],
    ["bit 29 of a 1 GiB leaf", 3, PS | 0x2000_0000],
    ["bit 13 of a 2 MiB leaf", 2, PS | 0x2000],
    ["bit 20 of a 2 MiB leaf", 2, PS | 0x10_0000]
  ])("%s fails with RSVD", (_, level, bits) => {
    const machine = new PagedMachine()
    machine.mapLinear(LINEAR, pte(0, FULL | bits), level)
    guest(machine, load)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, fault(PF.P, PF.RSVD)])
  })

  it.each([
    ["PAT of a 2 MiB leaf", 2, PS | 0x1000],
    ["PAT of a 1 GiB leaf", 3, PS | 0x1000],
    ["PAT of a 4 KiB leaf", 1, PS],
    ["global, cache and software bits", 1, 0x118 | 0xe00]
  ])("%s is none", (_, level, bits) => {
    const machine = new PagedMachine()
    // A page of the large leaf other than the first: bit 12 is no address bit.
    const span = PAGE_SIZE * 512 ** (level - 1)
    const linear = level === 1 ? LINEAR : Math.floor(LINEAR / span) * span + GPA.data
    machine.mapLinear(linear, pte(level === 1 ? GPA.data : 0, FULL | bits), level)
    machine.memory.replace(PFN.data, ASID, null)
    guest(machine, read(linear, 1))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "0"])
  })
})

describe("rights that upper entries take away", () => {
  it.each([4, 3, 2])("at level %i: W, U and NX", (level) => {
    for (const [lo, hi, vmsa, operation, expected] of [
      [P | U, C, {}, store, fault(PF.P, PF.W)],
      [P | W, C, USER, load, fault(PF.P, PF.U)],
      [P | W | U, C, {}, readShadowStack(LINEAR), ok],
      [P | U, C, {}, readShadowStack(LINEAR), fault(PF.P, PF.SS)]
    ] as const) {
      const machine = new PagedMachine(vmsa)
      machine.mapLinear(LINEAR, pte(GPA.data, operation.op === load.op || operation.op === store.op ? FULL : P | D))
      machine.putEntry(LINEAR, level, pte(tableGpa(level - 1), lo, hi))
      machine.memory.replace(PFN.data, ASID, null)
      guest(machine, operation)
      expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, expected])
    }
    const machine = guest(new PagedMachine())
    machine.putEntry(CODE_LINEAR, level, pte(tableGpa(level - 1), FULL, C | NX))
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
  })
})

describe("a page walk that nested table or RMP refuse", () => {
  const { RMP, W: IW, U: IU, P: IP } = NPF_INFO1
  const { PAGE_TABLE, ENC, VMPL } = NPF_INFO1_HI
  const path = (machine: PagedMachine, leafBits: number): void => {
    for (let level = 4; level > 1; level--) machine.putEntry(LINEAR, level, pte(tableGpa(level - 1), FULL | A))
    machine.putEntry(LINEAR, 1, pte(GPA.data, leafBits))
    for (let level = 4; level > 1; level--) machine.putEntry(CODE_LINEAR, level, pte(tableGpa(level - 1), FULL | A))
    machine.putEntry(CODE_LINEAR, 1, pte(GPA.code, FULL | A))
  }
  const indexBytes = (level: number): number => (Math.floor(LINEAR / 2 ** (9 * level + 3)) & 511) * 8
  /** A guest at VMPL2 that runs, whose tables it may read. */
  const lower = (leafBits: number): PagedMachine => {
    const machine = new PagedMachine({ vmpl: 2 })
    path(machine, leafBits)
    machine.grant(PFN.code, 0xf)
    machine.grant(PFN.data, 0xf)
    for (let level = 1; level <= 4; level++) machine.grant(tablePfn(level), 1)
    return machine
  }

  it.each([3, 2, 1])("exits with NPF and bit 33 for an absent table of level %i", (level) => {
    const machine = new PagedMachine()
    // The code's tables are those of the data but for level 3: the fetch comes first unless its entry is elsewhere.
    path(machine, FULL | A | D)
    machine.putEntry(LINEAR, level + 1, pte(0x20_0000, FULL | A))
    guest(machine, load)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("exit_info_1")).toEqual([IW | IU, PAGE_TABLE | ENC])
    expect(machine.vmcb("exit_info_2")).toEqual([0x20_0000 + indexBytes(level), 0])
  })

  it("of a level that may not read its tables tells VMPL", () => {
    const machine = guest(lower(FULL | A | D), load)
    machine.putEntry(LINEAR, 2, pte(GPA.private2, FULL | A))
    machine.grant(PFN.private2, 0)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("exit_info_1")).toEqual([(RMP | IP | IW | IU) >>> 0, PAGE_TABLE | ENC | VMPL])
    expect(machine.vmcb("exit_info_2")).toEqual([GPA.private2 + indexBytes(1), 0])
  })

  it.each([
    ["Accessed", load, FULL],
    ["Dirty", store, FULL | A]
  ])(
    "of a level that may not write its tables: %s is not set, and the access does not happen",
    (_, operation, bits) => {
      const machine = guest(lower(bits), operation)
      machine.memory.replace(
        PFN.data,
        ASID,
        Uint8Array.from({ length: PAGE_SIZE }, () => 9)
      )
      expect(machine.run()).toBe(EXIT.NPF)
      expect(machine.vmcb("exit_info_1")).toEqual([(RMP | IP | IW | IU) >>> 0, PAGE_TABLE | ENC | VMPL])
      expect(machine.vmcb("exit_info_2")).toEqual([tableGpa(1) + indexBytes(1), 0])
      expect([machine.entry(LINEAR, 1), machine.byte(PFN.data, ASID)]).toEqual([pte(GPA.data, bits), 9])
      // With the right to write it goes on where it stopped.
      machine.grant(tablePfn(1), 3)
      expect(machine.run()).toBe(EXIT.HLT)
      expect(machine.entry(LINEAR, 1).lo & (A | D)).toBe(operation === store ? A | D : A)
    }
  )

  it("of a table that is not validated is #VC with the linear address in CR2", () => {
    const machine = guest(new PagedMachine(), load)
    machine.mapLinear(LINEAR, pte(GPA.data, FULL))
    machine.putEntry(LINEAR, 2, pte(GPA.spare, FULL))
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
    expect(machine.saved("cr2")).toEqual([LINEAR % 2 ** 32, Math.floor(LINEAR / 2 ** 32)])
  })

  it("differs from a refusal of the access itself by bit 32", () => {
    const machine = lower(FULL | A | D)
    machine.grant(PFN.data, 1)
    guest(machine, write(LINEAR + 8, 1, 1))
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("exit_info_1")[1]).toBe(NPF_INFO1_HI.FINAL | ENC | VMPL)
    expect(machine.vmcb("exit_info_2")).toEqual([GPA.data + 8, 0])
  })
})

describe("RMP instructions on linear addresses", () => {
  it("act on the page that the address maps to", () => {
    const machine = new PagedMachine()
    machine.mapLinear(LINEAR, pte(GPA.spare, FULL))
    guest(machine, pvalidate(LINEAR, true), rmpadjust(LINEAR, 2, 3, false), rmpquery(LINEAR, 2))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "0", "0", "0"])
    expect(machine.rmp.entry(PFN.spare)).toMatchObject({ validated: true, perms: [0xf, 0, 3, 0] })
    expect(machine.entry(LINEAR, 1).lo & (A | D)).toBe(A)
  })

  const instructions = [
    ["PVALIDATE", pvalidate(LINEAR, true)],
    ["RMPADJUST", rmpadjust(LINEAR, 2, 1, false)],
    ["RMPQUERY", rmpquery(LINEAR, 2)]
  ] as const
  it.each(instructions)("%s of an unmapped address is #PF, or #GP(0) by switch U5", (_, operation) => {
    const machine = guest(new PagedMachine(), operation)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, fault()])
    const other = guest(new PagedMachine({}, { switches: { U5: "alternative" } }), operation)
    expect([other.run(), ...other.log]).toEqual([EXIT.HLT, "#GP"])
  })

  it.each(instructions)("%s of a mapping that forbids a load is #PF whatever U5 says", (_, operation) => {
    const machine = new PagedMachine(supervisor(CR4.SMAP), { switches: { U5: "alternative" } })
    machine.mapLinear(LINEAR, pte(GPA.data, FULL))
    // SMEP is off, so the code may lie in a user page.
    guest(machine, operation)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, fault(PF.P)])
  })

  it.each([
    ["PVALIDATE above VMPL0: #GP", pvalidate(LINEAR, true), "#GP"],
    ["RMPADJUST of the own level: FAIL_PERMISSION", rmpadjust(LINEAR, 2, 0, false), "2"],
    ["RMPADJUST of no level: FAIL_INPUT", rmpadjust(LINEAR, 4, 0, false), "1"],
    ["RMPADJUST of 2 MiB off its alignment: FAIL_INPUT", rmpadjust(LINEAR, 3, 0, false, 1), "1"],
    ["RMPQUERY of the own level: FAIL_PERMISSION", rmpquery(LINEAR, 2), "2"]
  ])("answer before the walk what needs none: %s", (_, operation, expected) => {
    const machine = new PagedMachine({ vmpl: 2 })
    for (let level = 1; level <= 4; level++) machine.grant(tablePfn(level), 3)
    machine.grant(PFN.code, 0xf)
    guest(machine, operation)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, expected])
  })

  it("answer before a walk that would be refused: PVALIDATE above VMPL0", () => {
    const machine = new PagedMachine({ vmpl: 2 })
    machine.mapLinear(LINEAR, pte(GPA.data, FULL))
    for (let level = 1; level <= 4; level++) machine.grant(tablePfn(level), 3)
    machine.grant(PFN.code, 0xf)
    machine.putEntry(LINEAR, 2, pte(0x20_0000, FULL))
    guest(machine, pvalidate(LINEAR, true))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "#GP"])
  })

  it("PVALIDATE of 2 MiB off its alignment is FAIL_INPUT at VMPL0, mapped or not", () => {
    const machine = guest(new PagedMachine(), pvalidate(LINEAR, true, 1))
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "1"])
  })

  it("fail with the fault of the walk where that is refused", () => {
    const machine = new PagedMachine()
    machine.mapLinear(LINEAR, pte(GPA.data, FULL))
    machine.putEntry(LINEAR, 2, pte(0x20_0000, FULL))
    guest(machine, pvalidate(LINEAR, true))
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("exit_info_1")[1]).toBe(NPF_INFO1_HI.PAGE_TABLE | NPF_INFO1_HI.ENC)
  })
})

describe("paging that is not modelled", () => {
  it.each([
    ["without PAE", { cr4: 0 }],
    ["without long mode", { efer: 0 }],
    ["with 5 levels", { cr4: CR4.PAE | CR4.LA57 }]
  ])("is refused aloud: %s", (_, vmsa) => {
    const machine = new PagedMachine(vmsa)
    machine.install(script([vmgexit()]))
    expect(() => machine.run()).toThrow("4 levels only")
  })

  it("leaves a GFN that is not in the tables out of reach", () => {
    const machine = guest(new PagedMachine(), read(GFN.data * PAGE_SIZE, 1))
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log[0]).toMatch("#PF 0")
  })
})
