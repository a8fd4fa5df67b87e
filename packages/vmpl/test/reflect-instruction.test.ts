import { EXIT, encodeIoio, INTERCEPT, SEV_FEATURES, setU64, VMSA, type VmsaField } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  guestVmload,
  hlt,
  monitor,
  mwait,
  type Operation,
  type Program,
  portIn,
  portIns,
  portOut,
  portOuts,
  rdmsr,
  rdpmc,
  rdtsc,
  rdtscp,
  read,
  readCr,
  readDr,
  vmmcall,
  wbinvd,
  writeCr,
  writeDr,
  wrmsr,
  xsetbv
} from "../src/index.ts"
import { ENTRY, GFN, GPA, PFN, TestMachine } from "./machine.ts"

const INTERCEPTED = [
  INTERCEPT.RDTSC,
  INTERCEPT.RDTSCP,
  INTERCEPT.RDPMC,
  INTERCEPT.WBINVD,
  INTERCEPT.VMMCALL,
  INTERCEPT.MONITOR,
  INTERCEPT.MWAIT,
  INTERCEPT.XSETBV,
  INTERCEPT.MSR_PROT,
  INTERCEPT.VMLOAD,
  INTERCEPT.CR4_READ,
  INTERCEPT.CR4_WRITE,
  INTERCEPT.DR7_READ,
  INTERCEPT.DR7_WRITE
]
const NEXT = ENTRY + 1
/** An MSR that no permission map covers. */
const FAR_MSR = 0x4000_0000

/** VMPL2 with ReflectVC, stopped at the operation. */
const reflected = (operation: Operation): TestMachine => {
  const machine = new TestMachine()
  for (const bit of INTERCEPTED) machine.intercept(bit)
  machine.putVmsa(PFN.vmsa2, { vmpl: 2, features: SEV_FEATURES.ReflectVC })
  machine.npt.map(GFN.vmsa2, PFN.vmsa2)
  machine.grant(PFN.code, 0xf)
  machine.install(function* (): Program {
    const { lo, hi, ecx, edx } = yield operation
    machine.log.push([lo, hi, ecx, edx].map((value) => value.toString(16)).join(" "))
    yield hlt()
  })
  machine.select(PFN.vmsa2)
  expect(machine.run()).toBe(EXIT.VC)
  return machine
}
const saved = (machine: TestMachine, field: VmsaField) => machine.saved(field, PFN.vmsa2)
/** What the higher level does: registers, and RIP behind the instruction. */
const emulate = (machine: TestMachine, registers: { readonly [field in VmsaField]?: readonly [number, number] }) => {
  const view = machine.vmsa(PFN.vmsa2)
  for (const [field, [lo, hi]] of Object.entries(registers)) {
    view.setUint32(VMSA[field as VmsaField], lo, true)
    view.setUint32(VMSA[field as VmsaField] + 4, hi, true)
  }
  setU64(view, VMSA.rip, NEXT)
  expect(machine.run()).toBe(EXIT.HLT)
  return machine.log
}

const ioio = (port: number, size: number, isIn: boolean, string: boolean) =>
  encodeIoio({ port, size, in: isIn, string, rep: string })

describe("ReflectVC of an instruction", () => {
  it.each<readonly [string, Operation, number, number, number, { readonly [field in VmsaField]?: number }]>([
    ["RDTSC", rdtsc(), EXIT.RDTSC, 0, 0, {}],
    ["RDPMC", rdpmc(3), EXIT.RDPMC, 0, 0, { rcx: 3 }],
    ["WBINVD", wbinvd(), EXIT.WBINVD, 0, 0, {}],
    ["VMMCALL", vmmcall(), EXIT.VMMCALL, 0, 0, {}],
    ["MONITOR", monitor(GPA.data), EXIT.MONITOR, 0, 0, { rax: GPA.data, rcx: 0, rdx: 0 }],
    ["MWAIT", mwait(0x10, 1), EXIT.MWAIT, 0, 0, { rax: 0x10, rcx: 1 }],
    ["XSETBV", xsetbv(7), EXIT.XSETBV, 0, 0, { rcx: 0, rax: 7, rdx: 0 }],
    ["RDMSR", rdmsr(FAR_MSR), EXIT.MSR, 0, 0, { rcx: FAR_MSR }],
    ["WRMSR", wrmsr(FAR_MSR, 5, 6), EXIT.MSR, 1, 0, { rcx: FAR_MSR, rax: 5, rdx: 6 }],
    ["VMLOAD", guestVmload(GPA.data), EXIT.VMLOAD, 0, 0, { rax: GPA.data }],
    ["MOV from CR4", readCr(4), EXIT.READ_CR4, 0, 0, {}],
    ["MOV to CR4", writeCr(4, 0x20), EXIT.WRITE_CR4, 0, 0, { rax: 0x20 }],
    ["MOV to DR7", writeDr(7, 0x400), EXIT.WRITE_DR7, 0, 0, { rax: 0x400 }],
    ["IN", portIn(0x60, 1), EXIT.IOIO, ioio(0x60, 1, true, false), NEXT, {}],
    ["OUT", portOut(0x60, 2, 0x1234), EXIT.IOIO, ioio(0x60, 2, false, false), NEXT, { rax: 0x1234 }],
    ["INS", portIns(0x60, 4, GPA.data, 9), EXIT.IOIO, ioio(0x60, 4, true, true), NEXT, { rdi: GPA.data, rcx: 9 }],
    ["OUTS", portOuts(0x60, 4, GPA.data, 9), EXIT.IOIO, ioio(0x60, 4, false, true), NEXT, { rsi: GPA.data, rcx: 9 }]
  ])(
    "%s: code, information and operands are in the VMSA, the VMCB has VMEXIT_VC",
    (_, operation, code, one, two, registers) => {
      const machine = reflected(operation)
      const fields = (["guest_exit_code", "guest_exit_info_1", "guest_exit_info_2"] as const).map(
        (f) => saved(machine, f)[0]
      )
      expect(fields).toEqual([code, one, two])
      expect([saved(machine, "rip")[0], saved(machine, "guest_nrip")[0]]).toEqual([ENTRY, NEXT])
      expect([machine.vmcb("exit_info_1"), machine.vmcb("exit_info_2")]).toEqual([
        [0, 0],
        [0, 0]
      ])
      for (const field of ["rax", "rcx", "rdx", "rsi", "rdi"] as const)
        expect([field, saved(machine, field)]).toEqual([field, [registers[field] ?? 0, 0]])
    }
  )

  const REGISTERS = { rax: [0xaabb_ccdd, 0x1111], rbx: [2, 0], rcx: [0x33, 0], rdx: [0x4444_5555, 0] } as const

  it.each([
    ["RDMSR answers in EDX:EAX", rdmsr(FAR_MSR), "aabbccdd 44445555"],
    ["RDTSC answers in EDX:EAX", rdtsc(), "aabbccdd 44445555"],
    ["RDTSCP answers in EDX:EAX and ECX", rdtscp(), "aabbccdd 44445555 33"],
    ["RDPMC answers in EDX:EAX", rdpmc(0), "aabbccdd 44445555"],
    ["IN of 4 answers in EAX", portIn(0x60, 4), "aabbccdd 0"],
    ["IN of 2 answers in AX", portIn(0x60, 2), "ccdd 0"],
    ["IN of 1 answers in AL", portIn(0x60, 1), "dd 0"],
    ["a load of 2 answers in AX", read(GPA.spare, 2), "ccdd 0"],
    ["VMMCALL answers in RAX", vmmcall(), "aabbccdd 1111"],
    ["MOV from DR7 answers in RAX", readDr(7), "aabbccdd 1111"],
    ["MOV from CR4 answers in RAX", readCr(4), "aabbccdd 1111"]
  ])("%s, once software has emulated it", (_, operation, answer) => {
    const machine = reflected(operation)
    expect(emulate(machine, REGISTERS)[0]!.startsWith(answer)).toBe(true)
    expect(saved(machine, "rip")[0]).toBe(ENTRY + 2)
  })

  it("that is entered again as it was is reflected again", () => {
    const machine = reflected(rdtsc())
    expect(machine.run()).toBe(EXIT.VC)
    expect(emulate(machine, REGISTERS)).toHaveLength(1)
  })
})
