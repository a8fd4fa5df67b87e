import { apVmsa, SVSM_RESULT } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { expect, it } from "vitest"
import {
  CA,
  GUEST_VMSA,
  LIST,
  OTHER_CA,
  PAGE,
  ScriptedHost,
  SVSM,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"

const CALLS = 1_000

const KNOWN = new Set<number>(Object.values(SVSM_RESULT))
/** Results that a call may have: those of the table, and those of a failed instruction. */
const isResult = (result: number): boolean =>
  KNOWN.has(result) || (result > SVSM_RESULT.FAIL_BASE && result <= SVSM_RESULT.FAIL_BASE + 0x11)

const half = fc.integer({ min: 0, max: 0xffff_ffff })
const page = fc.oneof(
  fc.constantFrom(CA, LIST, PAGE, UNVALIDATED, SVSM.gpa, SVSM_DATA, GUEST_VMSA, 0, 0xffff_f000),
  fc.integer({ min: 0, max: 0x1000 }).map((gfn) => gfn * PAGE_SIZE)
)
const raw = fc.oneof(
  fc.tuple(half, half),
  fc.tuple(fc.constantFrom(0, 0x10_0000, 0x8000_0000), page),
  fc.tuple(
    fc.constant(0),
    fc.tuple(page, fc.nat(4095)).map(([gpa, offset]) => gpa + (offset & ~7))
  )
)
/** Anything at all, or more often what makes sense in its place. */
const register = (...sensible: ReadonlyArray<number>) =>
  fc.oneof(
    { weight: 1, arbitrary: raw },
    { weight: 2, arbitrary: fc.tuple(fc.constant(0), fc.constantFrom(...sensible)) }
  )
const turn = fc.record({
  protocol: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: half }),
  call: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(0, 1, 1, 1, 2, 2, 6, 8) }, { weight: 1, arbitrary: half }),
  rcx: register(LIST, LIST, PAGE, 1),
  rdx: register(OTHER_CA, PAGE),
  r8: register(0, 1, 2, 3),
  pending: fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.nat(255) }),
  exit: fc.oneof({ weight: 19, arbitrary: fc.constant<number>(EXIT.VMGEXIT) }, { weight: 1, arbitrary: half }),
  /** Left in the list page before the call: noise, entries of its like, or a VMSA. */
  list: fc.oneof(
    fc.record({ kind: fc.constant("noise" as const), seed: half }),
    fc.record({
      kind: fc.constant("list" as const),
      next: fc.constantFrom(0, 0, 0, 1, 5),
      entries: fc.array(fc.tuple(page, fc.constantFrom(0, 4, 8, 12, 3, 16)), { minLength: 1, maxLength: 8 })
    }),
    fc.record({ kind: fc.constant("vmsa" as const), vmpl: fc.nat(4) })
  )
})

/** May the guest write here? A page that the SVSM has made a VMSA, or has rescinded, is out of its reach. */
const writable = (host: ScriptedHost, gpa: number): boolean => {
  const { validated, perms } = host.entry(gpa)
  return validated && (perms[2] & 2) !== 0
}

type Turn = typeof turn extends fc.Arbitrary<infer T> ? T : never

const prepare = (host: ScriptedHost, { list }: Turn): void => {
  for (const gpa of [LIST, PAGE]) {
    if (!writable(host, gpa)) continue
    const view = host.poke(gpa)
    if (list.kind === "noise") {
      for (let i = 0; i < PAGE_SIZE; i += 4) view.setUint32(i, Math.imul(list.seed + i, 0x9e37_79b1) >>> 0, true)
    } else if (list.kind === "vmsa") {
      const bytes = apVmsa({ vmpl: list.vmpl, sevFeatures: 1, codeBase: 0, rip: 0, argument: 0 })
      new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
    } else {
      view.setUint32(0, list.entries.length | (list.next << 16), true)
      list.entries.forEach(([at, bits], i) => {
        view.setUint32(8 + 8 * i, at + bits, true)
        view.setUint32(12 + 8 * i, 0, true)
      })
    }
  }
}

/** One call of the garbage. @returns its result, or null when it was none */
const makeCall = (host: ScriptedHost, given: Turn): number | null => {
  prepare(host, given)
  // A guest that replaced the vCPU it runs on would not be served any more; put back what was.
  const own = host.state.registry[0]!
  host.state.served[0] = [undefined, undefined, own]
  host.state.running[0] = own
  const area = own.caGpa
  host.setRegister("rax", [given.protocol, given.call])
  for (const name of ["rcx", "rdx", "r8"] as const) host.setRegister(name, given[name])
  host.poke(area).setUint8(0, given.pending)
  const { result } = host.enter(area, given.exit)
  expect((host.register("efer") & EFER_SVME) !== 0).toBe(true)
  return given.exit !== EXIT.VMGEXIT || given.pending === 0 ? null : result
}

const expectOwnMemory = (host: ScriptedHost, before: string): void => {
  expect(host.svsmBytes()).toBe(before)
  for (let gpa = SVSM.gpa; gpa < SVSM.gpa + SVSM.size; gpa += PAGE_SIZE) {
    expect(host.entry(gpa).perms.slice(1)).toEqual([0, 0, 0])
  }
  expect(host.peek(GUEST_VMSA).getUint8(VMSA.vmpl)).toBe(2)
}

it(`survives ${CALLS} calls of anything: it always runs the guest again, and its memory stays its own`, () => {
  const seen = new Set<number>()
  const turns = fc.sample(turn, { seed: 1, numRuns: CALLS })
  let vcpus = 0
  // A page that became a VMSA or a calling area stays one: now and then a fresh start.
  for (let start = 0; start < CALLS; start += CALLS / 20) {
    const host = new ScriptedHost().boot()
    const before = host.svsmBytes()
    for (const given of turns.slice(start, start + CALLS / 20)) {
      const result = makeCall(host, given)
      if (result === null) continue
      seen.add(result)
      expect(isResult(result)).toBe(true)
    }
    expectOwnMemory(host, before)
    vcpus += host.state.registry.length - 1
  }
  // The garbage was good enough to reach everything: success, and each kind of failure.
  const { FAIL_BASE, INCOMPLETE, INVALID_REQUEST, BUSY, ...all } = SVSM_RESULT
  expect([...Object.values(all), FAIL_BASE + 1, FAIL_BASE + 0x10].filter((result) => !seen.has(result))).toEqual([])
  expect(vcpus).toBeGreaterThan(0)
})
