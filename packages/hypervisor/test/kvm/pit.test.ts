// @ghcb 0x7b
import { GHCB } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { HANDLED } from "../../src/index.ts"
import { Pit } from "../../src/kvm/Pit.ts"
import { handleVmgexit } from "../../src/kvm/Vmgexit.ts"
import {
  type Bench,
  benchWithGhcb,
  type Fields,
  FULL_CONFIG,
  fill,
  GHCB_GPA,
  ghcbAddress,
  setGhcbMsr
} from "./support.ts"

const MS = 1_000_000
/** Ticks of the 8254 in a millisecond, as it counts them. */
const TICKS_PER_MS = 1_193

const load = (pit: Pit, control: number, low: number, high: number, now: number): void => {
  pit.write(0x43, control, now)
  pit.write(0x40, low, now)
  pit.write(0x40, high, now)
}

const word = (pit: Pit, now: number, port = 0x40): number => pit.read(port, now) | (pit.read(port, now) << 8)

describe("PIT", () => {
  it("counts down in virtual time, low byte first", () => {
    const pit = new Pit()
    load(pit, 0x30, 0x10, 0x27, 0)
    expect(word(pit, 0)).toBe(10_000)
    expect(word(pit, MS)).toBe(10_000 - TICKS_PER_MS)
  })

  it("mode 0 goes on below zero, mode 2 starts again, mode 3 takes two at a time", () => {
    const after = (control: number): number => {
      const pit = new Pit()
      load(pit, control, 0xe8, 0x03, 0)
      return word(pit, MS)
    }
    expect(after(0x30)).toBe(0x1_0000 + 1_000 - TICKS_PER_MS)
    expect(after(0x34)).toBe(1_000 - (TICKS_PER_MS - 1_000))
    expect(after(0x36)).toBe(1_000 - ((2 * TICKS_PER_MS) % 1_000))
    // Modes 6 and 7 are 2 and 3.
    expect([after(0x3c), after(0x3e)]).toEqual([after(0x34), after(0x36)])
  })

  it("a counter loaded with 0 counts from 65536", () => {
    const pit = new Pit()
    load(pit, 0x34, 0, 0, 0)
    expect(word(pit, MS)).toBe(0x1_0000 - TICKS_PER_MS)
  })

  it("a latched count stays until it has been read", () => {
    const pit = new Pit()
    load(pit, 0x30, 0xff, 0xff, 0)
    pit.write(0x43, 0x00, MS)
    pit.write(0x43, 0x00, 2 * MS)
    expect(word(pit, 5 * MS)).toBe(0xffff - TICKS_PER_MS)
    expect(word(pit, 5 * MS)).toBe(0xffff - Math.floor(5 * 1_193.182))
  })

  it.each([
    [0x10, 0xcd, 0x100 - 0x33],
    [0x20, 0x00, 0xcd00]
  ])("access 0x%s takes one byte", (control) => {
    const pit = new Pit()
    pit.write(0x43, control, 0)
    pit.write(0x40, 0xcd, 0)
    expect([pit.read(0x40, 0), pit.read(0x40, 0)]).toEqual([0xcd, 0xcd])
  })

  it("has three counters, and nothing to read at the control port", () => {
    const pit = new Pit()
    pit.write(0x43, 0x70, 0)
    pit.write(0x41, 0x34, 0)
    pit.write(0x41, 0x12, 0)
    expect(word(pit, 0, 0x41)).toBe(0x1234)
    expect(word(pit, 0, 0x42)).toBe(0)
    expect(pit.read(0x43, 0)).toBe(0)
  })

  it("answers the read-back command: status first, then the count", () => {
    const pit = new Pit()
    load(pit, 0x30, 0xe8, 0x03, 0)
    pit.write(0x43, 0xc2, 0)
    pit.write(0x43, 0xe2, MS)
    // Mode 0, both bytes; the output is low while it counts. The first status and count are kept.
    expect(pit.read(0x40, MS)).toBe(0x30)
    expect(word(pit, MS)).toBe(1_000)
    pit.write(0x43, 0xe2, MS)
    expect(pit.read(0x40, MS)).toBe(0xb0)
  })

  it.each([
    [0x34, 0, false],
    [0x36, 0, true],
    [0x36, 600, false],
    [0x38, 600, false],
    [0x38, 1_000, true]
  ])("output of control 0x%i after %d ticks", (control, ticks, high) => {
    const pit = new Pit()
    load(pit, control, 0xe8, 0x03, 0)
    const now = Math.ceil((ticks * 1e9) / 1_193_182)
    pit.write(0x43, 0xe2, now)
    expect((pit.read(0x40, now) & 0x80) !== 0).toBe(high)
  })

  it("keeps exact integers over a year", () => {
    const pit = new Pit()
    load(pit, 0x34, 0xe8, 0x03, 0)
    const year = 365 * 86_400 * 1e9
    expect(word(pit, year)).toBe(1_000 - ((365 * 86_400 * 1_193_182) % 1_000))
  })
})

describe("port I/O of a VM with a PIT in the kernel", () => {
  const vmgexit = (bench: Bench, port: number, info: number, more: Fields = {}): number => {
    const sw_exit_info_1 = (port << 16) | info
    fill(bench, { sw_exit_code: 0x7b, sw_exit_info_1, sw_exit_info_2: 0, ...more })
    setGhcbMsr(bench, GHCB_GPA)
    return handleVmgexit(bench.vcpu, bench.thread)
  }
  const rax = (bench: Bench): number => bench.kvm.hardware.host.read64(ghcbAddress(bench) + GHCB.rax)
  const OUT = 0x10
  const IN = 0x11

  it("is answered without user space, and charged for each element", () => {
    const bench = benchWithGhcb({ ...FULL_CONFIG, pit: true })
    const begin = bench.thread.time
    for (const [port, byte] of [
      [0x43, 0x30],
      [0x40, 0x34],
      [0x40, 0x12]
    ] as const) {
      expect(vmgexit(bench, port, OUT, { rax: byte })).toBe(HANDLED.RESUME_GUEST)
    }
    expect(vmgexit(bench, 0x40, IN)).toBe(HANDLED.RESUME_GUEST)
    expect(rax(bench)).toBe(0x34)
    // Two bytes at once are one byte of the counter.
    expect(vmgexit(bench, 0x40, 0x21)).toBe(HANDLED.RESUME_GUEST)
    expect(rax(bench)).toBe(0x12)
    expect(bench.thread.time - begin).toBe(5)
    expect(vmgexit(bench, 0x40, IN | 0xc, { sw_exit_info_2: 3, sw_scratch: GHCB_GPA + 0x800 })).toBe(
      HANDLED.RESUME_GUEST
    )
    expect(bench.thread.time - begin).toBe(8)
    expect(bench.vcpu.complete).toBeNull()
  })

  it.each([0x3f, 0x44, 0x3f8])("leaves port %i to user space", (port) => {
    const bench = benchWithGhcb({ ...FULL_CONFIG, pit: true })
    expect(vmgexit(bench, port, IN)).toBe(HANDLED.EXIT_TO_USER)
  })

  it("goes to user space where there is no PIT in the kernel", () => {
    expect(vmgexit(benchWithGhcb(FULL_CONFIG), 0x40, IN)).toBe(HANDLED.EXIT_TO_USER)
  })
})
