import { PAGE_2M } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  hlt,
  type Operation,
  read,
  readBytes,
  readShared,
  write,
  writeBytes,
  writeShared,
  xchg8,
  zeroPage
} from "../src/index.ts"
import { GFN, GPA, PFN, script, TestMachine } from "./machine.ts"

const STORES: ReadonlyArray<readonly [name: string, operation: Operation, gfn: number]> = [
  ["a store", write(GPA.data, 4, 1), GFN.data],
  ["an exchange", xchg8(GPA.data, 1), GFN.data],
  ["a copy", writeBytes(GPA.data, new Uint8Array(3)), GFN.data],
  ["clearing a page", zeroPage(GPA.data), GFN.data],
  ["a store to shared memory", writeShared(GPA.shared, 4, 1), GFN.shared]
]

/** The guest runs a script at VMPL0, again and again. */
const machineWith = (tlb: number | undefined, operations: ReadonlyArray<Operation>): TestMachine => {
  const machine = new TestMachine(tlb === undefined ? {} : { tlb })
  machine.install(script([...operations, hlt()]))
  return machine
}

const runAnew = (machine: TestMachine): void => {
  machine.putVmsa(PFN.vmsa, {})
  machine.hardware.executions.clear()
  machine.run()
}

describe("the Dirty bits of nested leaves", () => {
  describe.each([
    ["without TLB", undefined],
    ["with a TLB", 16]
  ])("%s", (_name, tlb) => {
    it.each(STORES)("are set by %s, once more after each look", (_store, operation, gfn) => {
      const machine = machineWith(tlb, [operation, operation])
      machine.npt.logDirty(true)
      expect(machine.npt.harvestDirty()).toEqual([])
      for (let times = 0; times < 3; times++) {
        runAnew(machine)
        expect(machine.npt.harvestDirty()).toEqual([gfn])
        expect(machine.npt.harvestDirty()).toEqual([])
      }
    })

    it("are left alone by loads and fetches", () => {
      const machine = machineWith(tlb, [
        read(GPA.data, 8),
        readBytes(GPA.data, new Uint8Array(4)),
        readShared(GPA.shared, 1)
      ])
      machine.npt.logDirty(true)
      runAnew(machine)
      expect(machine.npt.harvestDirty()).toEqual([])
    })

    it("are set by a store behind a load and an earlier store that were allowed before", () => {
      const machine = machineWith(tlb, [read(GPA.data, 1), write(GPA.data, 1, 1)])
      runAnew(machine)
      machine.npt.logDirty(true)
      runAnew(machine)
      expect(machine.npt.harvestDirty()).toEqual([GFN.data])
    })
  })

  it("are not looked at before somebody asks, nor after", () => {
    const machine = machineWith(undefined, [write(GPA.data, 1, 1)])
    runAnew(machine)
    expect(machine.npt.harvestDirty()).toEqual([])
    machine.npt.logDirty(true)
    runAnew(machine)
    machine.npt.logDirty(false)
    expect(machine.npt.harvestDirty()).toEqual([])
    runAnew(machine)
    expect(machine.npt.logsDirty).toBe(false)
    expect(machine.npt.harvestDirty()).toEqual([])
  })

  it("stay clear where the RMP refuses the store", () => {
    const machine = machineWith(undefined, [write(GPA.data, 1, 1)])
    machine.give(PFN.data, GFN.data, { asid: 2 })
    machine.npt.logDirty(true)
    runAnew(machine)
    expect(machine.npt.harvestDirty()).toEqual([])
  })

  it("are one for a whole large leaf", () => {
    fc.assert(
      fc.property(fc.nat(511), (page) => {
        const { npt } = new TestMachine()
        npt.map(0x20_0000, 0x400, PAGE_2M)
        npt.logDirty(true)
        npt.lookup(0x20_0000 + page)
        npt.markDirty(0x20_0000 + page)
        const dirty = npt.harvestDirty()
        expect([dirty.length, dirty[0], dirty.at(-1)]).toEqual([512, 0x20_0000, 0x20_0000 + 511])
      }),
      { numRuns: 20 }
    )
    expect(PAGE_SIZE).toBe(4096)
  })
})
