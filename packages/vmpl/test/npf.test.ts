// @section 3.4
import { PAGE_4K, PERMISSION } from "@vmpl-lab/rmp"
import { EXIT, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  hlt,
  type Operation,
  pvalidate,
  read,
  readBytes,
  readShared,
  rmpadjust,
  vmgexit,
  write,
  writeBytes,
  writeRegister,
  writeShared,
  xchg8,
  zeroPage
} from "../src/index.ts"
import { ASID, ENTRY, GFN, GPA, PFN, script, TestMachine } from "./machine.ts"

/** Bits of EXITINFO1 by the manual's numbers. */
const BIT = { P: 0, W: 1, U: 2, ID: 4, RMP: 31, FINAL: 32, ENC: 34, VMPL: 36 } as const
type Bit = keyof typeof BIT

const bitsOf = ([lo, hi]: readonly [number, number]): ReadonlyArray<Bit | number> => {
  const value = (BigInt(hi) << 32n) | BigInt(lo)
  const found: Array<Bit | number> = []
  for (let n = 0; n < 64; n++) {
    if (((value >> BigInt(n)) & 1n) === 0n) continue
    const name = (Object.keys(BIT) as ReadonlyArray<Bit>).find((key) => BIT[key] === n)
    found.push(name ?? n)
  }
  return found
}

/** A guest at `vmpl` whose code page every level may execute. */
const guestAt = (vmpl: number, ...operations: ReadonlyArray<Operation>): TestMachine => {
  const machine = new TestMachine()
  machine.putVmsa(PFN.vmsa, { vmpl })
  machine.rmp.firmwareSet(PFN.code, { perms: [0xf, 0xf, 0xf, 0xf] })
  machine.install(script(operations, ({ lo }) => machine.log.push(lo.toString(16))))
  return machine
}

const UNMAPPED = 0x7_0000_0000
const NOTHING = (): void => {}
const bytes = () => new Uint8Array(2)

type Case = readonly [
  name: string,
  vmpl: number,
  operation: Operation,
  gpa: number,
  prepare: (m: TestMachine) => void,
  Bit[]
]

const foreign = (m: TestMachine): void => m.give(PFN.data, GFN.data, { asid: 2 })
const swapped = (m: TestMachine): void => m.npt.map(GFN.data, PFN.private2)
const own = (mask: number) => (m: TestMachine) => m.grant(PFN.data, mask)

const CASES: ReadonlyArray<Case> = [
  ["a private load of an absent leaf", 0, read(UNMAPPED + 4, 4), UNMAPPED + 4, NOTHING, ["U", "FINAL", "ENC"]],
  ["a private store to an absent leaf", 0, write(UNMAPPED, 4, 1), UNMAPPED, NOTHING, ["W", "U", "FINAL", "ENC"]],
  ["a shared load of an absent leaf", 0, readShared(UNMAPPED, 4), UNMAPPED, NOTHING, ["U", "FINAL"]],
  ["a shared store to an absent leaf", 0, writeShared(UNMAPPED, 4, 1), UNMAPPED, NOTHING, ["W", "U", "FINAL"]],
  ["a load of another guest's page", 0, read(GPA.data, 4), GPA.data, foreign, ["P", "U", "RMP", "FINAL", "ENC"]],
  ["an exchange there", 0, xchg8(GPA.data, 4), GPA.data, foreign, ["P", "W", "U", "RMP", "FINAL", "ENC"]],
  ["a load of a page remapped to another", 0, read(GPA.data, 4), GPA.data, swapped, ["P", "U", "RMP", "FINAL", "ENC"]],
  [
    "a private store to a shared page",
    0,
    write(GPA.shared, 1, 1),
    GPA.shared,
    NOTHING,
    ["P", "W", "U", "RMP", "FINAL", "ENC"]
  ],
  [
    "a shared store to a private page",
    0,
    writeShared(GPA.data, 1, 1),
    GPA.data,
    NOTHING,
    ["P", "W", "U", "RMP", "FINAL"]
  ],
  ["PVALIDATE of an absent leaf", 0, pvalidate(UNMAPPED, true), UNMAPPED, NOTHING, ["W", "U", "FINAL", "ENC"]],
  [
    "RMPADJUST of a shared page",
    0,
    rmpadjust(GPA.shared, 2, 1, false),
    GPA.shared,
    NOTHING,
    ["P", "W", "U", "RMP", "FINAL", "ENC"]
  ],
  ["VMPL2's load without R", 2, read(GPA.data, 1), GPA.data, own(0), ["P", "U", "RMP", "FINAL", "ENC", "VMPL"]],
  [
    "VMPL2's copy without R",
    2,
    readBytes(GPA.data, bytes()),
    GPA.data,
    own(0),
    ["P", "U", "RMP", "FINAL", "ENC", "VMPL"]
  ],
  [
    "VMPL2's store without W",
    2,
    write(GPA.data, 1, 1),
    GPA.data,
    own(1),
    ["P", "W", "U", "RMP", "FINAL", "ENC", "VMPL"]
  ],
  [
    "VMPL2's copy without W",
    2,
    writeBytes(GPA.data, bytes()),
    GPA.data,
    own(1),
    ["P", "W", "U", "RMP", "FINAL", "ENC", "VMPL"]
  ],
  [
    "VMPL2's clearing without W",
    2,
    zeroPage(GPA.data),
    GPA.data,
    own(1),
    ["P", "W", "U", "RMP", "FINAL", "ENC", "VMPL"]
  ],
  [
    "VMPL2's exchange without W",
    2,
    xchg8(GPA.data, 1),
    GPA.data,
    own(1),
    ["P", "W", "U", "RMP", "FINAL", "ENC", "VMPL"]
  ],
  [
    "VMPL2's store to a VMSA",
    2,
    write(GPA.vmsa2, 1, 0),
    GPA.vmsa2,
    (m) => m.npt.map(GFN.vmsa2, PFN.vmsa2),
    ["P", "W", "U", "RMP", "FINAL", "ENC", "VMPL"]
  ]
]

describe("a nested page fault", () => {
  it.each(CASES)("of %s tells why and where, and leaves the bytes", (_, vmpl, operation, gpa, prepare, bits) => {
    const machine = guestAt(vmpl, operation, hlt())
    prepare(machine)
    const before = [PFN.data, PFN.private2, PFN.shared, PFN.vmsa2].map((pfn) => machine.host.readPage(pfn))
    expect(machine.run()).toBe(EXIT.NPF)
    expect(bitsOf(machine.vmcb("exit_info_1"))).toEqual(bits)
    expect(machine.vmcb("exit_info_2")).toEqual([gpa % 2 ** 32, Math.floor(gpa / 2 ** 32)])
    expect([PFN.data, PFN.private2, PFN.shared, PFN.vmsa2].map((pfn) => machine.host.readPage(pfn))).toEqual(before)
    expect([machine.log.length, machine.saved("rip")]).toEqual([0, [ENTRY, 0]])
  })

  it.each([
    ["an absent leaf", (m: TestMachine): unknown => m.npt.unmap(GFN.code), ["U", "ID", "FINAL", "ENC"]],
    [
      "a page of another guest",
      (m: TestMachine) => m.give(PFN.code, GFN.code, { asid: 2 }),
      ["P", "U", "ID", "RMP", "FINAL", "ENC"]
    ],
    [
      "a page its level may not execute",
      (m: TestMachine) => m.grant(PFN.code, PERMISSION.READ | PERMISSION.WRITE),
      ["P", "U", "ID", "RMP", "FINAL", "ENC", "VMPL"]
    ]
  ] as const)("of a fetch from %s has the fetch bit", (_, prepare, bits) => {
    const machine = guestAt(2, hlt())
    prepare(machine)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(bitsOf(machine.vmcb("exit_info_1"))).toEqual(bits)
    expect(machine.vmcb("exit_info_2")).toEqual([GPA.code + ENTRY, 0])
  })

  it("restarts the operation until the hypervisor has dealt with it: it takes effect exactly once", () => {
    const machine = guestAt(0, xchg8(GPA.data, 5), xchg8(GPA.data, 6), vmgexit())
    machine.memory.replace(PFN.data, ASID, new Uint8Array(PAGE_SIZE))
    machine.npt.unmap(GFN.data)
    expect([machine.run(), machine.run(), machine.run()]).toEqual([EXIT.NPF, EXIT.NPF, EXIT.NPF])
    expect(machine.byte(PFN.data, ASID)).toBe(0)
    machine.npt.map(GFN.data, PFN.data)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect([machine.log, machine.byte(PFN.data, ASID)]).toEqual([["0", "5"], 6])
  })

  it("restarts PVALIDATE too: once the page is there it is validated, and CF is clear", () => {
    const machine = new TestMachine()
    machine.install(script([pvalidate(GPA.spare, true), hlt()], ({ lo, carry }) => machine.log.push(`${lo} ${carry}`)))
    machine.rmp.rmpupdate(PFN.spare, false, PAGE_4K, false, 0, 0)
    expect(machine.run()).toBe(EXIT.NPF)
    machine.rmp.rmpupdate(PFN.spare, true, PAGE_4K, false, GFN.spare, ASID)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, "0 false"])
  })

  it("of a fetch begins the program only after it", () => {
    const machine = guestAt(0, write(GPA.data, 1, 7), hlt())
    machine.npt.unmap(GFN.code)
    expect([machine.run(), machine.run()]).toEqual([EXIT.NPF, EXIT.NPF])
    machine.npt.map(GFN.code, PFN.code)
    expect([machine.run(), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 7])
  })
})

describe("VMPL2", () => {
  const { READ, WRITE } = PERMISSION

  it("may do what VMPL0 granted, from the moment of the grant", () => {
    const machine = guestAt(2, read(GPA.data, 1), write(GPA.data, 1, 8), hlt())
    machine.memory.replace(
      PFN.data,
      ASID,
      Uint8Array.from({ length: PAGE_SIZE }, () => 3)
    )
    expect(machine.run()).toBe(EXIT.NPF)
    machine.grant(PFN.data, READ)
    expect([machine.run(), ...machine.log]).toEqual([EXIT.NPF, "3"])
    machine.grant(PFN.data, READ | WRITE)
    expect([machine.run(), machine.byte(PFN.data, ASID)]).toEqual([EXIT.HLT, 8])
  })

  it("is given rights by VMPL0's RMPADJUST in the same guest, and can give itself none", () => {
    const machine = guestAt(
      2,
      rmpadjust(GPA.data, 2, 0xf, false),
      rmpadjust(GPA.data, 3, READ, true),
      read(GPA.data, 1)
    )
    machine.grant(PFN.data, READ)
    machine.install(script([rmpadjust(GPA.data, 2, READ | WRITE, false), vmgexit()]), GPA.code + 0x10)
    expect(machine.run()).toBe(EXIT.HLT)
    // FAIL_PERMISSION for its own level; the level below gets what it has, but no VMSA bit.
    expect(machine.log.slice(0, 2)).toEqual(["2", "0"])
    expect(machine.rmp.entry(PFN.data)).toMatchObject({ perms: [0xf, 0, READ, READ], vmsa: false })
    machine.putVmsa(PFN.vmsa2, { vmpl: 0, rip: 0x10 })
    machine.select(PFN.vmsa2)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect(machine.rmp.entry(PFN.data).perms).toEqual([0xf, 0, READ | WRITE, READ])
  })

  it.each(["vmpl", "efer", "sev_features", "vintr_ctrl", "rip", "secure_avic_control", "guest_nrip"] as const)(
    "cannot write its %s as if it were a general register",
    (field) => {
      // Two bytes below, so that an unaligned write does not reach the field either.
      for (const at of [VMSA[field], VMSA[field] - 2]) {
        const machine = guestAt(2, writeRegister(at, 0), vmgexit())
        expect(() => machine.run()).toThrow("general registers only")
        expect(machine.cpu.view.getUint8(VMSA.vmpl)).toBe(2)
      }
    }
  )

  it("shares plain pages with the host although VMPL0 granted nothing", () => {
    const machine = guestAt(2, writeShared(GPA.shared, 2, 0xabcd), hlt())
    expect([machine.run(), machine.host.read16(PFN.shared * PAGE_SIZE)]).toEqual([EXIT.HLT, 0xabcd])
  })
})
