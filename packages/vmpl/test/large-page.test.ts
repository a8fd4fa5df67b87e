// @section 3.5
import { PAGE_2M, PAGE_4K, type PageSize } from "@vmpl-lab/rmp"
import { EXIT, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  hlt,
  type LeafSize,
  type Operation,
  PAGE_1G,
  pvalidate,
  read,
  rmpadjust,
  rmpquery,
  write,
  writeShared
} from "../src/index.ts"
import { ASID, script, TestMachine } from "./machine.ts"

/** A 2 MiB region of the guest whose GFN is a multiple of 1 GiB and whose frames begin at 1 GiB as well. */
const GFN = 0x40000 * 3
const GPA = GFN * PAGE_SIZE
const PFN = 0x40000
const INNER = 5
/** Address and frame of the page that is accessed: the first of the region has no offset that could be lost. */
const PAGE = GPA + INNER * PAGE_SIZE
const FRAME = PFN + INNER

type Rmp = PageSize | "shared"

/** The region as the nested table maps it (null: not at all) and as the RMP has it. */
const machineWith = (npt: LeafSize | null, rmp: Rmp, ...operations: ReadonlyArray<Operation>): TestMachine => {
  const machine = new TestMachine({ pages: PFN + 512 })
  if (npt === PAGE_4K) for (let page = 0; page < 512; page++) machine.npt.map(GFN + page, PFN + page)
  else if (npt !== null) machine.npt.map(GFN, PFN, npt)
  if (rmp === PAGE_2M) {
    machine.rmp.rmpupdate(PFN, true, PAGE_2M, false, GFN, ASID)
    machine.rmp.pvalidate(ASID, 0, GFN, PFN, PAGE_2M, PAGE_2M, true)
  } else if (rmp === PAGE_4K) for (let page = 0; page < 512; page++) machine.give(PFN + page, GFN + page)
  machine.install(
    script([...operations, hlt()], ({ lo, carry, ecx, edx }) =>
      machine.log.push(`${lo.toString(16)}${carry ? " CF" : ""} ${ecx} ${edx.toString(16)}`)
    )
  )
  return machine
}

/** "ok", a return code in EAX, or a nested page fault with the bits RMP and SIZEM. */
const outcome = (machine: TestMachine): string => {
  const code = machine.run()
  if (code === EXIT.HLT) return machine.log[0]!.split(" ")[0] === "0" ? "ok" : `EAX ${machine.log[0]!.split(" ")[0]}`
  expect(code).toBe(EXIT.NPF)
  const [lo, hi] = [machine.vmcb("exit_info_1")[0], machine.vmcb("exit_info_1")[1]]
  return `NPF${lo >>> 31 ? " RMP" : ""}${(hi & 8) !== 0 ? " SIZEM" : ""}`
}

/** Section 3.5 of the facts: nested leaf, RMP entry, then what a store, a 4 KiB and a 2 MiB instruction lead to. */
const MATRIX: ReadonlyArray<readonly [LeafSize, Rmp, plain: string, small: string, large: string]> = [
  [PAGE_4K, PAGE_4K, "ok", "ok", "EAX 6"],
  [PAGE_4K, PAGE_2M, "NPF RMP", "NPF RMP SIZEM", "NPF RMP"],
  [PAGE_2M, PAGE_2M, "ok", "NPF RMP SIZEM", "ok"],
  [PAGE_2M, PAGE_4K, "NPF RMP", "NPF RMP", "NPF RMP"],
  [PAGE_1G, PAGE_2M, "ok", "NPF RMP SIZEM", "ok"],
  [PAGE_1G, PAGE_4K, "NPF RMP", "NPF RMP", "NPF RMP"]
]
const NAME = ["4K", "2M", "1G"]
const named = MATRIX.map(([npt, rmp, ...rest]) => [NAME[npt]!, NAME[Number(rmp)]!, npt, rmp, ...rest] as const)

describe("the Page-Size rule", () => {
  it.each(named)("through a nested %s leaf onto an RMP entry of %s", (_, __, npt, rmp, plain, small, large) => {
    expect(outcome(machineWith(npt, rmp, write(PAGE, 1, 7)))).toBe(plain)
    expect(outcome(machineWith(npt, rmp, pvalidate(PAGE, false)))).toBe(small)
    expect(outcome(machineWith(npt, rmp, rmpadjust(PAGE, 2, 1, false)))).toBe(small)
    expect(outcome(machineWith(npt, rmp, pvalidate(GPA, false, 1)))).toBe(large)
    expect(outcome(machineWith(npt, rmp, rmpadjust(GPA, 2, 1, false, 1)))).toBe(large)
    expect(outcome(machineWith(npt, rmp, rmpquery(PAGE, 2)))).toBe(plain)
  })

  it.each<LeafSize>([PAGE_2M, PAGE_1G])("a store through leaf %i lands in the page that the offset names", (npt) => {
    const machine = machineWith(npt, PAGE_2M, write(PAGE + 9, 1, 0x42), read(PAGE + 9, 1))
    expect([machine.run(), machine.log[1]!.split(" ")[0]]).toEqual([EXIT.HLT, "42"])
    expect(machine.byte(FRAME, ASID, 9)).toBe(0x42)
  })

  it("a shared store through a large leaf needs the whole 2 MiB to be the hypervisor's", () => {
    expect(outcome(machineWith(PAGE_2M, "shared", writeShared(PAGE, 1, 1)))).toBe("ok")
    const machine = machineWith(PAGE_2M, "shared", writeShared(PAGE, 1, 1))
    machine.give(PFN + 300, 1)
    expect(outcome(machine)).toBe("NPF RMP")
    const small = machineWith(PAGE_4K, "shared", writeShared(PAGE, 1, 1))
    small.give(PFN + 300, 1)
    expect(outcome(small)).toBe("ok")
  })

  it("a misaligned 2 MiB operand is FAIL_INPUT", () => {
    expect(outcome(machineWith(PAGE_2M, PAGE_2M, pvalidate(PAGE, false, 1)))).toBe("EAX 1")
    expect(outcome(machineWith(PAGE_2M, PAGE_2M, rmpadjust(PAGE, 2, 1, false, 1)))).toBe("EAX 1")
  })
})

describe("a hypervisor that gives 2 MiB pages", () => {
  it("cures SIZEM by PSMASH and a zap, and the page stays validated", () => {
    const machine = machineWith(PAGE_2M, PAGE_2M, rmpadjust(PAGE, 2, 1, false), read(PAGE, 1))
    expect(outcome(machine)).toBe("NPF RMP SIZEM")
    expect(machine.rmp.psmash(PFN)).toBe(0)
    expect(machine.npt.unmap(GFN)).toBe(true)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("exit_info_1")[0] >>> 31).toBe(0)
    machine.npt.map(GFN + INNER, FRAME)
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.rmp.entry(FRAME)).toMatchObject({ validated: true, perms: [0xf, 0, 1, 0] })
    expect(machine.rmp.entry(FRAME + 1).perms).toEqual([0xf, 0, 0, 0])
  })

  it("a 2 MiB PVALIDATE and RMPADJUST cover all of its pages", () => {
    const machine = machineWith(
      PAGE_2M,
      PAGE_2M,
      pvalidate(GPA, true, 1),
      pvalidate(GPA, false, 1),
      pvalidate(GPA, true, 1),
      rmpadjust(GPA, 3, 3, false, 1),
      rmpquery(GPA + 511 * PAGE_SIZE, 3)
    )
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log.map((line) => line.split(" ").slice(0, -2).join(" "))).toEqual(["0 CF", "0", "0", "0", "0"])
    expect(machine.log[4]).toBe("0 1 303")
  })
})
