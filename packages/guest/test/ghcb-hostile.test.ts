// @ghcb 0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b
// @ghcb 0x80000001, 0x80000002, 0x80000004, 0x80000005, 0x80000010, 0x80000011, 0x80000012, 0x80000013, 0x80000014
// @ghcb 0x80000015, 0x80000017, 0x80000018, 0x8000001a, 0x8000001b, 0x8000001c, 0x8000001d, 0x8000fffd, 0x8000ffff
// @ghcb msr 0x002, msr 0x004, msr 0x006, msr 0x010, msr 0x012, msr 0x014, msr 0x016, msr 0x080
import { EXIT, GHCB, PSC_OP, validByte, validMask } from "@vmpl-lab/sev-es"
import {
  cpuid,
  GuestException,
  mwait,
  type Operation,
  OperationResult,
  type Program,
  portIn,
  portIns,
  portOut,
  portOuts,
  rdmsr,
  rdtsc,
  rdtscp,
  readDr,
  readShared,
  vmmcall,
  writeDr,
  writeShared,
  wrmsr
} from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import * as guest from "../src/index.ts"
import { GHCB_GPA, type Half } from "./GhcbPage.ts"
import { SENDERS } from "./senders.ts"

/** What the hypervisor leaves behind at one exit. */
interface Answer {
  readonly info1: Half
  readonly info2: Half
  readonly bitmap: Uint8Array
  readonly save: Uint8Array
  readonly buffer: Uint8Array
  readonly msr: Half
}

const word = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.constantFrom(0, 1, 2, 3, 0x1000, 0xffff_ffff))
const half = fc.tuple(word, word)
const event = fc.constantFrom(0x8000_0b0d, 0x8000_030d, 0x8000_0306, 0x8000_0b0e, 0x0000_0b0d, 0x8000_020d)
const anyAnswer: fc.Arbitrary<Answer> = fc.record({
  info1: fc.tuple(fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, fc.nat(4), word), word),
  info2: fc.oneof(
    half,
    fc.constant([0, 0] as Half),
    fc.tuple(fc.oneof(fc.nat(8), fc.constant(0xc000)), fc.constant(0)),
    fc.tuple(event, word),
    fc.tuple(word, fc.nat(2))
  ),
  bitmap: fc.oneof(fc.constant(new Uint8Array(16).fill(0xff)), fc.uint8Array({ minLength: 16, maxLength: 16 })),
  save: fc.oneof(
    fc.uint8Array({ minLength: 64, maxLength: 64 }),
    fc.constant(new Uint8Array(64)),
    fc.nat(5).map((n) => new Uint8Array(64).map((_, i) => (i % 8 === 0 ? n : 0)))
  ),
  buffer: fc.oneof(
    fc.uint8Array({ minLength: 32, maxLength: 32 }),
    fc.constantFrom(0, 1, 2, 3, 3, 3, 4).map((n) => new Uint8Array(32).map((_, i) => (i === 0 ? n : i === 2 ? 2 : 0)))
  ),
  msr: fc.tuple(
    fc.oneof(
      word,
      fc.nat(0x1ff),
      fc.nat(0x7f).map((n) => (0x4000_0000 + n) >>> 0)
    ),
    word
  )
})

/** Now and then one that asks for an exception. */
const answer: fc.Arbitrary<Answer> = fc.oneof(
  { weight: 6, arbitrary: anyAnswer },
  {
    weight: 1,
    arbitrary: fc
      .tuple(anyAnswer, event, word)
      .map(([any, lo, hi]) => ({ ...any, info1: [1, 0] as Half, info2: [lo, hi] as Half }))
  }
)

/** Registers of the save area that an event can return. */
const RETURNED = ["rax", "rbx", "rcx", "rdx", "dr7", "xcr0", "xss"] as const

/** Most exits of one run: a hypervisor that lets the guest go in circles is stopped there, as one that never resumes. */
const EXITS = 8

/** Puts the bytes of an answer into the page, or into the MSR where the MSR protocol is spoken. */
const give = (at: ScriptedMachine, { info1, info2, bitmap, save, buffer, msr }: Answer): void => {
  if ((at.msr[0] & 0xfff) !== 0) {
    at.msr = msr
    return
  }
  at.set(GHCB_GPA + GHCB.sw_exit_info_1, 8, ...info1, "shared")
  at.set(GHCB_GPA + GHCB.sw_exit_info_2, 8, ...info2, "shared")
  bitmap.forEach((byte, i) => {
    at.set(GHCB_GPA + GHCB.valid_bitmap + i, 1, byte, 0, "shared")
  })
  RETURNED.forEach((name, i) => {
    save.slice(8 * i, 8 * i + 8).forEach((byte, j) => {
      at.set(GHCB_GPA + GHCB[name] + j, 1, byte, 0, "shared")
    })
  })
  buffer.forEach((byte, i) => {
    at.set(GHCB_GPA + GHCB.shared_buffer + i, 1, byte, 0, "shared")
    at.set(0xb000 + i, 1, byte, 0, "shared")
  })
}

interface Hostile {
  readonly machine: ScriptedMachine
  /** What the program came to. */
  readonly outcome: unknown
  readonly last: Answer | undefined
}

/** Runs a program against answers, the last of which repeats. Nothing but GuestException may come out. */
const withstand = (
  answers: ReadonlyArray<Answer>,
  program: (machine: ScriptedMachine) => Program<unknown>
): Hostile => {
  const machine = new ScriptedMachine()
  let last: Answer | undefined
  machine.onVmgexit = (at) => {
    if (at.exits.length > EXITS) at.halt()
    last = answers[Math.min(at.exits.length, answers.length) - 1]!
    machine.loads.length = 0
    give(at, last)
  }
  try {
    return { machine, outcome: machine.run(program(machine)), last }
  } catch (exception) {
    if (!(exception instanceof GuestException)) throw exception
    return { machine, outcome: exception, last }
  }
}

/** A register of the save area that was looked at although the hypervisor had not supplied it. */
const unsuppliedLoads = ({ machine, last }: Hostile): ReadonlyArray<number> =>
  machine.loads
    .map(({ address }) => address - GHCB_GPA)
    .filter((offset) => offset >= 0 && offset < GHCB.sw_exit_code)
    .filter((offset) => (last!.bitmap[validByte(offset) - GHCB.valid_bitmap]! & validMask(offset)) === 0)

const isRaised = (value: unknown): value is GuestException => value instanceof GuestException

/** What every run of the page protocol has to keep. */
const check = (run: Hostile): void => {
  const { outcome, last } = run
  expect(unsuppliedLoads(run)).toEqual([])
  if (outcome === "halted") return
  const { info1, info2 } = last!
  if (isRaised(outcome)) {
    expect(["#GP", "#UD"]).toContain(outcome.vector)
    expect(info1[0]).toBe(1)
    expect([info2[0] & 0xff, (info2[0] & 0x700) >>> 8, info2[0] >>> 31]).toEqual([
      outcome.vector === "#GP" ? 13 : 6,
      3,
      1
    ])
    return
  }
  const reply = outcome as guest.Outcome<unknown>
  if (reply.ok) expect(info1[0]).toBe(0)
  else if (reply.reason > 0) expect([info1[0], ...info2]).toEqual([2, reply.reason, 0])
  else expect([guest.VMM_ERROR, guest.REFUSED]).toContain(reply.reason)
}

const ENTRIES = [0, 1, 2].map((gfn) => ({ curPage: 0, gfn, operation: PSC_OP.PRIVATE, is2m: false }))

const PAGE: ReadonlyArray<readonly [name: string, send: (ghcb: guest.Ghcb) => Program<guest.Outcome<unknown>>]> = [
  ...SENDERS.map(({ name, send }) => [name, send] as const),
  ["page state change", (ghcb) => guest.pageStateChanges(ghcb, ENTRIES)],
  ["APIC ID list", (ghcb) => guest.apicIdList(ghcb, 0xb000, 1)]
]

describe("a hypervisor that answers anything", () => {
  it("gets a sender to a well-formed answer, #GP, #UD or the end", () => {
    const seen = new Map<string, number>()
    const runs = fc.tuple(fc.nat(PAGE.length - 1), fc.array(answer, { minLength: 1, maxLength: 4 }))
    fc.assert(
      fc.property(runs, ([which, answers]) => {
        const [name, send] = PAGE[which]!
        const run = withstand(answers, () => send(new guest.Ghcb(GHCB_GPA)))
        check(run)
        const { outcome } = run
        const kind =
          outcome === "halted" ? "halted" : isRaised(outcome) ? outcome.vector : String((outcome as { ok: boolean }).ok)
        for (const key of [kind, `${name}: ${kind}`]) seen.set(key, (seen.get(key) ?? 0) + 1)
      }),
      { numRuns: 70_000, seed: 0x6cb }
    )
    for (const kind of ["true", "false", "#GP", "#UD"]) expect(seen.get(kind)).toBeGreaterThan(50)
    // Each sender was seen to succeed and to fail.
    for (const [name] of PAGE) {
      expect([name, seen.get(`${name}: true`) ?? 0, seen.get(`${name}: false`) ?? 0]).not.toContain(0)
    }
  })

  it("cannot make the reply of a list or a walk more than it is", () => {
    fc.assert(
      fc.property(fc.array(answer, { minLength: 1, maxLength: 3 }), (answers) => {
        const list = withstand(answers, () => guest.apicIdList(new guest.Ghcb(GHCB_GPA), 0xb000, 1)).outcome
        if (typeof list === "object" && list !== null && "ok" in list) {
          const { ok, value } = list as { ok: boolean; value: ReadonlyArray<number> | null }
          if (ok && value !== null) expect(new Set(value).size).toBe(value.length)
        }
        const walk = withstand(answers, () => guest.pageStateChanges(new guest.Ghcb(GHCB_GPA), ENTRIES))
        if (walk.outcome !== "halted" && !isRaised(walk.outcome) && (walk.outcome as { ok: boolean }).ok) {
          expect(walk.machine.get(GHCB_GPA + GHCB.shared_buffer, 8, "shared")).toEqual([0x0002_0003, 0])
        }
      }),
      { numRuns: 10_000, seed: 0x253 }
    )
  })
})

const INTERCEPTS: ReadonlyArray<readonly [code: number, operation: Operation]> = [
  [EXIT.CPUID, cpuid(0xd, 1)],
  [EXIT.IOIO, portIn(0x80, 2)],
  [EXIT.IOIO, portOut(0x80, 2, 5)],
  [EXIT.IOIO, portIns(0x80, 1, 0x5ffe, 6)],
  [EXIT.IOIO, portOuts(0x80, 4, 0x5ffc, 3)],
  [EXIT.MSR, rdmsr(0x10)],
  [EXIT.MSR, wrmsr(0x10, 1)],
  [EXIT.RDTSC, rdtsc()],
  [EXIT.RDTSCP, rdtscp()],
  [EXIT.VMMCALL, vmmcall()],
  [EXIT.MWAIT, mwait()],
  [EXIT.READ_DR7, readDr(7)],
  [EXIT.WRITE_DR7, writeDr(7, 0x455)],
  [EXIT.NPF, readShared(0xfec0_0000, 4)],
  [EXIT.NPF, writeShared(0xfec0_0000, 4, 1)],
  [EXIT.RDPRU, rdtsc()]
]

describe("a hypervisor that answers a #VC handler anything", () => {
  it("gets the instruction done, #GP or #UD raised, or the guest ended", () => {
    const codes = fc.oneof(
      fc.constantFrom(...INTERCEPTS),
      // The error code, too, is the hypervisor's choice where it can inject #VC.
      fc.tuple(fc.oneof(fc.nat(0x410), fc.integer()), fc.constantFrom(...INTERCEPTS.map(([, operation]) => operation)))
    )
    const runs = fc.tuple(codes, fc.boolean(), fc.array(answer, { minLength: 1, maxLength: 4 }))
    fc.assert(
      fc.property(runs, ([[code, operation], asksForDr7, answers]) => {
        const result = new OperationResult()
        const context = { ghcb: new guest.Ghcb(GHCB_GPA), asksForDr7 }
        const run = withstand(answers, () => guest.makeVcHandler(context)(code, operation, result))
        expect(unsuppliedLoads(run)).toEqual([])
        const { outcome, last } = run
        if (isRaised(outcome)) expect(["#GP", "#UD"]).toContain(outcome.vector)
        else if (outcome !== "halted" && last !== undefined) expect(last.info1[0]).toBe(0)
      }),
      { numRuns: 12_000, seed: 0x2c }
    )
  })

  it("over the MSR gets an answer, #GP or the end", () => {
    const requests: ReadonlyArray<() => Program<unknown>> = [
      guest.sevInfo,
      guest.negotiateVersion,
      () => guest.cpuidRegister(1, 1),
      guest.apResetHoldMsr,
      guest.preferredGhcb,
      () => guest.registerGhcb(GHCB_GPA),
      () => guest.makeShared(GHCB_GPA),
      () => guest.runVmplMsr(0),
      () => guest.hvFeaturesMsr(2),
      () => new guest.Ghcb(GHCB_GPA).setUp()
    ]
    fc.assert(
      fc.property(
        fc.constantFrom(...requests),
        fc.array(answer, { minLength: 1, maxLength: 4 }),
        (request, answers) => {
          const { outcome } = withstand(answers, request)
          if (isRaised(outcome)) expect(outcome.vector).toBe("#GP")
        }
      ),
      { numRuns: 10_000, seed: 0x130 }
    )
  })
})
