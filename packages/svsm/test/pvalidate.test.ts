import { CORE_CALL, PROTOCOL, pvalidateList, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import {
  CA,
  type CallRegisters,
  FIRMWARE,
  GUEST_VMSA,
  LIST,
  PAGE,
  ScriptedHost,
  SVSM,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"

const { SUCCESS, INVALID_ADDRESS, INVALID_PARAMETER, FAIL_BASE } = SVSM_RESULT
const UNCHANGED = FAIL_BASE + 0x10
const ALL = 0xf
/** Bits of an entry. */
const VALIDATE = 4
const IGNORE_CF = 8

const booted = (): ScriptedHost => new ScriptedHost().boot()

/** Writes a list of raw entries, each a page with low bits. */
const writeList = (
  host: ScriptedHost,
  gpa: number,
  entries: ReadonlyArray<number>,
  count = entries.length,
  next = 0
) => {
  const view = host.poke(gpa)
  view.setUint16(0, count, true)
  view.setUint16(2, next, true)
  entries.forEach((entry, i) => {
    if (view.byteLength < 16 + 8 * i) return
    view.setUint32(8 + 8 * i, entry >>> 0, true)
    view.setUint32(12 + 8 * i, Math.floor(entry / 2 ** 32), true)
  })
}
const pvalidate = (host: ScriptedHost, rcx: CallRegisters["rcx"] = LIST) =>
  host.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx })
const nextOf = (host: ScriptedHost, gpa = LIST): number => host.peek(gpa).getUint16(2, true)

/** A list with these entries at LIST: result, and how far it came. */
const serve = (host: ScriptedHost, entries: ReadonlyArray<number>, count?: number, next?: number) => {
  writeList(host, LIST, entries, count, next)
  return [pvalidate(host).result, nextOf(host)]
}

describe("the list of PVALIDATE", () => {
  it.each([
    ["is off by 4", LIST + 4, INVALID_PARAMETER],
    ["is off by 1", LIST + 1, INVALID_PARAMETER],
    ["lies in SVSM memory", SVSM_DATA, INVALID_ADDRESS],
    ["lies in the own VMSA", GUEST_VMSA + 0x800, INVALID_ADDRESS],
    ["lies in the calling area's header", CA, INVALID_ADDRESS],
    ["lies in a page that is not validated", UNVALIDATED, INVALID_ADDRESS],
    ["lies outside of memory", FIRMWARE.gpa + FIRMWARE.size, INVALID_ADDRESS],
    ["lies at 2^52", [0x10_0000, 0], INVALID_ADDRESS],
    ["is a good one's alias 2^52 up", [0x10_0000, LIST], INVALID_ADDRESS],
    ["is a good one's alias 2^63 up", [0x8000_0000, LIST], INVALID_ADDRESS],
    ["ends 64 bits", [0xffff_ffff, 0xffff_fff8], INVALID_ADDRESS],
    ["is misaligned beyond 2^52", [0xffff_ffff, 0xffff_ffff], INVALID_PARAMETER]
  ] as const)("%s", (_, rcx, result) => {
    const host = booted()
    for (const gpa of [LIST, SVSM_DATA]) writeList(host, gpa, [UNVALIDATED + VALIDATE])
    const before = host.svsmBytes()
    expect(pvalidate(host, rcx)).toMatchObject({ result, pending: 0 })
    expect(host.svsmBytes()).toBe(before)
    expect(host.entry(UNVALIDATED).validated).toBe(false)
  })

  it.each([
    ["count 0", [UNVALIDATED + VALIDATE], 0, 0, LIST],
    ["next = count", [UNVALIDATED + VALIDATE], 1, 1, LIST],
    ["next beyond count", [UNVALIDATED + VALIDATE], 1, 0xffff, LIST],
    ["one entry too many at offset 0", [UNVALIDATED + VALIDATE], 512, 0, LIST],
    ["one entry too many behind an 8-byte header", [UNVALIDATED + VALIDATE], 511, 0, LIST + 8],
    ["one entry too many near the page's end", [UNVALIDATED + VALIDATE], 2, 0, LIST + PAGE_SIZE - 16],
    ["no room for any entry", [UNVALIDATED + VALIDATE], 1, 0, LIST + PAGE_SIZE - 8],
    ["count 65535", [UNVALIDATED + VALIDATE], 0xffff, 0, LIST]
  ])("%s is INVALID_PARAMETER, and next stays", (_, entries, count, next, gpa) => {
    const host = booted()
    writeList(host, gpa, entries, count, next)
    expect(pvalidate(host, gpa).result).toBe(INVALID_PARAMETER)
    expect(nextOf(host, gpa)).toBe(next)
    expect(host.entry(UNVALIDATED).validated).toBe(false)
  })

  it.each([
    ["511 entries at offset 0", 511, LIST],
    ["510 entries behind an 8-byte header", 510, LIST + 8],
    ["one at the page's end", 1, LIST + PAGE_SIZE - 16]
  ])("takes %s", (_, count, gpa) => {
    const host = booted()
    const entries = Array.from({ length: count }, () => UNVALIDATED + VALIDATE + IGNORE_CF)
    writeList(host, gpa, entries)
    expect(pvalidate(host, gpa).result).toBe(SUCCESS)
    expect(nextOf(host, gpa)).toBe(count)
  })

  it("may follow the header of the calling area", () => {
    const host = booted()
    writeList(host, CA + 8, [UNVALIDATED + VALIDATE])
    expect(pvalidate(host, CA + 8)).toMatchObject({ result: SUCCESS, pending: 0 })
  })

  it("goes on where next says", () => {
    const host = booted()
    const pages = [0, 1, 2, 3].map((i) => UNVALIDATED + i * PAGE_SIZE)
    expect(
      serve(
        host,
        pages.map((gpa) => gpa + VALIDATE),
        4,
        2
      )
    ).toEqual([SUCCESS, 4])
    expect(pages.map((gpa) => host.entry(gpa).validated)).toEqual([false, false, true, true])
  })

  it("is what the guest library writes", () => {
    const host = booted()
    const bytes = pvalidateList([{ gpa: UNVALIDATED, validate: true }])
    const view = host.poke(LIST)
    new Uint8Array(view.buffer, view.byteOffset, bytes.length).set(bytes)
    expect(pvalidate(host).result).toBe(SUCCESS)
    expect(host.entry(UNVALIDATED).validated).toBe(true)
  })
})

/** One bad entry, behind a good one and before another. */
const BAD: ReadonlyArray<readonly [string, number, number]> = [
  ...[4, 5, 6, 7, 8, 9, 10, 11].map(
    (bit) => [`reserved bit ${bit}`, PAGE + VALIDATE + IGNORE_CF + 2 ** bit, INVALID_PARAMETER] as const
  ),
  ["size 1, a 2 MiB page of 4 KiB mappings", 0x20_0000 + VALIDATE + 1, FAIL_BASE + 6],
  ["size 1, not 2 MiB aligned", UNVALIDATED + 8 * PAGE_SIZE + VALIDATE + 1, INVALID_PARAMETER],
  ["size 1, with the live calling area in it", VALIDATE + 1, INVALID_ADDRESS],
  ["size 1, SVSM memory", SVSM.gpa + VALIDATE + 1, INVALID_ADDRESS],
  ["size 2", UNVALIDATED + 8 * PAGE_SIZE + VALIDATE + 2, INVALID_PARAMETER],
  ["size 3", UNVALIDATED + 8 * PAGE_SIZE + VALIDATE + 3, INVALID_PARAMETER],
  ["a page of the SVSM", SVSM_DATA + VALIDATE, INVALID_ADDRESS],
  ["a page of the SVSM, CF ignored", SVSM_DATA + VALIDATE + IGNORE_CF, INVALID_ADDRESS],
  ["a page of the SVSM, to be rescinded", SVSM_DATA, INVALID_ADDRESS],
  ["the SVSM's last page", SVSM.gpa + SVSM.size - PAGE_SIZE, INVALID_ADDRESS],
  ["the own VMSA", GUEST_VMSA, INVALID_ADDRESS],
  ["the live calling area", CA, INVALID_ADDRESS],
  ["a page outside of memory", FIRMWARE.gpa + FIRMWARE.size + VALIDATE, INVALID_ADDRESS],
  ["a page at 2^52", 2 ** 52 + VALIDATE, INVALID_ADDRESS],
  ["the launch VMSA", 0xffff_ffff_f000, INVALID_ADDRESS],
  ["a page that is validated already", PAGE + VALIDATE, UNCHANGED],
  ["a page that is not validated, to be rescinded", UNVALIDATED + 8 * PAGE_SIZE, UNCHANGED],
  ["the list's own page, to be rescinded", LIST, INVALID_ADDRESS]
]

describe("an entry of PVALIDATE", () => {
  it.each(BAD)("%s stops the list there: next is its index, the rest is not done", (_, bad, result) => {
    const host = booted()
    const before = host.svsmBytes()
    // Where the machine has no page, look at any.
    const page = bad < FIRMWARE.gpa ? bad - (bad % PAGE_SIZE) : PAGE
    const target = host.entry(page)
    const [first, last] = [UNVALIDATED, UNVALIDATED + PAGE_SIZE]
    expect(serve(host, [first + VALIDATE, bad, last + VALIDATE])).toEqual([result, 1])
    expect([host.entry(first).validated, host.entry(last).validated]).toEqual([true, false])
    expect(host.svsmBytes()).toBe(before)
    expect(host.entry(page)).toEqual(target)
  })

  it("validates: PVALIDATE, page zeroed, then full rights for VMPL1 and 2 and none for 3", () => {
    const host = booted()
    host.fill(UNVALIDATED, 0xcc)
    const zeroWhenGranted: Array<boolean> = []
    host.meddle = ({ op, address }) => {
      if (op === OP.RMPADJUST && address === UNVALIDATED)
        zeroWhenGranted.push(host.peek(UNVALIDATED).getUint32(0) === 0)
    }
    expect(serve(host, [UNVALIDATED + VALIDATE])).toEqual([SUCCESS, 1])
    expect(host.entry(UNVALIDATED)).toMatchObject({ validated: true, vmsa: false, perms: [ALL, ALL, ALL, 0] })
    const view = host.peek(UNVALIDATED)
    expect(new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).every((byte) => byte === 0)).toBe(true)
    expect(zeroWhenGranted).toEqual([true, true])
    const ops = host.seen
      .filter(({ operation: { address } }) => address === UNVALIDATED)
      .map(({ operation }) => operation.op)
    expect(ops).toEqual([OP.PVALIDATE, OP.ZERO_PAGE, OP.RMPADJUST, OP.RMPADJUST])
  })

  it("rescinds: no rights left below VMPL0, then PVALIDATE", () => {
    const host = booted()
    host.setEntry(PAGE, { perms: [ALL, ALL, ALL, ALL] })
    expect(serve(host, [PAGE])).toEqual([SUCCESS, 1])
    expect(host.entry(PAGE)).toMatchObject({ validated: false, perms: [ALL, 0, 0, 0] })
    const ops = host.seen.filter(({ operation: { address } }) => address === PAGE).map(({ operation }) => operation.op)
    expect(ops).toEqual([OP.RMPADJUST, OP.RMPADJUST, OP.RMPADJUST, OP.PVALIDATE])
  })

  it("refuses to validate twice, and CF ignored does not make it: the contents stay", () => {
    const host = booted()
    host.fill(PAGE, 0xcc)
    expect(serve(host, [PAGE + VALIDATE])).toEqual([UNCHANGED, 0])
    expect(serve(host, [PAGE + VALIDATE + IGNORE_CF])).toEqual([SUCCESS, 1])
    expect(host.peek(PAGE).getUint32(0)).toBe(0xcccc_cccc)
    expect(host.seen.some(({ operation: { op } }) => op === OP.PVALIDATE || op === OP.ZERO_PAGE)).toBe(false)
  })

  it("is not fooled by a host that swaps the page in between: the second validation is refused", () => {
    const host = booted()
    serve(host, [UNVALIDATED + VALIDATE])
    // As after RMPUPDATE of another frame: assigned, not validated.
    host.setEntry(UNVALIDATED, { validated: false, perms: [ALL, 0, 0, 0] })
    expect(serve(host, [UNVALIDATED + VALIDATE + IGNORE_CF])).toEqual([SUCCESS, 1])
    expect(host.entry(UNVALIDATED)).toMatchObject({ validated: false, perms: [ALL, 0, 0, 0] })
  })

  it("tells a page that the hardware had validated already, and ignores it on demand without clearing it", () => {
    for (const [bits, result] of [
      [VALIDATE, [UNCHANGED, 0]],
      [VALIDATE + IGNORE_CF, [SUCCESS, 1]]
    ] as const) {
      const host = booted()
      host.setEntry(UNVALIDATED, { validated: true })
      host.fill(UNVALIDATED, 0xcc)
      expect(serve(host, [UNVALIDATED + bits])).toEqual(result)
      expect(host.peek(UNVALIDATED).getUint32(0)).toBe(0xcccc_cccc)
    }
  })

  it("to be rescinded that is not validated is left alone, CF ignored or not", () => {
    const host = booted()
    expect(serve(host, [UNVALIDATED])).toEqual([UNCHANGED, 0])
    expect(serve(host, [UNVALIDATED + IGNORE_CF])).toEqual([SUCCESS, 1])
    expect(host.seen.some(({ operation: { op } }) => op === OP.PVALIDATE || op === OP.RMPADJUST)).toBe(false)
  })

  it("can be turned back and forth", () => {
    const host = booted()
    for (let i = 0; i < 3; i++) {
      expect(serve(host, [UNVALIDATED + VALIDATE, UNVALIDATED])).toEqual([SUCCESS, 2])
      expect(host.entry(UNVALIDATED)).toMatchObject({ validated: false, perms: [ALL, 0, 0, 0] })
    }
  })

  it("grants by the caller's level: VMPL1 alone for a caller at VMPL1", () => {
    const host = booted()
    host.poke(GUEST_VMSA).setUint8(0xca, 1)
    expect(serve(host, [UNVALIDATED + VALIDATE])).toEqual([SUCCESS, 1])
    expect(host.entry(UNVALIDATED).perms).toEqual([ALL, ALL, 0, 0])
  })
})
