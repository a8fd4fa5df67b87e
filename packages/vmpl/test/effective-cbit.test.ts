// @section 3.3
import { ACCESS } from "@vmpl-lab/rmp"
import { SEV_FEATURES } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { effectiveCbit } from "../src/index.ts"
import { PFN, TestMachine } from "./machine.ts"

const TOM = 0x8000_0000_0000
const [BELOW, AT] = [TOM - 1, TOM]
const DATA = [ACCESS.READ, ACCESS.WRITE, ACCESS.SHADOW_STACK]
const ALWAYS_PRIVATE = [ACCESS.FETCH, ACCESS.PAGE_TABLE_READ, ACCESS.PAGE_TABLE_WRITE]

const cbitOf = (vtom: boolean, kind: number, gpa: number, cbit: boolean): boolean => {
  const machine = new TestMachine()
  machine.putVmsa(PFN.vmsa, { features: vtom ? SEV_FEATURES.vTOM : 0, virtualTom: TOM })
  machine.vmrun()
  return effectiveCbit(machine.cpu, kind, gpa, cbit)
}

describe("the effective C-bit", () => {
  const all = [true, false].flatMap((cbit) => [BELOW, AT].map((gpa) => [cbit, gpa] as const))

  it.each(all)("with C-bit %s at %i", (cbit, gpa) => {
    for (const kind of ALWAYS_PRIVATE)
      for (const vtom of [true, false]) expect(cbitOf(vtom, kind, gpa, cbit)).toBe(true)
    for (const kind of DATA) {
      expect(cbitOf(false, kind, gpa, cbit)).toBe(cbit)
      expect(cbitOf(true, kind, gpa, cbit)).toBe(gpa === BELOW)
    }
  })
})
