// @section 3.4
import { EXIT, NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  cpuid,
  hlt,
  lidt,
  NESTED,
  type Operation,
  type OperationResult,
  type Program,
  pvalidate,
  read,
  readShared,
  vmgexit,
  write,
  writeShared,
  xchg8
} from "../src/index.ts"
import { ENTRY, GFN, GPA, PFN, script, TestMachine } from "./machine.ts"

const { P, W, U, ID, RSVD } = NPF_INFO1
const { FINAL, ENC } = NPF_INFO1_HI
const UPPER_RIP = 0x10
const DEVICE = 0xfee0_0000

const show = ({ lo, hi, ecx, edx }: OperationResult): string => [lo, hi, ecx, edx].map((v) => v.toString(16)).join(" ")

/** VMPL2 with ReflectVC runs `lower`; VMPL0, in the other VMSA and able to reach the first one, runs `upper`. */
const twoLevels = (lower: ReadonlyArray<Operation>, upper: () => Program = function* () {}): TestMachine => {
  const machine = new TestMachine()
  machine.putVmsa(PFN.vmsa2, { vmpl: 2, features: SEV_FEATURES.ReflectVC })
  machine.putVmsa(PFN.vmsa, { rip: UPPER_RIP })
  machine.npt.map(GFN.vmsa2, PFN.vmsa2)
  machine.npt.mapReserved(DEVICE / PAGE_SIZE)
  machine.grant(PFN.code, 0xf)
  machine.install(script([...lower, hlt()], (result) => machine.log.push(show(result))))
  machine.install(upper, GPA.code + UPPER_RIP)
  return machine
}
const lower = (machine: TestMachine) => {
  machine.select(PFN.vmsa2)
  return machine.run()
}
const upper = (machine: TestMachine) => {
  machine.select(PFN.vmsa)
  return machine.run()
}
/** GUEST_EXITCODE, EXITINFO1 as halves, EXITINFO2, NRIP relative to the entry. */
const exitFields = (machine: TestMachine) => {
  const of = (field: keyof typeof VMSA) => machine.saved(field, PFN.vmsa2)
  expect(of("guest_exit_int_info")).toEqual([0, 0])
  return [of("guest_exit_code")[0], ...of("guest_exit_info_1"), of("guest_exit_info_2")[0], of("guest_nrip")[0] - ENTRY]
}

describe("ReflectVC", () => {
  it.each([
    ["CPUID", cpuid(0x8000_001f, 1), [EXIT.CPUID, 0, 0, 0, 1]],
    [
      "a load of a page that is not validated",
      read(GPA.spare + 4, 1),
      [EXIT.PAGE_NOT_VALIDATED, U, FINAL | ENC, GPA.spare + 4, 0]
    ],
    [
      "a store to a page that is not validated",
      write(GPA.spare, 1, 1),
      [EXIT.PAGE_NOT_VALIDATED, U | W, FINAL | ENC, GPA.spare, 0]
    ],
    ["a load from a device", readShared(DEVICE + 8, 4), [EXIT.NPF, P | U | RSVD, FINAL, DEVICE + 8, 0]],
    ["a store to a device", writeShared(DEVICE, 4, 1), [EXIT.NPF, P | U | W | RSVD, FINAL, DEVICE, 0]]
  ])("of %s: the VMSA tells all, the VMCB only VMEXIT_VC", (_, operation, fields) => {
    const machine = twoLevels([operation])
    expect(lower(machine)).toBe(EXIT.VC)
    expect(EXIT.VC).toBe(0x40 + 29)
    expect(exitFields(machine)).toEqual(fields)
    expect([machine.vmcb("exit_code"), machine.vmcb("exit_info_1"), machine.vmcb("exit_info_2")]).toEqual([
      [EXIT.VC, 0],
      [0, 0],
      [0, 0]
    ])
    expect(machine.saved("rip", PFN.vmsa2)).toEqual([ENTRY, 0])
  })

  it("of a fetch", () => {
    const machine = twoLevels([])
    machine.rmp.firmwareSet(PFN.code, { validated: false })
    expect(lower(machine)).toBe(EXIT.VC)
    expect(exitFields(machine)).toEqual([EXIT.PAGE_NOT_VALIDATED, U | ID, FINAL | ENC, GPA.code + ENTRY, 0])
    expect(machine.saved("cr2", PFN.vmsa2)).toEqual([GPA.code + ENTRY, 0])
    machine.rmp.firmwareSet(PFN.code, { validated: true })
    expect(lower(machine)).toBe(EXIT.HLT)
    machine.putVmsa(PFN.vmsa2, { vmpl: 2, features: SEV_FEATURES.ReflectVC })
    machine.npt.mapReserved(GFN.code)
    expect(lower(machine)).toBe(EXIT.VC)
    expect(exitFields(machine)[0]).toBe(EXIT.NPF)
  })

  it("goes before a handler of the level itself, and only where the feature is on", () => {
    const handler = function* (): Program {
      yield vmgexit()
    }
    const machine = twoLevels([lidt(handler), cpuid(0)])
    expect(lower(machine)).toBe(EXIT.VC)
    machine.putVmsa(PFN.vmsa2, { vmpl: 2 })
    expect(lower(machine)).toBe(EXIT.VMGEXIT)
  })

  it("lets VMPL0 answer CPUID: operands and outcome travel in registers, RIP goes to NRIP", () => {
    const at = (field: keyof typeof VMSA) => GPA.vmsa2 + VMSA[field]
    const machine = twoLevels([cpuid(0x8000_001f, 3), cpuid(1)], function* () {
      const leaf = (yield read(at("rax"), 4)).lo
      const subleaf = (yield read(at("rcx"), 4)).lo
      machine.log.push(`leaf ${leaf.toString(16)}.${subleaf}`)
      for (const [index, field] of (["rax", "rbx", "rcx", "rdx"] as const).entries())
        yield write(at(field), 8, 0x11 * (index + 1))
      const nrip = (yield read(at("guest_nrip"), 4)).lo
      yield write(at("rip"), 4, nrip)
    })
    expect([lower(machine), upper(machine), lower(machine)]).toEqual([EXIT.VC, EXIT.HLT, EXIT.VC])
    expect(machine.log).toEqual(["leaf 8000001f.3", "11 22 33 44"])
    // The second CPUID has taken the place of the first.
    expect([machine.saved("rax", PFN.vmsa2)[0], machine.saved("rip", PFN.vmsa2)[0]]).toEqual([1, ENTRY + 1])
  })

  it("lets VMPL0 validate the page and have the access tried again", () => {
    const machine = twoLevels([read(GPA.spare, 1)], script([pvalidate(GPA.spare, true)]))
    expect([lower(machine), upper(machine), lower(machine)]).toEqual([EXIT.VC, EXIT.HLT, EXIT.NPF])
    expect(machine.vmcb("exit_info_1")[1] & NPF_INFO1_HI.VMPL).toBe(NPF_INFO1_HI.VMPL)
    machine.grant(PFN.spare, 1)
    expect([lower(machine), machine.log.length]).toEqual([EXIT.HLT, 1])
  })

  it("lets VMPL0 stand in for a device: a load's outcome and a store's operand are in RAX", () => {
    const at = (field: keyof typeof VMSA) => GPA.vmsa2 + VMSA[field]
    const machine = twoLevels([readShared(DEVICE, 8), writeShared(DEVICE, 8, 0xabcd, 0x12)], function* () {
      yield write(at("rax"), 8, 0x77, 0x88)
      yield write(at("rip"), 2, ENTRY + 1)
      yield vmgexit()
      const { lo, hi } = yield read(at("rax"), 8)
      machine.log.push(`store ${lo.toString(16)} ${hi.toString(16)}`)
      yield write(at("rip"), 2, ENTRY + 2)
    })
    const exits = [lower(machine), upper(machine), lower(machine), upper(machine), lower(machine)]
    expect(exits).toEqual([EXIT.VC, EXIT.VMGEXIT, EXIT.VC, EXIT.HLT, EXIT.HLT])
    expect(machine.log.map((line) => line.split(" ").slice(0, 3).join(" ")).slice(0, 2)).toEqual([
      "77 88 0",
      "store abcd 12"
    ])
  })

  it("has an exchange's operand in RAX, and what it finds there", () => {
    const machine = twoLevels([xchg8(GPA.spare, 0x5a)])
    expect([lower(machine), machine.saved("rax", PFN.vmsa2)]).toEqual([EXIT.VC, [0x5a, 0]])
    machine.vmsa(PFN.vmsa2).setUint32(VMSA.rax, 0xa5, true)
    machine.vmsa(PFN.vmsa2).setUint32(VMSA.rip, ENTRY + 1, true)
    expect([lower(machine), machine.log[0]]).toEqual([EXIT.HLT, "a5 0 0 0"])
  })

  it("of a fetch leaves nothing to emulate: a RIP one further on is just another address", () => {
    const machine = twoLevels([cpuid(0)])
    machine.npt.mapReserved(GFN.code)
    expect(lower(machine)).toBe(EXIT.VC)
    machine.npt.map(GFN.code, PFN.code)
    machine.vmsa(PFN.vmsa2).setUint32(VMSA.rip, ENTRY + 1, true)
    expect(lower(machine)).toBe(EXIT.SHUTDOWN)
  })

  it("of a VMSA that is then moved elsewhere, or built afresh, resumes nothing", () => {
    for (const rip of [ENTRY + 2, 0x100]) {
      const machine = twoLevels([cpuid(0)])
      lower(machine)
      machine.vmsa(PFN.vmsa2).setUint32(VMSA.rip, rip, true)
      expect(lower(machine)).toBe(EXIT.SHUTDOWN)
    }
    const machine = twoLevels([cpuid(0)])
    lower(machine)
    machine.install(script([vmgexit()]), GPA.code + ENTRY + 1)
    machine.putVmsa(PFN.vmsa2, { vmpl: 2, rip: ENTRY + 1 })
    expect(lower(machine)).toBe(EXIT.VMGEXIT)
  })

  it("ends with the exit: after another one a RIP one further on is no emulated operation", () => {
    const machine = twoLevels([cpuid(0), vmgexit()])
    lower(machine)
    machine.vmsa(PFN.vmsa2).setUint32(VMSA.rip, ENTRY + 1, true)
    expect(lower(machine)).toBe(EXIT.VMGEXIT)
    machine.vmsa(PFN.vmsa2).setUint32(VMSA.rip, ENTRY + 1, true)
    expect(lower(machine)).toBe(EXIT.SHUTDOWN)
  })
})

describe("a nested leaf with a reserved bit", () => {
  it.each([
    ["a load", readShared(DEVICE + 4, 4)],
    ["a store", writeShared(DEVICE + 4, 4, 9)],
    ["a private load", read(DEVICE + 4, 4)],
    ["PVALIDATE", pvalidate(DEVICE, true)]
  ])("makes %s #VC with the code of a nested page fault: the handler stands for the device", (_, operation) => {
    const machine = new TestMachine()
    machine.npt.mapReserved(DEVICE / PAGE_SIZE)
    machine.install(function* (): Program {
      yield lidt(function* (code, { address }, result) {
        machine.log.push(`${code.toString(16)} ${address.toString(16)}`)
        yield read(GPA.data, 1)
        result.lo = 0xd0
      })
      machine.log.push((yield operation).lo.toString(16))
      yield hlt()
    })
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log).toEqual([`400 ${operation.address.toString(16)}`, "d0"])
    expect(machine.saved("cr2")).toEqual([operation.address, 0])
    expect(machine.npt.lookup(DEVICE / PAGE_SIZE)).toBe(NESTED.RESERVED)
  })
})
