// @ghcb 0x7b, 0x80000001, 0x80000002, 0x80000004, 0x80000010, 0x80000011, 0x80000012, 0x80000014, 0x80000017
import { GHCB, PSC_OP } from "@vmpl-lab/sev-es"
import { type Program, pause } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import {
  apicIdList,
  apicIdListSize,
  apResetHold,
  extendedGuestRequest,
  Ghcb,
  getApJumpTable,
  ghcbStringIo,
  guestRequest,
  mmioRead,
  mmioWrite,
  pageStateChanges,
  queryDoorbell,
  REFUSED,
  setDoorbell,
  unregisterSecureAvic,
  VMM_ERROR
} from "../src/index.ts"
import { type FieldName, GHCB_GPA, type Half, reply, suppliedFields } from "./GhcbPage.ts"

const BUFFER = GHCB_GPA + GHCB.shared_buffer
const broken = { ok: false, reason: VMM_ERROR }
const done = { ok: true, value: null }

/** Runs one program; `host` sees the page at each exit, before its answer. */
const run = <R>(
  program: (ghcb: Ghcb) => Program<R>,
  host: (at: ScriptedMachine, exit: number) => { readonly [name in FieldName]?: Half } | undefined,
  prepare: (machine: ScriptedMachine) => void = () => {}
) => {
  const machine = new ScriptedMachine()
  prepare(machine)
  const fields: Array<ReturnType<typeof suppliedFields>> = []
  machine.onVmgexit = (at) => {
    fields.push(suppliedFields(at))
    reply(at, host(at, fields.length - 1))
  }
  return { machine, fields, outcome: machine.run(program(new Ghcb(GHCB_GPA))) }
}

const bytesAt = (machine: ScriptedMachine, gpa: number, length: number, kind: "private" | "shared") =>
  Array.from({ length }, (_, i) => machine.get(gpa + i, 1, kind)[0])

describe("string I/O", () => {
  const pattern = (i: number): number => (i * 7 + (i >> 8)) & 0xff

  it.each([1, 2, 4])("REP OUTS of %i bytes goes in chunks of the shared buffer, across pages", (size) => {
    const count = Math.floor(5000 / size)
    const seen: Array<number> = []
    const io = { port: 0x80, size, count, address: 0x5ff0, cbit: true }
    const { outcome, fields } = run(
      (ghcb) => ghcbStringIo(ghcb, false, io),
      (at) => {
        const elements = at.get(GHCB_GPA + GHCB.sw_exit_info_2, 8, "shared")[0]
        seen.push(...bytesAt(at, BUFFER, elements * size, "shared"))
        return undefined
      },
      (machine) => {
        for (let i = 0; i < count * size; i++) machine.set(0x5ff0 + i, 1, pattern(i))
      }
    )
    expect(outcome).toEqual(done)
    expect(seen).toEqual(Array.from({ length: count * size }, (_, i) => pattern(i)))
    const perChunk = 2032 / size
    expect(fields.map(({ sw_exit_info_2 }) => sw_exit_info_2![0])).toEqual([perChunk, perChunk, count - 2 * perChunk])
  })

  it("REP INS writes private memory with what stands in the scratch area, here one outside of the page", () => {
    const io = { port: 0x80, size: 2, count: 3000, address: 0x5ff0, cbit: true }
    const { outcome, fields, machine } = run(
      (ghcb) => ghcbStringIo(ghcb, true, io, { gpa: 0x9000, length: 0x1000 }),
      (at, exit) => {
        for (let i = 0; i < 0x1000; i++) at.set(0x9000 + i, 1, pattern(exit * 0x1000 + i), 0, "shared")
        return undefined
      }
    )
    expect(outcome).toEqual(done)
    expect(bytesAt(machine, 0x5ff0, 6000, "private")).toEqual(Array.from({ length: 6000 }, (_, i) => pattern(i)))
    expect(fields.map(({ sw_exit_info_2, sw_scratch }) => [sw_exit_info_2, sw_scratch])).toEqual([
      [
        [2048, 0],
        [0x9000, 0]
      ],
      [
        [952, 0],
        [0x9000, 0]
      ]
    ])
  })

  it("stops at the chunk that fails, and does not write what the hypervisor left there", () => {
    const io = { port: 0x80, size: 4, count: 1000, address: 0x5000, cbit: true }
    const { outcome, fields, machine } = run(
      (ghcb) => ghcbStringIo(ghcb, true, io),
      (at, exit) => {
        at.set(BUFFER, 4, 0xaaaa_0000 + exit, 0, "shared")
        return exit === 1 ? { sw_exit_info_1: [2, 0], sw_exit_info_2: [3, 0] } : undefined
      }
    )
    expect(outcome).toEqual({ ok: false, reason: 3 })
    expect(fields).toHaveLength(2)
    expect([machine.get(0x5000, 4)[0], machine.get(0x5000 + 2032, 4)[0]]).toEqual([0xaaaa_0000, 0])
  })
})

describe("MMIO", () => {
  it.each([1, 2, 4, 8])("of %i bytes goes by the shared buffer", (size) => {
    const hi = size === 8 ? 0x5566_7788 : 0
    const lo = size >= 4 ? 0x1122_3344 : size === 2 ? 0x3344 : 0x44
    const read = run(
      (ghcb) => mmioRead(ghcb, 0xfec0_0000, size),
      (at) => {
        at.set(BUFFER, 8, 0x1122_3344, 0x5566_7788, "shared")
        return undefined
      }
    )
    expect(read.outcome).toEqual({ ok: true, value: { lo, hi } })
    let seen: Half = [0, 0]
    run(
      (ghcb) => mmioWrite(ghcb, 0xfec0_0000, size, { lo: 0x1122_3344, hi: 0x5566_7788 }),
      (at) => {
        seen = at.get(BUFFER, 8, "shared")
        return undefined
      }
    )
    expect(seen).toEqual([lo, hi])
  })
})

describe("page state change", () => {
  const entries = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      curPage: 0,
      gfn: 0x12_3456 + i,
      operation: PSC_OP.PRIVATE,
      is2m: i === 1
    }))
  const header = (at: ScriptedMachine): Half => at.get(BUFFER, 8, "shared")
  const finish = (at: ScriptedMachine): undefined => {
    at.set(BUFFER, 2, at.get(BUFFER + 2, 2, "shared")[0] + 1, 0, "shared")
  }

  it("puts header and entries into the shared buffer", () => {
    const { outcome, fields } = run(
      (ghcb) => pageStateChanges(ghcb, entries(2)),
      (at) => {
        expect([0, 8, 16].map((offset) => at.get(BUFFER + offset, 8, "shared"))).toEqual([
          [0x0001_0000, 0],
          [0x2345_6000, 0x0010_0001],
          [0x2345_7000, 0x0110_0001]
        ])
        return finish(at)
      }
    )
    expect(outcome).toEqual(done)
    expect(fields).toEqual([
      { sw_exit_code: [0x8000_0010, 0], sw_exit_info_1: [0, 0], sw_exit_info_2: [0, 0], sw_scratch: [BUFFER, 0] }
    ])
  })

  it("sends more than 253 entries in several events, and none at all in none", () => {
    const heads: Array<Half> = []
    const { outcome } = run(
      (ghcb) => pageStateChanges(ghcb, entries(300)),
      (at) => {
        heads.push(header(at))
        return finish(at)
      }
    )
    expect(outcome).toEqual(done)
    expect(heads).toEqual([
      [252 * 0x1_0000, 0],
      [46 * 0x1_0000, 0]
    ])
    expect(
      run(
        (ghcb) => pageStateChanges(ghcb, []),
        () => undefined
      ).fields
    ).toEqual([])
  })

  it("walks on where the hypervisor stopped, even when that is where it was", () => {
    const stops = [0, 1, 1, 4, 5]
    const { outcome, fields } = run(
      (ghcb) => pageStateChanges(ghcb, entries(5)),
      (at, exit) => {
        at.set(BUFFER, 2, stops[exit]!, 0, "shared")
        return undefined
      }
    )
    expect(outcome).toEqual(done)
    expect(fields).toHaveLength(5)
  })

  it.each([
    [
      "goes back",
      [
        [2, 4],
        [1, 4]
      ]
    ],
    ["goes beyond the end", [[6, 4]]],
    ["moves the end down", [[3, 3]]],
    ["moves the end up", [[1, 5]]],
    ["sets a reserved bit", [[5, 4, 1]]]
  ] as ReadonlyArray<readonly [string, ReadonlyArray<ReadonlyArray<number>>]>)("fails when it %s", (_, headers) => {
    const { outcome, fields } = run(
      (ghcb) => pageStateChanges(ghcb, entries(5)),
      (at, exit) => {
        const [current = 0, end = 0, reserved = 0] = headers[exit]!
        at.set(BUFFER, 8, end * 0x1_0000 + current, reserved, "shared")
        return undefined
      }
    )
    expect(outcome).toEqual(broken)
    expect(fields).toHaveLength(headers.length)
  })

  it("is refused with sw_exit_info_2, whatever the header says", () => {
    for (const info2 of [
      [1, 1],
      [2, 1],
      [0, 0x100],
      [1, 0]
    ] as const) {
      const { outcome } = run(
        (ghcb) => pageStateChanges(ghcb, entries(1)),
        (at) => {
          finish(at)
          return { sw_exit_info_2: info2 }
        }
      )
      expect(outcome).toEqual({ ok: false, reason: REFUSED, detail: { lo: info2[0], hi: info2[1] } })
    }
  })
})

describe("guest requests", () => {
  const pages = { request: 0x7000, response: 0x8000 }
  const busy: { readonly [name in FieldName]?: Half } = { sw_exit_info_2: [0, 2] }

  it("are repeated unchanged while the hypervisor is busy, with a wait between", () => {
    let waits = 0
    const policy = {
      retries: 5,
      *wait(): Program {
        waits++
        yield pause()
      }
    }
    for (const send of [
      guestRequest,
      (g: Ghcb, p: typeof pages, w: typeof policy) => extendedGuestRequest(g, p, { gpa: 0xa000, pages: 1 }, w)
    ]) {
      waits = 0
      const { outcome, fields } = run(
        (ghcb) => send(ghcb, pages, policy),
        (_, exit) => (exit < 3 ? busy : undefined)
      )
      expect(outcome).toEqual({ ok: true, value: { vmmError: 0, firmware: 0, pagesNeeded: 0 } })
      expect([waits, fields.length, new Set(fields.map((one) => JSON.stringify(one))).size]).toEqual([3, 4, 1])
      const never = run(
        (ghcb) => send(ghcb, pages, policy),
        () => busy
      )
      expect(never.outcome).toEqual({ ok: true, value: { vmmError: 2, firmware: 0, pagesNeeded: 0 } })
      expect(never.fields).toHaveLength(6)
    }
    expect(
      run(
        (ghcb) => guestRequest(ghcb, pages),
        () => busy
      ).fields
    ).toHaveLength(31)
  })

  it("do not know any other error of the hypervisor, nor pages that are enough already", () => {
    const area = { gpa: 0xa000, pages: 2 }
    for (const hi of [1, 3, 0x8000_0000]) {
      expect(
        run(
          (ghcb) => guestRequest(ghcb, pages),
          () => ({ sw_exit_info_2: [0, hi] })
        ).outcome
      ).toEqual(broken)
    }
    for (const answer of [
      { sw_exit_info_2: [0, 3] },
      { sw_exit_info_2: [0, 1] },
      { sw_exit_info_2: [0, 1], rbx: [2, 0] },
      { sw_exit_info_2: [0, 1], rbx: [3, 1] }
    ] as const) {
      expect(
        run(
          (ghcb) => extendedGuestRequest(ghcb, pages, area),
          () => answer
        ).outcome
      ).toEqual(broken)
    }
  })
})

describe("the APIC ID list", () => {
  const list = (ids: ReadonlyArray<number>, count = ids.length, pages = 1) =>
    run(
      (ghcb) => apicIdList(ghcb, 0xb000, pages),
      (at) => {
        ;[count, ...ids].forEach((word, i) => {
          at.set(0xb000 + 4 * i, 4, word, 0, "shared")
        })
        return { rax: [pages, 0] }
      }
    ).outcome

  it("is read from shared pages", () => {
    expect(list([0, 4, 0xffff_fffe])).toEqual({ ok: true, value: [0, 4, 0xffff_fffe] })
    const many = Array.from({ length: 1500 }, (_, i) => 3 * i)
    expect(list(many, 1500, 2)).toEqual({ ok: true, value: many })
  })

  it("is no list when it is empty, longer than its pages, or names a vCPU twice", () => {
    expect(list([])).toEqual(broken)
    expect(list([1], 1024)).toEqual(broken)
    expect(list([1], 0xffff_ffff)).toEqual(broken)
    expect(list([1, 2, 1])).toEqual(broken)
  })

  it("has a size of 1 page to 1025", () => {
    for (const [rax, size] of [
      [[1, 0], 1],
      [[1025, 0], 1025],
      [[0, 0], null],
      [[1026, 0], null],
      [[1, 1], null]
    ] as ReadonlyArray<readonly [Half, number | null]>) {
      const { outcome } = run(
        (ghcb) => apicIdListSize(ghcb),
        () => ({ rax })
      )
      expect(outcome).toEqual(size === null ? broken : { ok: true, value: size })
    }
    expect(
      run(
        (ghcb) => apicIdList(ghcb, 0xb000, 1),
        () => ({ rax: [1, 1] })
      ).outcome
    ).toEqual(broken)
  })
})

describe("addresses that the hypervisor gives", () => {
  it("are whole pages below 2^52, and after SET the same", () => {
    const senders: ReadonlyArray<readonly [FieldName, (ghcb: Ghcb) => Program<unknown>]> = [
      ["sw_exit_info_2", getApJumpTable],
      ["sw_exit_info_2", queryDoorbell],
      ["rbx", unregisterSecureAvic]
    ]
    for (const [field, send] of senders) {
      for (const value of [
        [0x1008, 0],
        [0x1000, 0x10_0000],
        [0xffff_ffff, 0],
        [1, 0xffff_ffff]
      ] as const) {
        expect(run(send, () => ({ [field]: value })).outcome).toEqual(broken)
      }
      expect(run(send, () => ({ [field]: [0x1000, 0xf_ffff] })).outcome).toEqual({
        ok: true,
        value: 2 ** 52 - 2 ** 32 + 0x1000
      })
    }
    for (const info2 of [
      [0xc001, 0],
      [0xc000, 1],
      [0xd000, 0],
      [0xffff_ffff, 0xffff_ffff],
      [0, 0]
    ] as const) {
      expect(
        run(
          (ghcb) => setDoorbell(ghcb, 0xc000),
          () => ({ sw_exit_info_2: info2 })
        ).outcome
      ).toEqual(broken)
    }
  })
})

it("AP reset hold holds until a SIPI came", () => {
  const { outcome, fields } = run(apResetHold, (_, exit) => ({ sw_exit_info_2: [0, exit === 3 ? 1 : 0] }))
  expect(outcome).toEqual(done)
  expect(fields).toHaveLength(4)
})
