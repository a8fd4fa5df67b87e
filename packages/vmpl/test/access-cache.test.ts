import { PAGE_4K } from "@vmpl-lab/rmp"
import { EXIT, PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { HOST_ASID, type Operation, read, readShared, vmgexit, write, writeShared } from "../src/index.ts"
import { ASID, GFN, GPA, PFN, TestMachine } from "./machine.ts"

const PAGES = ["data", "private2", "shared", "spare"] as const
/** Something that others do to the guest's pages, its code's too. */
type Change = (machine: TestMachine) => void

const page = fc.constantFrom(...PAGES)
const anyPage = fc.constantFrom(...PAGES, "code" as const)
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(page, page).map(
    ([name, other]): Change =>
      ({ npt }) =>
        npt.map(GFN[name], PFN[other])
  ),
  anyPage.map(
    (name): Change =>
      ({ npt }) =>
        npt.map(GFN[name], PFN[name])
  ),
  anyPage.map(
    (name): Change =>
      ({ npt }) =>
        void npt.unmap(GFN[name])
  ),
  page.map(
    (name): Change =>
      ({ npt }) =>
        npt.mapReserved(GFN[name])
  ),
  page.map(
    (name): Change =>
      ({ rmp }) =>
        void rmp.rmpupdate(PFN[name], false, PAGE_4K, false, 0, 0)
  ),
  page.map(
    (name): Change =>
      ({ rmp }) =>
        void rmp.rmpupdate(PFN[name], true, PAGE_4K, false, GFN[name], ASID)
  ),
  page.map(
    (name): Change =>
      (machine) =>
        machine.give(PFN[name], GFN[name], { perms: [0xf, 0, 0xf, 0] })
  ),
  fc.tuple(page, fc.boolean()).map(
    ([name, on]): Change =>
      ({ rmp }) =>
        void rmp.pvalidate(ASID, 0, GFN[name], PFN[name], PAGE_4K, PAGE_4K, on)
  ),
  fc.tuple(anyPage, fc.constantFrom(0, 1, 3, 0xf)).map(
    ([name, mask]): Change =>
      ({ rmp }) =>
        void rmp.rmpadjust(ASID, 0, GFN[name], PFN[name], PAGE_4K, PAGE_4K, 2, mask, false)
  ),
  page.map(
    (name): Change =>
      ({ memory }) =>
        memory.replace(PFN[name], HOST_ASID, null)
  ),
  page.map(
    (name): Change =>
      ({ host }) =>
        void host.write8(PFN[name] * PAGE_SIZE + 8, 77)
  )
)

/** Every page by load and store, private and shared. */
const ACCESSES: ReadonlyArray<(value: number) => Operation> = PAGES.flatMap((name) => {
  const at = GPA[name] + 8
  return [
    () => read(at, 1),
    () => readShared(at, 1),
    (value: number) => write(at, 1, value),
    (value: number) => writeShared(at, 1, value)
  ]
})

/** What a guest at a level sees before, in the middle of and after each change, and what the host and memory show. */
const observe = (changes: ReadonlyArray<Change>, vmpl: number, remembers: boolean): unknown => {
  const machine = new TestMachine()
  const seen: Array<unknown> = []
  for (const name of ["code", "data", "private2"] as const) machine.grant(PFN[name], 0xf)
  // As if something had changed: nothing that was kept holds.
  const forget = () => {
    if (!remembers) machine.memory.changes++
  }
  const visit = (operation: Operation, between: Change) => {
    machine.hardware.executions.clear()
    machine.putVmsa(PFN.vmsa, { vmpl })
    machine.cpu.fetchedAt = remembers ? machine.cpu.fetchedAt : -1
    machine.install(function* () {
      seen.push((yield operation).lo)
      between(machine)
      forget()
      if (!remembers) machine.cpu.fetchedAt = -1
      seen.push((yield operation).lo)
      yield vmgexit()
    })
    forget()
    seen.push(machine.run(), machine.vmcb("exit_info_1"), machine.vmcb("exit_info_2"))
  }
  for (const [i, change] of changes.entries()) {
    for (const [k, make] of ACCESSES.entries()) visit(make(16 * i + k), k === i % ACCESSES.length ? change : () => {})
    for (const name of PAGES) seen.push(machine.host.read8(PFN[name] * PAGE_SIZE + 8))
  }
  const frames: Array<unknown> = []
  machine.memory.forEachFrame((pfn, asid, bytes) => frames.push([pfn, asid, Buffer.from(bytes).toString("base64")]))
  return [seen, frames]
}

describe("kept outcomes of access checks", () => {
  it("answer as the checks do, whatever happens between two accesses", () => {
    const changes = fc.array(change, { minLength: 1, maxLength: 12 })
    fc.assert(
      fc.property(changes, fc.constantFrom(0, 2), (history, vmpl) => {
        expect(observe(history, vmpl, true)).toEqual(observe(history, vmpl, false))
      }),
      { numRuns: 150 }
    )
  })

  it("are apart for each level", () => {
    const machine = new TestMachine()
    machine.grant(PFN.code, 0xf)
    // Only a frame that exists under the guest's key is kept.
    machine.memory.replace(PFN.data, ASID, null)
    for (const [vmpl, code] of [
      [0, EXIT.VMGEXIT],
      [2, EXIT.NPF]
    ] as const) {
      machine.hardware.executions.clear()
      machine.putVmsa(PFN.vmsa, { vmpl })
      machine.install(function* () {
        yield read(GPA.data, 1)
        yield vmgexit()
      })
      expect(machine.run()).toBe(code)
    }
  })
})
