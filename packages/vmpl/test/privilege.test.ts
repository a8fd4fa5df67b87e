// @section 2.1, 4.2
import { EXIT, MSR, MSR_GHCB, NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  hlt,
  invlpg,
  invlpgb,
  type Operation,
  PF,
  pvalidate,
  rdmsr,
  read,
  readShadowStack,
  readShared,
  rmpadjust,
  rmpquery,
  tlbsync,
  vmgexit,
  write,
  writeCr3,
  writeShadowStack,
  writeShared,
  wrmsr
} from "../src/index.ts"
import { ASID, GFN, GPA, PFN, script, TestMachine, type VmsaOptions } from "./machine.ts"
import { CODE_LINEAR, FULL, LINEAR, PagedMachine, pte } from "./pages.ts"

const { vTOM, VmplSSS, SNPActive } = SEV_FEATURES

const guest = (vmsa: VmsaOptions, ...operations: ReadonlyArray<Operation>): TestMachine => {
  const machine = new TestMachine()
  machine.putVmsa(PFN.vmsa, vmsa)
  machine.rmp.firmwareSet(PFN.code, { perms: [0xf, 0xf, 0xf, 0xf] })
  machine.install(
    script(operations, ({ lo, hi, ecx, edx }) =>
      machine.log.push([lo, hi, ecx, edx].map((v) => v.toString(16)).join(" "))
    )
  )
  return machine
}
const seen = (machine: TestMachine): ReadonlyArray<string> => machine.log.map((line) => line.split(" ", 2).join(" "))

describe("privileged operations", () => {
  it.each([
    ["PVALIDATE", pvalidate(GPA.data, true)],
    ["RMPADJUST", rmpadjust(GPA.data, 2, 1, false)],
    ["RMPQUERY", rmpquery(GPA.data, 2)],
    ["RDMSR", rdmsr(MSR_GHCB)],
    ["WRMSR", wrmsr(MSR_GHCB, 1)],
    ["INVLPG", invlpg(GPA.data)],
    ["INVLPGB", invlpgb()],
    ["TLBSYNC", tlbsync()],
    ["MOV to CR3", writeCr3(0x1000)]
  ])("%s passes at CPL 0 and is #GP(0) at any other", (_, operation) => {
    expect(guest({}, operation).run()).toBe(EXIT.HLT)
    for (const cpl of [1, 2, 3]) {
      const machine = guest({ cpl }, operation)
      const before = machine.rmp.entry(PFN.data)
      expect(machine.run()).toBe(EXIT.SHUTDOWN)
      expect([machine.rmp.entry(PFN.data), machine.vmcb("ghcb_gpa")]).toEqual([before, [0, 0]])
    }
  })

  it("loads and stores pass at CPL 3, and fetches need Execute-User", () => {
    const machine = guest({ cpl: 3, vmpl: 2 }, write(GPA.data, 1, 1))
    machine.grant(PFN.data, 3)
    machine.grant(PFN.code, 4)
    expect(machine.run()).toBe(EXIT.HLT)
    machine.grant(PFN.code, 8)
    machine.putVmsa(PFN.vmsa, { cpl: 3, vmpl: 2 })
    expect(machine.run()).toBe(EXIT.NPF)
  })

  it.each([
    ["default", EXIT.SHUTDOWN, "#GP"],
    ["alternative", EXIT.SHUTDOWN, "#UD"]
  ] as const)("PVALIDATE above VMPL0 with U3 at its %s", (U3, _, vector) => {
    const machine = new TestMachine({ switches: { U3 } })
    machine.putVmsa(PFN.vmsa, { vmpl: 1 })
    machine.rmp.firmwareSet(PFN.code, { perms: [0xf, 0xf, 0, 0] })
    machine.install(function* () {
      try {
        yield pvalidate(GPA.data, true)
      } catch (exception) {
        machine.log.push((exception as { vector: string }).vector)
      }
    })
    expect([machine.run(), ...machine.log]).toEqual([EXIT.HLT, vector])
  })
})

describe("RMPQUERY", () => {
  it("gives mask and VMSA bit in RDX beside the target, and the size in RCX", () => {
    const machine = guest({}, rmpquery(GPA.data, 2), rmpquery(GPA.vmsa2, 3), rmpquery(GPA.data, 1))
    machine.rmp.firmwareSet(PFN.data, { perms: [0xf, 0, 5, 0] })
    machine.rmp.firmwareSet(PFN.vmsa2, { perms: [0xf, 0, 0, 1] })
    machine.npt.map(GFN.vmsa2, PFN.vmsa2)
    expect([machine.run(), ...machine.log.slice(0, 3)]).toEqual([EXIT.HLT, "0 0 0 502", "0 0 0 10103", "0 0 0 1"])
  })

  it.each([
    ["the own level: FAIL_PERMISSION", { vmpl: 2 }, rmpquery(GPA.data, 2), EXIT.HLT, "2 0 0 2"],
    ["no level: FAIL_INPUT", {}, rmpquery(GPA.data, 4), EXIT.HLT, "1 0 0 4"],
    ["a page that is not validated: #VC", {}, rmpquery(GPA.spare, 2), EXIT.SHUTDOWN, undefined],
    ["a page that is not its own: NPF", {}, rmpquery(GPA.shared, 2), EXIT.NPF, undefined]
  ])("of %s", (_, vmsa, operation, exit, log) => {
    const machine = guest(vmsa, operation)
    expect([machine.run(), machine.log[0]]).toEqual([exit, log])
  })
})

describe("SEV_STATUS", () => {
  it.each([
    [0, "7 0"],
    [SEV_FEATURES.ReflectVC, "17 0"],
    [SEV_FEATURES.SecureAVIC, "40007 0"],
    [vTOM | VmplSSS | SEV_FEATURES.IbpbOnEntry, "80040f 0"]
  ])("shows SEV, SEV-ES and feature bits %i two places up, and is read only", (features, expected) => {
    const machine = guest({ features }, rdmsr(MSR.SEV_STATUS), wrmsr(MSR.SEV_STATUS, 7))
    // All of the machine's data is private, and so is the read of code.
    machine.vmsa().setUint32(VMSA.virtual_tom + 4, 0xf_ffff, true)
    expect([machine.run(), seen(machine)]).toEqual([EXIT.SHUTDOWN, [expected]])
  })

  it("carries the upper feature bits into its upper half", () => {
    const machine = guest({}, rdmsr(MSR.SEV_STATUS))
    machine.vmsa().setUint32(VMSA.sev_features, (0xc000_0000 | SNPActive) >>> 0, true)
    machine.vmsa().setUint32(VMSA.sev_features + 4, 2, true)
    expect([machine.run(), seen(machine)[0]]).toEqual([EXIT.HLT, "7 b"])
  })
})

describe("VIRTUAL_TOM", () => {
  it("is #GP(0) without the feature, to read and to write", () => {
    for (const operation of [rdmsr(MSR.VIRTUAL_TOM), wrmsr(MSR.VIRTUAL_TOM, 0)])
      expect(guest({}, operation).run()).toBe(EXIT.SHUTDOWN)
  })

  it("keeps bits 51:21, in the VMSA too", () => {
    const machine = guest(
      { features: vTOM, virtualTom: 2 ** 40 },
      wrmsr(MSR.VIRTUAL_TOM, 0xffff_ffff, 0xffff_ffff),
      rdmsr(MSR.VIRTUAL_TOM)
    )
    expect([machine.run(), seen(machine)[1]]).toEqual([EXIT.HLT, "ffe00000 fffff"])
    expect(machine.saved("virtual_tom")).toEqual([0xffe0_0000, 0xf_ffff])
    // What software put into the VMSA itself reads as the MSR does.
    const put = guest({ features: vTOM, virtualTom: 2 ** 40 }, rdmsr(MSR.VIRTUAL_TOM))
    put.vmsa().setUint32(VMSA.virtual_tom, 0x0020_0fff, true)
    put.vmsa().setUint32(VMSA.virtual_tom + 4, 0xabc0_0100, true)
    expect([put.run(), seen(put)[0]]).toEqual([EXIT.HLT, "200000 100"])
  })

  /** The tests' pages lie between 1 MiB and 2 MiB: one boundary below them, one above. */
  const TOM = { below: 0, above: 0x20_0000 }
  it.each([
    ["below", read(GPA.data, 1), "shared"],
    ["below", readShared(GPA.data, 1), "shared"],
    ["above", read(GPA.data, 1), "private"],
    ["above", readShared(GPA.data, 1), "private"]
  ] as const)("%s the address makes a load (%#) of whatever C-bit %s", (boundary, operation, expected) => {
    const machine = guest({ features: vTOM, virtualTom: TOM[boundary] }, operation)
    machine.memory.replace(
      PFN.data,
      ASID,
      Uint8Array.from({ length: PAGE_SIZE }, () => 0x5a)
    )
    const cipher = machine.host.read8(PFN.data * PAGE_SIZE)
    expect([machine.run(), seen(machine)[0]]).toEqual([
      EXIT.HLT,
      `${(expected === "private" ? 0x5a : cipher).toString(16)} 0`
    ])
  })

  it("is the first address that is shared", () => {
    const store = (gpa: number) => {
      const machine = guest({ features: vTOM, virtualTom: 0x20_0000 }, write(gpa, 1, 7))
      machine.npt.map(0x1ff, 20)
      machine.npt.map(0x200, 21)
      machine.give(20, 0x1ff)
      return machine.run()
    }
    expect([store(0x1f_ffff), store(0x20_0000)]).toEqual([EXIT.HLT, EXIT.HLT])
    const machine = guest({ features: vTOM, virtualTom: 0x20_0000 }, writeShared(0x1f_fffe, 1, 7))
    machine.npt.map(0x1ff, 20)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("exit_info_1")[1] & NPF_INFO1_HI.ENC).toBe(NPF_INFO1_HI.ENC)
  })

  it("does not reach fetches and page tables, which stay private above it", () => {
    const machine = new PagedMachine({ features: vTOM, virtualTom: 0 })
    machine.mapLinear(LINEAR, pte(GPA.shared, FULL))
    machine.clearCbits(LINEAR, CODE_LINEAR)
    machine.install(script([write(LINEAR, 1, 0x42), hlt()]))
    expect([machine.run(), machine.host.read8(PFN.shared * PAGE_SIZE)]).toEqual([EXIT.HLT, 0x42])
  })

  it("leaves the C-bit of a fetch that faults at 1", () => {
    const machine = guest({ features: vTOM, virtualTom: 0 })
    machine.npt.unmap(GFN.code)
    expect(machine.run()).toBe(EXIT.NPF)
    expect(machine.vmcb("exit_info_1")[1]).toBe(NPF_INFO1_HI.FINAL | NPF_INFO1_HI.ENC)
  })

  it("drops the ASID's TLB entries when it is written", () => {
    const machine = new TestMachine({ tlb: 16 })
    machine.putVmsa(PFN.vmsa, { features: vTOM, virtualTom: 0x20_0000 })
    machine.memory.replace(
      PFN.data,
      ASID,
      Uint8Array.from({ length: PAGE_SIZE }, () => 0x5a)
    )
    machine.install(
      script([read(GPA.data, 1), wrmsr(MSR.VIRTUAL_TOM, 0), read(GPA.data, 1)], ({ lo }) => machine.log.push(`${lo}`))
    )
    const cipher = machine.host.read8(PFN.data * PAGE_SIZE)
    expect([machine.run(), machine.log[0], machine.log[2]]).toEqual([EXIT.HLT, `${0x5a}`, `${cipher}`])
  })
})

describe("supervisor shadow stacks with VmplSSS", () => {
  const { SS, RMP, P, W, U } = NPF_INFO1
  const { FINAL, ENC, VMPL, SSS } = NPF_INFO1_HI

  it.each([
    ["a load of a page with SSS", 0x11, readShadowStack(GPA.data), null],
    ["a store to a page with SSS", 0x13, writeShadowStack(GPA.data, 5), null],
    ["a load of a page without", 0xf, readShadowStack(GPA.data), [P | U | SS, 0]],
    ["a store to a page without", 0xf, writeShadowStack(GPA.data, 5), [P | W | U | SS, 0]],
    ["a plain store that W lacks, on a page with SSS", 0x11, write(GPA.data, 1, 5), [P | W | U, SSS]],
    ["a plain load of a page without", 0xf, read(GPA.data, 1), null]
  ] as const)("%s", (_, mask, operation, fault) => {
    const machine = guest({ vmpl: 2, features: VmplSSS }, operation)
    machine.grant(PFN.data, mask)
    expect(machine.run()).toBe(fault === null ? EXIT.HLT : EXIT.NPF)
    if (fault !== null)
      expect(machine.vmcb("exit_info_1")).toEqual([(RMP | fault[0]) >>> 0, FINAL | ENC | VMPL | fault[1]])
  })

  it("move 8 bytes", () => {
    const machine = guest(
      { features: VmplSSS },
      writeShadowStack(GPA.data + 8, 0x1122, 0x3344),
      readShadowStack(GPA.data + 8)
    )
    machine.rmp.firmwareSet(PFN.data, { perms: [0x1f, 0, 0, 0] })
    expect([machine.run(), seen(machine)[1]]).toEqual([EXIT.HLT, "1122 3344"])
  })

  it("need no SSS bit while the feature is off", () => {
    const machine = guest({ vmpl: 2 }, writeShadowStack(GPA.data, 5))
    machine.grant(PFN.data, 3)
    expect(machine.run()).toBe(EXIT.HLT)
  })

  it("in shared memory are as any other while the feature is off", () => {
    const machine = new PagedMachine()
    machine.mapLinear(LINEAR, pte(GPA.shared, 0x41, 0))
    machine.install(script([readShadowStack(LINEAR), vmgexit()]))
    expect(machine.run()).toBe(EXIT.VMGEXIT)
  })

  it("need the SSS bit through the TLB too: a plain load's entry does not do", () => {
    const machine = new TestMachine({ tlb: 16 })
    machine.putVmsa(PFN.vmsa, { features: VmplSSS, vmpl: 2 })
    machine.grant(PFN.code, 0xf)
    machine.grant(PFN.data, 3)
    machine.install(script([read(GPA.data, 1), readShadowStack(GPA.data), hlt()]))
    expect(machine.run()).toBe(EXIT.NPF)
    machine.grant(PFN.data, 0x13)
    expect(machine.run()).toBe(EXIT.HLT)
  })

  it("in shared memory are #PF with RSVD", () => {
    const machine = new PagedMachine({ features: VmplSSS })
    machine.mapLinear(LINEAR, pte(GPA.shared, 0x41, 0))
    machine.install(script([readShadowStack(LINEAR), vmgexit()]))
    expect([machine.run(), machine.cpu.pageFaultCode]).toEqual([EXIT.SHUTDOWN, PF.P | PF.RSVD | PF.SS])
  })
})
