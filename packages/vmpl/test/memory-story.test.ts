// @section 3.3
import { FAULT, PAGE_4K } from "@vmpl-lab/rmp"
import { EXIT, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { HOST_ASID, hlt, type Operation, pvalidate, read, vmgexit, write, writeBytes } from "../src/index.ts"
import { ASID, GFN, GPA, PFN, script, TestMachine } from "./machine.ts"

const SECRET = Uint8Array.from({ length: PAGE_SIZE }, (_, i) => (i * 7 + 3) & 0xff)
const READ_BACK = 64

/** A guest that writes a secret, leaves, and then does the rest. */
const guest = (...rest: ReadonlyArray<Operation>): TestMachine => {
  const machine = new TestMachine()
  machine.install(
    script([writeBytes(GPA.data, SECRET), vmgexit(), ...rest, hlt()], ({ lo }, index) => {
      if (index > 1) machine.log.push(lo.toString(16))
    })
  )
  expect(machine.run()).toBe(EXIT.VMGEXIT)
  return machine
}
const secretAt = (offset: number): string => SECRET[offset]!.toString(16)

describe("ciphertext in the host's hands", () => {
  it("I2: of a private page is readable, but not written back", () => {
    const machine = guest(write(GPA.data + READ_BACK, 1, 0), vmgexit(), read(GPA.data + READ_BACK, 1))
    const old = machine.host.readPage(PFN.data)
    expect(Buffer.from(old).equals(Buffer.from(SECRET))).toBe(false)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect(machine.host.writePage(PFN.data, old)).toBe(FAULT.PF | FAULT.RMP)
    expect([machine.run(), machine.log.at(-1)]).toEqual([EXIT.HLT, "0"])
  })

  it("written back on a path without the RMP decrypts to what was there: only the RMP prevents replay", () => {
    const machine = guest(write(GPA.data + READ_BACK, 1, 0), vmgexit(), read(GPA.data + READ_BACK, 1))
    const old = machine.host.readPage(PFN.data)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    machine.memory.replace(PFN.data, HOST_ASID, old)
    expect([machine.run(), machine.log.at(-1)]).toEqual([EXIT.HLT, secretAt(READ_BACK)])
  })

  it("written back by way of RMPUPDATE is no longer validated; validated again, the replay succeeds", () => {
    const machine = guest(read(GPA.data + READ_BACK, 1), pvalidate(GPA.data, true), read(GPA.data + READ_BACK, 1))
    const old = machine.host.readPage(PFN.data)
    expect(machine.rmp.rmpupdate(PFN.data, false, PAGE_4K, false, 0, 0)).toBe(0)
    expect(machine.host.writePage(PFN.data, null)).toBe(FAULT.NONE)
    expect(machine.host.writePage(PFN.data, old)).toBe(FAULT.NONE)
    expect(machine.rmp.rmpupdate(PFN.data, true, PAGE_4K, false, GFN.data, ASID)).toBe(0)
    // The first load is #VC 0x404, for which there is no handler.
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
    machine.rmp.pvalidate(ASID, 0, GFN.data, PFN.data, PAGE_4K, PAGE_4K, true)
    expect(machine.byte(PFN.data, ASID, READ_BACK).toString(16)).toBe(secretAt(READ_BACK))
  })

  it("copied to another frame is garbage there, as the address is part of the encryption", () => {
    const machine = guest(read(GPA.private2 + READ_BACK, 8))
    machine.memory.replace(PFN.private2, HOST_ASID, machine.host.readPage(PFN.data))
    expect(machine.run()).toBe(EXIT.HLT)
    const there = Uint8Array.from({ length: PAGE_SIZE }, (_, i) => machine.byte(PFN.private2, ASID, i))
    const equal = there.filter((byte, i) => byte === SECRET[i]).length
    // One byte of 256 agrees by chance.
    expect(equal).toBeLessThan(PAGE_SIZE / 64)
  })

  it("means nothing once the key is destroyed, to the same ASID with a new key either", () => {
    const machine = guest(read(GPA.data + READ_BACK, 1))
    const cipher = machine.host.readPage(PFN.data)
    machine.memory.dropKey(ASID)
    expect(machine.host.readPage(PFN.data)).toEqual(cipher)
    machine.memory.setKey(
      ASID,
      Uint8Array.from({ length: 32 }, (_, i) => 200 - i)
    )
    const seen = Uint8Array.from({ length: PAGE_SIZE }, (_, i) => machine.byte(PFN.data, ASID, i))
    expect(seen.filter((byte, i) => byte === SECRET[i]).length).toBeLessThan(PAGE_SIZE / 64)
    // Nor do its registers: the VMSA is lost with the key.
    expect(machine.run()).toBe(EXIT.INVALID)
  })
})
