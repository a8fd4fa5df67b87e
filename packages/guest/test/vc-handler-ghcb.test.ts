// @ghcb 0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b, 0x80000001, 0x80000002, 0x8000ffff
import { CPUID_FUNCTION, EXIT, GHCB, terminationLo, VMSA } from "@vmpl-lab/sev-es"
import {
  cpuid,
  GuestException,
  invd,
  monitor,
  mwait,
  OP,
  Operation,
  OperationResult,
  portIn,
  portIns,
  portOut,
  portOuts,
  rdmsr,
  rdpmc,
  rdtsc,
  rdtscp,
  read,
  readDr,
  readShared,
  vmmcall,
  wbinvd,
  write,
  writeDr,
  writeShared,
  wrmsr,
  xchg8
} from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import { Ghcb, makeVcHandler, type VcContext } from "../src/index.ts"
import { type FieldName, GHCB_GPA, type Half, reply, suppliedFields } from "./GhcbPage.ts"

type Answers = { readonly [name in FieldName]?: Half }
const A: Half = [0x1111_1111, 0x2222_2222]
const B: Half = [0x3333_3333, 0x4444_4444]
const C: Half = [0x5555_5555, 0x6666_6666]
const D: Half = [0x7777_7777, 0x8888_8888]
const ALL: Answers = { rax: A, rbx: B, rcx: C, rdx: D }

const serve = (
  code: number,
  operation: Operation,
  {
    answers = ALL,
    context = {},
    prepare = () => {}
  }: { answers?: Answers; context?: Omit<VcContext, "ghcb">; prepare?: (machine: ScriptedMachine) => void } = {}
) => {
  const machine = new ScriptedMachine()
  prepare(machine)
  const events: Array<ReturnType<typeof suppliedFields>> = []
  machine.onVmgexit = (at) => {
    if ((at.msr[0] & 0xfff) !== 0) return
    events.push(suppliedFields(at))
    reply(at, answers)
  }
  const result = new OperationResult()
  const full: VcContext = { ghcb: new Ghcb(GHCB_GPA), ...context }
  let outcome: unknown
  try {
    outcome = machine.run(makeVcHandler(full)(code, operation, result))
  } catch (exception) {
    if (!(exception instanceof GuestException)) throw exception
    outcome = exception.vector
  }
  const { lo, hi, ecx, edx } = result
  return { machine, events, outcome, result: [lo, hi, ecx, edx], context: full }
}

const fieldsOf = (code: number, info1: Half, info2: Half, more: Answers) => ({
  sw_exit_code: [code, 0],
  sw_exit_info_1: info1,
  sw_exit_info_2: info2,
  ...more
})
const NONE: Half = [0, 0]

describe("the #VC handler with a GHCB", () => {
  it.each([
    ["RDMSR", EXIT.MSR, rdmsr(0x1b), fieldsOf(0x7c, NONE, NONE, { rcx: [0x1b, 0] }), [A[0], D[0], 0, 0]],
    [
      "WRMSR",
      EXIT.MSR,
      wrmsr(0x830, 5, 6),
      fieldsOf(0x7c, [1, 0], NONE, { rcx: [0x830, 0], rax: [5, 0], rdx: [6, 0] }),
      null
    ],
    ["RDTSC", EXIT.RDTSC, rdtsc(), fieldsOf(0x6e, NONE, NONE, {}), [A[0], D[0], 0, 0]],
    ["RDTSCP", EXIT.RDTSCP, rdtscp(), fieldsOf(0x87, NONE, NONE, {}), [A[0], D[0], C[0], 0]],
    ["RDPMC", EXIT.RDPMC, rdpmc(2), fieldsOf(0x6f, NONE, NONE, { rcx: [2, 0] }), [A[0], D[0], 0, 0]],
    ["INVD", EXIT.INVD, invd(), fieldsOf(0x76, NONE, NONE, {}), null],
    ["WBINVD", EXIT.WBINVD, wbinvd(), fieldsOf(0x89, NONE, NONE, {}), null],
    [
      "MONITOR",
      EXIT.MONITOR,
      monitor(0x1_0000_0040),
      fieldsOf(0x8a, NONE, NONE, { rax: [0x40, 1], rcx: NONE, rdx: NONE }),
      null
    ],
    ["MWAIT", EXIT.MWAIT, mwait(0x10, 1), fieldsOf(0x8b, NONE, NONE, { rax: [0x10, 0], rcx: [1, 0] }), null],
    [
      "CPUID",
      EXIT.CPUID,
      cpuid(7, 1),
      fieldsOf(0x72, NONE, NONE, { rax: [7, 0], rcx: [1, 0] }),
      [A[0], B[0], C[0], D[0]]
    ],
    [
      "CPUID 0xd",
      EXIT.CPUID,
      cpuid(0xd, 1),
      fieldsOf(0x72, NONE, NONE, { rax: [0xd, 0], rcx: [1, 0], xcr0: [1, 0] }),
      [A[0], B[0], C[0], D[0]]
    ],
    ["IN", EXIT.IOIO, portIn(0x3f8, 1), fieldsOf(0x7b, [0x03f8_0211, 0], NONE, {}), [0x11, 0, 0, 0]],
    ["OUT", EXIT.IOIO, portOut(0x3f8, 2, 0x12345), fieldsOf(0x7b, [0x03f8_0220, 0], NONE, { rax: [0x2345, 0] }), null],
    [
      "INS",
      EXIT.IOIO,
      portIns(0x3f8, 1, 0x5000, 3),
      fieldsOf(0x7b, [0x03f8_021d, 0], [3, 0], { sw_scratch: [GHCB_GPA + 0x800, 0] }),
      null
    ],
    [
      "OUTS",
      EXIT.IOIO,
      portOuts(0x3f8, 1, 0x5000, 3),
      fieldsOf(0x7b, [0x03f8_0e1c, 0], [3, 0], { sw_scratch: [GHCB_GPA + 0x800, 0] }),
      null
    ],
    [
      "MMIO read",
      EXIT.NPF,
      readShared(0xfec0_0000, 4),
      fieldsOf(0x8000_0001, [0xfec0_0000, 0], [4, 0], { sw_scratch: [GHCB_GPA + 0x800, 0] }),
      [0, 0, 0, 0]
    ],
    [
      "MMIO write",
      EXIT.NPF,
      writeShared(0xfec0_0000, 1, 4),
      fieldsOf(0x8000_0002, [0xfec0_0000, 0], [1, 0], { sw_scratch: [GHCB_GPA + 0x800, 0] }),
      null
    ]
  ] as const)("sends %s and leaves its outcome", (_, code, operation, event, outcome) => {
    const served = serve(code, operation)
    expect(served.outcome).toBeUndefined()
    expect(served.events).toEqual([event])
    if (outcome !== null) expect(served.result).toEqual(outcome)
  })

  it("takes XCR0 from the register once the system has enabled it", () => {
    const prepare = (machine: ScriptedMachine): void => {
      machine.registers.set(VMSA.cr4, [1 << 18, 0])
      machine.registers.set(VMSA.xcr0, [7, 1])
    }
    expect(serve(EXIT.CPUID, cpuid(0xd), { prepare }).events[0]).toMatchObject({ xcr0: [7, 1] })
  })

  it("sends the registers and the CPL of a hypercall, and puts the answer into RAX", () => {
    const prepare = (machine: ScriptedMachine): void => {
      const { rax, rbx, rcx, rdx, rsi } = VMSA
      for (const [register, value] of [
        [rax, D],
        [rbx, C],
        [rcx, B],
        [rdx, A],
        [rsi, D],
        [VMSA.cpl, [0xff07, 0]]
      ] as const) {
        machine.registers.set(register, value)
      }
    }
    const { events, machine, result } = serve(EXIT.VMMCALL, vmmcall(), { prepare })
    expect(events).toEqual([fieldsOf(0x81, NONE, NONE, { cpl: [3, 0], rax: D, rbx: C, rcx: B, rdx: A, rsi: D })])
    expect(machine.registers.get(VMSA.rax)).toEqual(A)
    expect(result.slice(0, 2)).toEqual(A)
  })

  it("ends the guest when the hypervisor refuses, and raises what it asks for", () => {
    for (const operation of [rdmsr(0x10), wrmsr(0x10, 1)]) {
      const refused = serve(EXIT.MSR, operation, { answers: { sw_exit_info_1: [2, 0], sw_exit_info_2: [5, 0] } })
      expect([refused.outcome, refused.machine.msr]).toEqual(["halted", [terminationLo(0, 0), 0]])
      const fault = serve(EXIT.MSR, operation, {
        answers: { sw_exit_info_1: [1, 0], sw_exit_info_2: [0x8000_0b0d, 0] }
      })
      expect(fault.outcome).toBe("#GP")
    }
  })

  it("never validates a page again: the guest ends", () => {
    const { outcome, machine, events } = serve(EXIT.PAGE_NOT_VALIDATED, read(0x1000, 8))
    expect([outcome, machine.msr, events]).toEqual(["halted", [terminationLo(1, 2), 0], []])
  })

  it.each([
    ["an exit that it does not know", EXIT.RDPRU, rdtsc(), [0x8e, 0]],
    ["an exit with a negative code", EXIT.BUSY, rdtsc(), [0xffff_fffe, 0xffff_ffff]],
    ["MSR for another instruction", EXIT.MSR, rdtsc(), [0x7c, 0]],
    ["IOIO for another instruction", EXIT.IOIO, rdtsc(), [0x7b, 0]],
    ["a nested fault of an exchange", EXIT.NPF, xchg8(0xfec0_0000, 1), [0x400, 0]]
  ] as const)("reports %s as unsupported and raises #GP, whatever the answer", (_, code, operation, info1) => {
    for (const answers of [{}, { sw_exit_info_1: [2, 0], sw_exit_info_2: [6, 0] }] as const) {
      const { outcome, events } = serve(code, operation, { answers })
      expect(outcome).toBe("#GP")
      expect(events).toEqual([fieldsOf(0x8000_ffff, info1, NONE, {})])
    }
  })

  it("shows the hypervisor nothing of an encrypted page, nor of an access of another size", () => {
    const odd = new Operation(OP.WRITE, 0xfec0_0000, 1, 0, 3, false)
    for (const operation of [read(0xfec0_0000, 4), write(0xfec0_0000, 4, 0x5ec2e7), odd]) {
      const { outcome, events } = serve(EXIT.NPF, operation)
      expect([outcome, events]).toEqual(["#GP", []])
    }
  })
})

describe("DR7", () => {
  it("is read from what was last written, without an exit", () => {
    const first = serve(EXIT.READ_DR7, readDr(7))
    expect([first.result.slice(0, 2), first.events]).toEqual([[0x400, 0], []])
    const written = serve(EXIT.WRITE_DR7, writeDr(7, 0xffff_ffff))
    expect(written.events).toEqual([fieldsOf(0x37, NONE, NONE, { rax: [0xffff_27ff, 0] })])
    expect(written.context.dr7).toEqual({ lo: 0xffff_27ff, hi: 0 })
    const { dr7 } = written.context
    expect(serve(EXIT.READ_DR7, readDr(7), { context: { dr7: dr7! } }).result[0]).toBe(0xffff_27ff)
    expect(serve(EXIT.WRITE_DR7, writeDr(7, 0)).events).toEqual([fieldsOf(0x37, NONE, NONE, { rax: [0x400, 0] })])
  })

  it("is the hypervisor's answer when the guest asks for it", () => {
    const { result, events } = serve(EXIT.READ_DR7, readDr(7), { context: { asksForDr7: true } })
    expect([result.slice(0, 2), events]).toEqual([A, [fieldsOf(0x27, NONE, NONE, {})]])
  })

  it("has no upper half, is not kept when refused, and is nobody's business under DebugSwap", () => {
    const upper = serve(EXIT.WRITE_DR7, writeDr(7, 0x400, 1))
    expect([upper.outcome, upper.events]).toEqual(["#GP", []])
    const refused = serve(EXIT.WRITE_DR7, writeDr(7, 0x455), {
      answers: { sw_exit_info_1: [2, 0], sw_exit_info_2: [4, 0] }
    })
    expect([refused.outcome, refused.context.dr7]).toEqual(["halted", undefined])
    for (const [code, operation] of [
      [EXIT.READ_DR7, readDr(7)],
      [EXIT.WRITE_DR7, writeDr(7, 0x455)]
    ] as const) {
      const swapped = serve(code, operation, { context: { debugSwap: true } })
      expect([swapped.outcome, swapped.events]).toEqual(["#GP", [fieldsOf(0x8000_ffff, [code, 0], NONE, {})]])
    }
  })
})

describe("CPUID by the page", () => {
  const PAGE = 0x7_0000
  type Row = readonly [leaf: number, subleaf: number, xcr0: number, xss: number, registers: ReadonlyArray<number>]
  const ROWS: ReadonlyArray<Row> = [
    [0, 0, 0, 0, [0x10, 1, 2, 3]],
    [1, 0, 0, 0, [0x11, 0xff12_3456, 0x13, 0xffff_ffff]],
    [7, 0, 0, 0, [0x71, 0x72, 0x10, 0x74]],
    [0xb, 1, 0, 0, [0xb1, 0xb2, 0xb3, 0xb4]],
    [0xd, 0, 7, 0, [0xbad, 0xbad, 0xbad, 0xbad]],
    [0xd, 1, 1, 8, [0xbad, 0xbad, 0xbad, 0xbad]],
    [0xd, 0, 3, 0, [7, 0x240, 0x340, 0]],
    [0xd, 1, 1, 0, [0xf, 0x240, 0x1800, 0]],
    [0xd, 2, 0, 0, [0x100, 0x240, 0, 0]],
    [0xd, 11, 0, 0, [0x10, 0, 1, 0]],
    [0x8000_0000, 0, 0, 0, [0x8000_0020, 0, 0, 0]],
    [0x8000_001e, 0, 0, 0, [0xee, 0x1234_56e2, 0x1234_56e3, 0xe4]],
    [0x8000_001f, 0, 0, 0, [0x1b, 0x33, 0, 0]]
  ]
  const table =
    (count = ROWS.length, rows = ROWS, cr4 = 0) =>
    (machine: ScriptedMachine): void => {
      machine.set(PAGE, 4, count)
      rows.forEach(([leaf, subleaf, xcr0, xss, registers], i) => {
        const at = PAGE + 0x10 + 48 * i
        machine.set(at, 4, leaf)
        machine.set(at + CPUID_FUNCTION.ecx_in, 4, subleaf)
        machine.set(at + CPUID_FUNCTION.xcr0_in, 8, xcr0)
        machine.set(at + CPUID_FUNCTION.xss_in, 8, xss)
        registers.forEach((value, j) => {
          machine.set(at + 0x18 + 4 * j, 4, value)
        })
      })
      machine.registers.set(VMSA.cr4, [cr4, 0])
      machine.registers.set(VMSA.xcr0, [7, 0])
      machine.registers.set(VMSA.xss, [0x800, 0])
    }
  const ask = (leaf: number, subleaf = 0, prepare = table(), answers: Answers = ALL) =>
    serve(EXIT.CPUID, cpuid(leaf, subleaf), { prepare, answers, context: { cpuidPage: PAGE } })
  const OSXSAVE = 1 << 18
  const PKE = 1 << 22

  it.each([
    ["a leaf that is there", 0x8000_001f, 0, [0x1b, 0x33, 0, 0]],
    ["the same with any subleaf, as the leaf has none", 0x8000_001f, 9, [0x1b, 0x33, 0, 0]],
    ["a subleaf of the XSAVE area", 0xd, 2, [0x100, 0x240, 0, 0]],
    ["a leaf within the range that is not there", 2, 0, [0, 0, 0, 0]],
    ["a subleaf that is not there", 7, 1, [0, 0, 0, 0]],
    ["a leaf beyond the range", 0x1234, 0, [0, 0, 0, 0]],
    ["an extended leaf beyond the range", 0x8000_0021, 0, [0, 0, 0, 0]],
    ["a hypervisor's leaf", 0x4000_0000, 0, [0, 0, 0, 0]]
  ] as const)("answers %s without the hypervisor", (_, leaf, subleaf, registers) => {
    const { result, events } = ask(leaf, subleaf)
    expect([result, events]).toEqual([registers, []])
  })

  it("takes from the hypervisor just what differs between the vCPUs", () => {
    const one = ask(1)
    expect(one.result).toEqual([0x11, 0x3312_3456, 0x13, 0xffff_ffff])
    expect(ask(1, 0, table(), { ...ALL, rdx: [0, 0] }).result[3]).toBe(0xffff_fdff)
    expect(one.events).toEqual([fieldsOf(0x72, NONE, NONE, { rax: [1, 0], rcx: NONE })])
    expect(ask(1, 0, table(ROWS.length, ROWS, OSXSAVE)).result[2]).toBe(0x0800_0013)
    const topology = ask(0xb, 1)
    expect(topology.result).toEqual([0xb1, 0xb2, 0xb3, D[0]])
    expect(topology.events).toEqual([fieldsOf(0x72, NONE, NONE, { rax: [0xb, 0], rcx: NONE })])
    expect(ask(0x8000_001e).result).toEqual([A[0], 0x1234_5633, 0x1234_5655, 0xe4])
    // A leaf within the range that the page leaves out still has its vCPU's part.
    expect(ask(0xb, 5).result).toEqual([0, 0, 0, D[0]])
  })

  it("shows OSPKE as CR4 has it", () => {
    expect(ask(7).result[2]).toBe(0)
    expect(ask(7, 0, table(ROWS.length, ROWS, PKE)).result[2]).toBe(0x10)
  })

  it("computes the XSAVE sizes from the components that are enabled", () => {
    expect(ask(0xd).result).toEqual([7, 0x240, 0x340, 0])
    expect(ask(0xd, 0, table(ROWS.length, ROWS, OSXSAVE)).result).toEqual([7, 0x340, 0x340, 0])
    expect(ask(0xd, 1, table(ROWS.length, ROWS, OSXSAVE)).result).toEqual([0xf, 0x350, 0x1800, 0])
  })

  it.each([
    ["no functions at all", 0, ROWS, terminationLo(1, 4)],
    ["more than 64", 65, ROWS, terminationLo(1, 4)],
    [
      "no subleaf for an enabled component",
      ROWS.length - 2,
      ROWS.filter(([leaf, subleaf]) => leaf !== 0xd || subleaf < 2),
      terminationLo(1, 4)
    ],
    [
      "no compaction",
      ROWS.length,
      ROWS.map((row) => (row[4][0] === 0xf ? ([0xd, 1, 1, 0, [5, 0, 0, 0]] as const) : row)),
      terminationLo(1, 4)
    ]
  ] as const)("ends the guest when the page has %s", (_, count, rows, request) => {
    const { outcome, machine } = ask(0xd, 1, table(count, rows, OSXSAVE))
    expect([outcome, machine.msr]).toEqual(["halted", [request, 0]])
  })

  it("ends the guest when the hypervisor does not tell its part", () => {
    const { outcome, machine } = ask(1, 0, table(), { sw_exit_info_1: [2, 0], sw_exit_info_2: [5, 0] })
    expect([outcome, machine.msr]).toEqual(["halted", [terminationLo(1, 5), 0]])
    expect(machine.get(GHCB_GPA + GHCB.sw_exit_code, 4, "shared")[0]).toBe(0x72)
  })
})
