// @ghcb 0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b
/** Whatever a guest puts into its GHCB, the host answers with what the protocol names, and touches nothing else. */
import {
  decodeEventInjection,
  encodePscEntry,
  GHCB,
  GHCB_MSR,
  NAE,
  PAGE_SIZE,
  PSC_OP,
  REASON,
  REPLY,
  VECTOR,
  validByte,
  validMask
} from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { ERRNO, EXIT_REASON, GHCB_EVENTS, GHCB_EVENTS_REFUSED, HANDLED } from "../../src/index.ts"
import { handleVmgexit } from "../../src/kvm/Vmgexit.ts"
import { type Bench, benchWithGhcb, FULL_CONFIG, GHCB_GPA, ghcbAddress, SLOT, setGhcbMsr } from "../kvm/support.ts"

const CODES = [...GHCB_EVENTS.keys(), ...GHCB_EVENTS_REFUSED, 0x60, 0x400, 0x403, 0x8000_ffff]

/** Values that mean something somewhere: pages of the guest and beyond it, lengths, flags. */
const telling = fc.oneof(
  fc.constantFrom(0, 1, 2, 3, 8, 253, 0x1000, GHCB_GPA, GHCB_GPA + 0x800, GHCB_GPA + 0xff0, GHCB_GPA + 0xfff),
  fc.constantFrom(SLOT.gfn * PAGE_SIZE, (SLOT.gfn + SLOT.pages) * PAGE_SIZE - 1, 0xfee0_0000, 0xfec0_0000, 2 ** 52 - 1),
  fc.constantFrom(0x3f8_0019, 0x3f8_002d, 0x830, 0x1b, 0x6e0, 0x80b, 0xc001_0015, 0xd),
  fc.nat({ max: 2 ** 32 - 1 }),
  fc.maxSafeNat()
)

const FIELDS = ["sw_exit_info_1", "sw_exit_info_2", "sw_scratch", "rax", "rbx", "rcx", "rdx", "rsi", "xcr0"] as const

interface Page {
  readonly code: number
  readonly codeHi: number
  readonly values: ReadonlyArray<number>
  readonly valid: ReadonlyArray<boolean>
  readonly usage: number
  readonly psc: ReadonlyArray<{ operation: number; gfn: number; is2m: boolean; curPage: number }>
  readonly header: readonly [number, number]
  readonly noise: Uint8Array
  readonly noiseAt: number
}

const rarely = <A>(usual: A, other: fc.Arbitrary<A>): fc.Arbitrary<A> =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: other })

const pages: fc.Arbitrary<Page> = fc.record({
  code: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...CODES) }, { weight: 1, arbitrary: fc.nat(2 ** 32 - 1) }),
  codeHi: rarely(0, fc.nat(2 ** 32 - 1)),
  values: fc.array(telling, { minLength: FIELDS.length, maxLength: FIELDS.length }),
  valid: fc.array(rarely(true, fc.boolean()), { minLength: FIELDS.length + 1, maxLength: FIELDS.length + 1 }),
  usage: rarely(0, fc.nat(2 ** 32 - 1)),
  psc: fc.array(
    fc.record({
      operation: rarely<number>(PSC_OP.SHARED, fc.nat(15)),
      gfn: fc.oneof(fc.integer({ min: SLOT.gfn + 0x40, max: SLOT.gfn + 0x48 }), fc.nat(2 ** 40 - 1)),
      is2m: fc.boolean(),
      curPage: rarely(0, fc.nat(4095))
    }),
    { maxLength: 6 }
  ),
  header: fc.tuple(rarely(0, fc.nat(65_535)), fc.oneof(fc.nat(6), fc.nat(65_535))),
  noise: fc.uint8Array({ maxLength: 24 }),
  noiseAt: fc.nat(PAGE_SIZE - 24)
})

const fillPage = (bench: Bench, page: Page): void => {
  const { host } = bench.kvm.hardware
  const at = ghcbAddress(bench)
  host.writePage(at / PAGE_SIZE, null)
  for (const [i, byte] of page.noise.entries()) host.write8(at + page.noiseAt + i, byte)
  host.write64(at + GHCB.sw_exit_code, page.code, page.codeHi)
  host.write32(at + GHCB.ghcb_usage, page.usage)
  const put = (offset: number, valid: boolean): void => {
    const byte = at + validByte(offset)
    const bits = host.read8(byte) & ~validMask(offset)
    host.write8(byte, valid ? bits | validMask(offset) : bits)
  }
  put(GHCB.sw_exit_code, page.valid[FIELDS.length]!)
  for (const [i, name] of FIELDS.entries()) {
    const value = page.values[i]!
    host.write64(at + GHCB[name], value % 2 ** 32, Math.floor(value / 2 ** 32))
    put(GHCB[name], page.valid[i]!)
  }
  const buffer = at + GHCB.shared_buffer
  host.write32(buffer, page.header[0] + page.header[1] * 65_536)
  page.psc.forEach((entry, i) => {
    const { lo, hi } = encodePscEntry(entry)
    host.write64(buffer + 8 + 8 * i, lo, hi)
  })
}

/** What the host owns and no VMGEXIT may change: its VMCB but for the GHCB MSR, permission maps, other frames. */
const hostState = ({ kvm, vcpu }: Bench): string => {
  const { host } = kvm.hardware
  const vmcb = host.readPage(vcpu.vmcb / PAGE_SIZE)
  vmcb.fill(0, 0xa0, 0xa8)
  const maps = [0, 1, 2].map((i) => Buffer.from(host.readPage(kvm.iopm / PAGE_SIZE + i)).toString("base64"))
  return Buffer.from(vmcb).toString("base64") + maps.join()
}

const KNOWN_EXITS: ReadonlyArray<string> = [
  EXIT_REASON.IO,
  EXIT_REASON.MMIO,
  EXIT_REASON.MAP_GPA_RANGE,
  EXIT_REASON.RUN_VMPL,
  EXIT_REASON.AP_CREATE,
  EXIT_REASON.SYSTEM_EVENT_SEV_TERM
]
const ERRNOS: ReadonlyArray<number> = [ERRNO.EINVAL, ERRNO.EFAULT]
const REASONS: ReadonlyArray<number> = [0, ...Object.values(REASON)]

/** A reply must be one that the protocol names. */
const checkReply = (bench: Bench): void => {
  const { host } = bench.kvm.hardware
  const at = ghcbAddress(bench)
  const info1 = host.read32(at + GHCB.sw_exit_info_1)
  expect(host.read32(at + GHCB.sw_exit_info_1 + 4)).toBe(0)
  const lo = host.read32(at + GHCB.sw_exit_info_2)
  if (info1 === REPLY.INJECT_EXCEPTION) {
    const event = decodeEventInjection(lo)
    expect(event.valid && [VECTOR.GP, VECTOR.UD].some((vector) => vector === event.vector)).toBe(true)
  } else if (info1 === REPLY.MALFORMED_INPUT) expect(REASONS).toContain(lo)
  else expect(info1).toBe(REPLY.NO_ACTION)
  for (const field of [GHCB.sw_exit_info_1, GHCB.sw_exit_info_2]) {
    expect(host.read8(at + validByte(field)) & validMask(field)).not.toBe(0)
  }
  expect(host.read8(at + validByte(GHCB.sw_exit_code)) & validMask(GHCB.sw_exit_code)).toBe(0)
}

/** User space answers every exit with success and with data of its own, until the guest goes on. */
const serveUserSpace = (bench: Bench, first: number, ret: number): number => {
  let handled = first
  for (let exits = 0; handled === HANDLED.EXIT_TO_USER; exits++) {
    expect(exits).toBeLessThan(9_000)
    const { run } = bench.vcpu
    expect(KNOWN_EXITS).toContain(run.exitReason)
    if (run.exitReason === EXIT_REASON.SYSTEM_EVENT_SEV_TERM) return HANDLED.EXIT_TO_USER
    if (!run.isWrite) run.data.fill(0x5a)
    const complete = bench.vcpu.complete!
    bench.vcpu.complete = null
    handled = complete(bench.vcpu, ret)
  }
  return handled
}

const RUNS = 60_000

describe("a hostile guest", () => {
  it("gets a reply that the protocol names, whatever it puts into its GHCB", () => {
    const seen = new Set<string>()
    const bench = benchWithGhcb(FULL_CONFIG)
    bench.thread.time = 1_000_000
    const before = hostState(bench)
    fc.assert(
      fc.property(pages, fc.constantFrom(0, 0, ERRNO.EINVAL), (page, ret) => {
        fillPage(bench, page)
        setGhcbMsr(bench, GHCB_GPA)
        bench.vcpu.complete = null
        bench.vcpu.scratchToSync = null
        const handled = serveUserSpace(bench, handleVmgexit(bench.vcpu, bench.thread), ret)
        if (handled === HANDLED.RESUME_GUEST) checkReply(bench)
        else if (handled !== HANDLED.EXIT_TO_USER) expect(ERRNOS).toContain(handled)
        seen.add(handled === HANDLED.RESUME_GUEST ? `${page.code}` : "ended")
      }),
      { numRuns: RUNS, seed: 7 }
    )
    expect(hostState(bench)).toBe(before)
    // Every event got an answer at least once, so none is only ever refused by accident of the generator.
    for (const code of GHCB_EVENTS.keys()) {
      if (code !== NAE.TERMINATION_REQUEST && code !== NAE.UNSUPPORTED_EVENT) expect(seen).toContain(`${code}`)
    }
  }, 120_000)

  it("gets a response of the MSR protocol, whatever it puts into the GHCB MSR", () => {
    const bench = benchWithGhcb(FULL_CONFIG)
    const responses: ReadonlyArray<number> = Object.entries(GHCB_MSR)
      .filter(([name]) => name.endsWith("RESPONSE"))
      .map(([, code]) => code)
    const info = fc.oneof(fc.constantFrom<number>(...Object.values(GHCB_MSR)), fc.integer({ min: 1, max: 0xfff }))
    fc.assert(
      fc.property(info, fc.nat(0xf_ffff), fc.nat(2 ** 32 - 1), (code, rest, hi) => {
        const lo = rest * 4096 + code
        setGhcbMsr(bench, lo, hi)
        bench.vcpu.complete = null
        const handled = serveUserSpace(bench, handleVmgexit(bench.vcpu, bench.thread), 0)
        const after = bench.kvm.hardware.host.read32(bench.vcpu.vmcb + 0xa0)
        if (handled === HANDLED.RESUME_GUEST) expect(responses).toContain(after & 0xfff)
        else if (handled !== HANDLED.EXIT_TO_USER) {
          expect(handled).toBe(ERRNO.EINVAL)
          expect(after).toBe(lo)
        }
      }),
      { numRuns: RUNS, seed: 8 }
    )
  }, 120_000)
})
