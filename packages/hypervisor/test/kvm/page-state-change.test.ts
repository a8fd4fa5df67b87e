// @ghcb 0x80000010, 0x80000011, 0x80000012
import { decodePscEntry, encodePscEntry, GHCB, PAGE_SIZE, type PscEntry } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { ERRNO, EXIT_REASON, type GuestRequestPort, HANDLED } from "../../src/index.ts"
import { handleVmgexit } from "../../src/kvm/Vmgexit.ts"
import { type Bench, benchWithGhcb, FULL_CONFIG, fill, GHCB_GPA, ghcbAddress, reply, setGhcbMsr } from "./support.ts"

const { RESUME_GUEST, EXIT_TO_USER } = HANDLED
const [PRIVATE, SHARED, PSMASH, UNSMASH] = [1, 2, 3, 4]
const BUFFER = 0x800

type Entry = readonly [operation: number, gfn: number, is2m?: boolean, curPage?: number]

const put = (bench: Bench, entries: ReadonlyArray<Entry>, current = 0, end = entries.length - 1): void => {
  const { host } = bench.kvm.hardware
  const at = ghcbAddress(bench) + BUFFER
  host.write64(at, current + end * 65_536, 0)
  for (const [i, [operation, gfn, is2m = false, curPage = 0]] of entries.entries()) {
    const { lo, hi } = encodePscEntry({ operation, gfn, is2m, curPage })
    host.write64(at + 8 + 8 * i, lo, hi)
  }
}

const ask = (bench: Bench): number => {
  fill(bench, { sw_exit_code: 0x8000_0010, sw_exit_info_1: 0, sw_exit_info_2: 0, sw_scratch: GHCB_GPA + BUFFER })
  setGhcbMsr(bench, GHCB_GPA)
  return handleVmgexit(bench.vcpu, bench.thread)
}

const entry = (bench: Bench, i: number): PscEntry => {
  const at = ghcbAddress(bench) + BUFFER + 8 + 8 * i
  const { host } = bench.kvm.hardware
  return decodePscEntry(host.read32(at), host.read32(at + 4))
}

const current = (bench: Bench): number => bench.kvm.hardware.host.read16(ghcbAddress(bench) + BUFFER)

/** Serves all of user space's part. @returns runs as [first frame, pages, to private] */
const serve = (bench: Bench, first: number, answers: ReadonlyArray<number> = []): ReadonlyArray<string> => {
  const runs: Array<string> = []
  let handled = first
  while (handled === EXIT_TO_USER) {
    const { run } = bench.vcpu
    expect(run.exitReason).toBe(EXIT_REASON.MAP_GPA_RANGE)
    runs.push(`${run.gfn.toString(16)}+${run.pages}${run.toPrivate ? "p" : "s"}`)
    const complete = bench.vcpu.complete!
    bench.vcpu.complete = null
    handled = complete(bench.vcpu, answers[runs.length - 1] ?? 0)
  }
  expect(handled).toBe(RESUME_GUEST)
  return runs
}

const full = (): Bench => benchWithGhcb(FULL_CONFIG)

describe("a page state change", () => {
  it("has adjacent entries of one kind changed at once", () => {
    const bench = full()
    put(bench, [
      [SHARED, 0x40],
      [SHARED, 0x41],
      [SHARED, 0x43],
      [PRIVATE, 0x44],
      [PRIVATE, 0x400, true],
      [PRIVATE, 0x600, true]
    ])
    expect(serve(bench, ask(bench))).toEqual(["40+2s", "43+1s", "44+1p", "400+1024p"])
    expect(reply(bench)).toEqual([0, 0])
    expect(current(bench)).toBe(6)
    expect([entry(bench, 0).curPage, entry(bench, 4).curPage]).toEqual([1, 512])
  })

  it("of 253 entries is one run, and one of 254 has a bad header", () => {
    const bench = full()
    const entries = Array.from({ length: 253 }, (_, i): Entry => [SHARED, 0x40 + i])
    put(bench, entries)
    expect(serve(bench, ask(bench))).toEqual(["40+253s"])
    put(bench, entries, 0, 253)
    expect(ask(bench)).toBe(RESUME_GUEST)
    expect(reply(bench)).toEqual([0, 2 ** 32 + 1])
  })

  it("goes on where cur_entry and cur_page are", () => {
    const bench = full()
    put(
      bench,
      [
        [SHARED, 0x40],
        [PRIVATE, 0x400, true, 500],
        [SHARED, 0x50]
      ],
      1
    )
    expect(serve(bench, ask(bench))).toEqual(["5f4+12p", "50+1s"])
  })

  it("does PSMASH and UNSMASH by noting them", () => {
    const bench = full()
    put(bench, [
      [PSMASH, 0x400, true],
      [UNSMASH, 0x400, true]
    ])
    expect(serve(bench, ask(bench))).toEqual([])
    expect([reply(bench), current(bench)]).toEqual([[0, 0], 2])
  })

  it.each<[string, Entry]>([
    ["an operation that there is not", [5, 0x40]],
    ["a 2 MiB page off its alignment", [SHARED, 0x401, true]],
    ["more pages done than there are", [SHARED, 0x40, false, 2]]
  ])("refuses %s, after the entries before it", (_, bad) => {
    const bench = full()
    put(bench, [[SHARED, 0x48], bad])
    expect(serve(bench, ask(bench))).toEqual(["48+1s"])
    expect(reply(bench)).toEqual([0, 2 ** 32 + 2])
    expect(current(bench)).toBe(1)
  })

  it("that user space cannot do fails as a whole, and says how far it came", () => {
    const bench = full()
    put(bench, [
      [SHARED, 0x40],
      [PRIVATE, 0x50]
    ])
    expect(serve(bench, ask(bench), [0, ERRNO.EINVAL])).toEqual(["40+1s", "50+1p"])
    expect(reply(bench)).toEqual([0, 0x100 * 2 ** 32])
    expect(current(bench)).toBe(1)
  })
})

describe("a guest request", () => {
  const REQUEST = 0x34_0000
  const RESPONSE = 0x35_0000

  const prepared = (): Bench => {
    const bench = full()
    for (const gpa of [REQUEST, RESPONSE]) bench.vm.setMemoryAttributes(bench.thread, gpa / PAGE_SIZE, false)
    bench.kvm.hardware.host.write32(bench.vm.memory.sharedFrame(REQUEST / PAGE_SIZE) * PAGE_SIZE, 0x1234)
    return bench
  }

  const request = (bench: Bench, code: number, fields: { readonly [name: string]: number } = {}): number => {
    const both = { sw_exit_info_1: REQUEST, sw_exit_info_2: RESPONSE }
    fill(bench, { sw_exit_code: code, ...both, ...fields })
    setGhcbMsr(bench, GHCB_GPA)
    return handleVmgexit(bench.vcpu, bench.thread)
  }

  /** A firmware that answers as it is told, and gives pages back. */
  const portOf = ({ rmp }: Bench, guestRequest: GuestRequestPort["guestRequest"]): GuestRequestPort => ({
    guestRequest,
    reclaim: (pfn) => {
      rmp.firmwareSet(pfn, { immutable: false })
      return 0
    }
  })

  it("goes to the firmware through the host's own pages, and back", () => {
    const bench = prepared()
    const { host, rmp } = bench.kvm.hardware
    const seen: Array<unknown> = []
    bench.vm.guestRequest = portOf(bench, (requestPfn, responsePfn) => {
      seen.push(
        host.read32(requestPfn * PAGE_SIZE),
        rmp.stateOf(responsePfn),
        host.write8(responsePfn * PAGE_SIZE, 1) !== 0
      )
      return 0x16
    })
    expect(request(bench, 0x8000_0011)).toBe(RESUME_GUEST)
    expect(seen).toEqual([0x1234, "Firmware", true])
    expect(reply(bench)).toEqual([0, 0x16])
  })

  it("needs two different pages, aligned, in shared memory", () => {
    for (const [fields, reason] of [
      [{ sw_exit_info_2: REQUEST }, 4],
      [{ sw_exit_info_1: REQUEST + 8 }, 4],
      [{ sw_exit_info_2: RESPONSE + 8 }, 4],
      [{ sw_exit_info_2: RESPONSE + PAGE_SIZE }, 5],
      [{ sw_exit_info_1: 2 ** 40 }, 5]
    ] as const) {
      const bench = prepared()
      bench.vm.guestRequest = portOf(bench, () => 0)
      request(bench, 0x8000_0011, fields)
      expect(reply(bench)).toEqual([2, reason])
    }
  })

  it("of a VM without firmware is invalid input", () => {
    const bench = prepared()
    request(bench, 0x8000_0011)
    expect(reply(bench)).toEqual([2, 5])
  })

  it("extended: says how many pages it needs, then gives an empty table", () => {
    const bench = prepared()
    bench.vm.guestRequest = portOf(bench, () => 0)
    request(bench, 0x8000_0012, { rax: RESPONSE, rbx: 0 })
    expect(reply(bench)).toEqual([0, 2 ** 32])
    const { host } = bench.kvm.hardware
    expect(host.read32(ghcbAddress(bench) + GHCB.rbx)).toBe(1)
    const DATA = 0x36_0000
    bench.vm.setMemoryAttributes(bench.thread, DATA / PAGE_SIZE, false)
    const frame = bench.vm.memory.sharedFrame(DATA / PAGE_SIZE)
    host.write32(frame * PAGE_SIZE, 0xffff_ffff)
    request(bench, 0x8000_0012, { rax: DATA, rbx: 1 })
    expect([...reply(bench), host.read32(frame * PAGE_SIZE)]).toEqual([0, 0, 0])
    request(bench, 0x8000_0012, { rax: DATA + 4, rbx: 1 })
    expect(reply(bench)).toEqual([2, 5])
  })
})
