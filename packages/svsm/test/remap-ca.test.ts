import { CORE_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import {
  CA,
  type CallRegisters,
  FIRMWARE,
  GUEST_VMSA,
  OTHER_CA,
  PAGE,
  RAM_SIZE,
  ScriptedHost,
  SVSM,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"

const { SUCCESS, INVALID_ADDRESS, INVALID_PARAMETER } = SVSM_RESULT
const remap = (host: ScriptedHost, rcx: CallRegisters["rcx"]) =>
  host.call(PROTOCOL.CORE, CORE_CALL.REMAP_CA, { rcx: rcx! })

/** VMSA and calling area of another vCPU. */
const LIVE = { vmsaGpa: 0x3_0000, caGpa: 0x3_1000, apicId: 1, vmpl: 2, guestOwned: true }

const BAD: ReadonlyArray<readonly [string, CallRegisters["rcx"], number]> = [
  ["off by one byte", OTHER_CA + 1, INVALID_PARAMETER],
  ["off by eight bytes", OTHER_CA + 8, INVALID_PARAMETER],
  ["the last byte of a page", OTHER_CA - 1, INVALID_PARAMETER],
  ["the SVSM's first page", SVSM.gpa, INVALID_ADDRESS],
  ["the SVSM's data", SVSM_DATA, INVALID_ADDRESS],
  ["the SVSM's last page", SVSM.gpa + SVSM.size - PAGE_SIZE, INVALID_ADDRESS],
  ["the own VMSA, in SVSM memory", GUEST_VMSA, INVALID_ADDRESS],
  ["another vCPU's VMSA", LIVE.vmsaGpa, INVALID_ADDRESS],
  ["another vCPU's calling area", LIVE.caGpa, INVALID_ADDRESS],
  ["a page that is not validated", UNVALIDATED, INVALID_ADDRESS],
  ["the page after the SVSM", SVSM.gpa + SVSM.size, INVALID_ADDRESS],
  ["the page before the firmware", FIRMWARE.gpa - PAGE_SIZE, INVALID_ADDRESS],
  ["the page after the firmware", FIRMWARE.gpa + FIRMWARE.size, INVALID_ADDRESS],
  ["the launch VMSA", 0xffff_ffff_f000, INVALID_ADDRESS],
  ["2^52", [0x10_0000, 0], INVALID_ADDRESS],
  ["2^52, off by a byte", [0x10_0000, 1], INVALID_PARAMETER],
  ["an alias of a good page 2^52 up", [0x10_0000, OTHER_CA], INVALID_ADDRESS],
  ["an alias of a good page 2^63 up", [0x8000_0000, OTHER_CA], INVALID_ADDRESS],
  ["the last page of 64 bits", [0xffff_ffff, 0xffff_f000], INVALID_ADDRESS],
  ["all ones", [0xffff_ffff, 0xffff_ffff], INVALID_PARAMETER]
]

describe("REMAP_CA", () => {
  it.each(BAD)("refuses %s and goes on with the old area, having touched nothing", (_, rcx, result) => {
    const host = new ScriptedHost().boot()
    host.state.registry.push(LIVE)
    const before = host.svsmBytes()
    expect(remap(host, rcx)).toMatchObject({ result, pending: 0 })
    expect(host.state.running[0]!.caGpa).toBe(CA)
    expect(host.svsmBytes()).toBe(before)
    expect(remap(host, OTHER_CA).result).toBe(SUCCESS)
  })

  it.each([
    ["another page of RAM", OTHER_CA],
    ["page 0", 0],
    ["the last validated page", 0x20_0000 - PAGE_SIZE],
    ["the first page of the firmware", FIRMWARE.gpa],
    ["its last page", FIRMWARE.gpa + FIRMWARE.size - PAGE_SIZE]
  ])("moves to %s: both areas cleared, the next call rings there", (_, gpa) => {
    const host = new ScriptedHost().boot()
    host.fill(gpa, 0xff)
    expect(remap(host, gpa)).toMatchObject({ result: SUCCESS, rcx: gpa, pending: 0 })
    expect([host.peek(gpa).getUint32(0), host.peek(gpa).getUint32(4)]).toEqual([0, 0])
    // Behind the header the page is the guest's.
    expect(host.peek(gpa).getUint32(8)).toBe(0xffff_ffff)
    expect(host.peek(CA).getUint8(0)).toBe(0)
    expect(host.state.running[0]!.caGpa).toBe(gpa)
    expect(host.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })).toMatchObject({
      result: SUCCESS,
      pending: 0
    })
  })

  it("does not touch the old area again", () => {
    const host = new ScriptedHost().boot()
    remap(host, OTHER_CA)
    host.fill(CA, 1)
    host.seen.length = 0
    for (let i = 0; i < 3; i++) host.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
    const old = host.seen.filter(({ operation: { address } }) => address >= CA && address < CA + PAGE_SIZE)
    expect(old).toEqual([])
    expect(host.peek(CA).getUint8(0)).toBe(1)
    // It is free for others now.
    expect(remap(host, CA)).toMatchObject({ result: SUCCESS })
  })

  it("to the area it has succeeds and clears call_pending", () => {
    const host = new ScriptedHost().boot()
    for (let i = 0; i < 2; i++) {
      expect(remap(host, CA)).toMatchObject({ result: SUCCESS, pending: 0 })
      expect(host.state.running[0]!.caGpa).toBe(CA)
    }
  })

  it("clears the old call_pending before the caller can run", () => {
    const host = new ScriptedHost().boot()
    remap(host, OTHER_CA)
    const writes = host.seen
      .filter(({ operation: { op } }) => op === OP.WRITE)
      .map(({ operation }) => operation.address)
    expect(writes.indexOf(CA)).toBeGreaterThan(0)
    expect(writes.indexOf(CA)).toBeLessThan(writes.length - 1)
    expect(RAM_SIZE).toBe(SVSM.gpa)
  })

  it("of two vCPUs cannot end in one page", () => {
    const host = new ScriptedHost().boot()
    host.state.registry.push(LIVE)
    remap(host, PAGE)
    expect(host.state.registry.map(({ caGpa }) => caGpa)).toEqual([PAGE, LIVE.caGpa])
    expect(remap(host, LIVE.caGpa).result).toBe(INVALID_ADDRESS)
  })
})
