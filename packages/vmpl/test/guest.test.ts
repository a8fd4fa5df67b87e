import { PERMISSION, RETURN_CODE } from "@vmpl-lab/rmp"
import { EXIT, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import {
  type Operation,
  type OperationResult,
  pvalidate,
  read,
  readBytes,
  readShared,
  rmpadjust,
  write,
  writeBytes,
  writeBytesShared,
  writeShared,
  xchg8,
  zeroPage
} from "../src/index.ts"
import { ASID, GPA, HOST_ASID, PFN, script, TestMachine } from "./machine.ts"

const show = ({ lo, hi, carry }: OperationResult): string =>
  `${lo.toString(16)}:${hi.toString(16)}${carry ? " CF" : ""}`

/** Runs operations at VMPL0 and gives what each led to, up to the first exit. */
const outcomes = (machine: TestMachine, ...operations: ReadonlyArray<Operation>) => {
  machine.install(script(operations, (result) => machine.log.push(show(result))))
  return { exit: machine.run(), log: machine.log }
}

describe("a guest's loads and stores", () => {
  it("move 1, 2, 4 and 8 bytes, little-endian, and touch no more than that", () => {
    const machine = new TestMachine()
    machine.memory.replace(PFN.data, ASID, null)
    const { exit, log } = outcomes(
      machine,
      write(GPA.data, 8, 0x4433_2211, 0x8877_6655),
      read(GPA.data, 8),
      read(GPA.data + 1, 4),
      read(GPA.data + 2, 2),
      read(GPA.data + 7, 1),
      write(GPA.data + 3, 1, 0x1ff),
      write(GPA.data + 4, 2, 0x9_aabb),
      read(GPA.data, 8),
      write(GPA.data + 1, 4, 0xdead_beef),
      read(GPA.data, 8),
      read(GPA.data + PAGE_SIZE - 8, 8)
    )
    expect(exit).toBe(EXIT.HLT)
    expect(log.filter((_, index) => ![0, 5, 6, 8].includes(index))).toEqual([
      "44332211:88776655",
      "55443322:0",
      "4433:0",
      "88:0",
      "ff332211:8877aabb",
      "adbeef11:8877aade",
      "0:0"
    ])
  })

  it("copy bytes in and out, and exchange one", () => {
    const machine = new TestMachine()
    machine.memory.replace(PFN.data, ASID, null)
    const into = new Uint8Array(4)
    const { log } = outcomes(
      machine,
      writeBytes(GPA.data + 100, Uint8Array.of(1, 2, 3, 4)),
      xchg8(GPA.data + 101, 0x77),
      xchg8(GPA.data + 101, 0x78),
      readBytes(GPA.data + 100, into)
    )
    expect([log[1], log[2]]).toEqual(["2:0", "77:0"])
    expect([...into]).toEqual([1, 0x78, 3, 4])
  })

  it("to private memory are out of the host's sight, to shared memory in it", () => {
    const machine = new TestMachine()
    const bytes = Uint8Array.from({ length: 64 }, (_, i) => i + 1)
    const { exit, log } = outcomes(
      machine,
      writeBytes(GPA.data, bytes),
      writeBytesShared(GPA.shared + 64, bytes),
      writeShared(GPA.shared, 4, 0x1234_5678),
      readShared(GPA.shared, 4)
    )
    expect([exit, log[3]]).toEqual([EXIT.HLT, "12345678:0"])
    const host = (pfn: number, at: number) => machine.host.readPage(pfn).subarray(at, at + 64)
    expect(host(PFN.data, 0)).not.toEqual(bytes)
    expect(host(PFN.shared, 64)).toEqual(bytes)
    expect(machine.host.read32(PFN.shared * PAGE_SIZE)).toBe(0x1234_5678)
  })

  it("read a private page through a shared mapping as the host does: ciphertext", () => {
    const machine = new TestMachine()
    const { log } = outcomes(machine, write(GPA.data, 4, 0x0bad_cafe), readShared(GPA.data, 4))
    const cipher = machine.host.read32(PFN.data * PAGE_SIZE)
    expect(log[1]).toBe(`${cipher.toString(16)}:0`)
    expect(cipher).not.toBe(0x0bad_cafe)
  })

  it("clear a page under the guest's key", () => {
    const machine = new TestMachine()
    const { log } = outcomes(machine, write(GPA.data + 8, 4, 7), zeroPage(GPA.data), read(GPA.data + 8, 4))
    expect(log[2]).toBe("0:0")
    expect(machine.host.readPage(PFN.data).some((byte) => byte !== 0)).toBe(true)
  })
})

describe("a guest's RMP instructions", () => {
  it("PVALIDATE gives EAX and CF, and the page becomes usable", () => {
    const machine = new TestMachine()
    const { exit, log } = outcomes(
      machine,
      pvalidate(GPA.spare, true),
      pvalidate(GPA.spare, true),
      zeroPage(GPA.spare),
      read(GPA.spare, 4),
      pvalidate(GPA.spare, false),
      pvalidate(GPA.spare, false)
    )
    const pvalidates = log.filter((_, index) => index !== 2 && index !== 3)
    expect([exit, ...pvalidates]).toEqual([EXIT.HLT, "0:0", "0:0 CF", "0:0", "0:0 CF"])
    expect(log[3]).toMatch(/^0:0/)
    expect(machine.rmp.entry(PFN.spare).validated).toBe(false)
  })

  it("RMPADJUST sets the mask of the level it names, and the VMSA bit", () => {
    const machine = new TestMachine()
    const { READ, WRITE } = PERMISSION
    const { exit, log } = outcomes(
      machine,
      rmpadjust(GPA.data, 2, READ | WRITE, false),
      rmpadjust(GPA.private2, 3, READ, true),
      rmpadjust(GPA.data, 0, READ, false),
      rmpadjust(GPA.data, 4, READ, false)
    )
    const { FAIL_PERMISSION, FAIL_INPUT } = RETURN_CODE
    expect([exit, ...log]).toEqual([EXIT.HLT, "0:0", "0:0", `${FAIL_PERMISSION}:0`, `${FAIL_INPUT}:0`])
    expect(machine.rmp.entry(PFN.data)).toMatchObject({ perms: [0xf, 0, READ | WRITE, 0], vmsa: false })
    expect(machine.rmp.entry(PFN.private2)).toMatchObject({ perms: [0xf, 0, 0, READ], vmsa: true })
  })

  it("that meet a page which is not theirs exit with a nested page fault", () => {
    for (const operation of [pvalidate(GPA.shared, true), rmpadjust(GPA.shared, 2, 1, false)]) {
      const machine = new TestMachine()
      expect(outcomes(machine, operation).exit).toBe(EXIT.NPF)
      expect(machine.vmcb("exit_info_2")).toEqual([GPA.shared, 0])
    }
  })
})

describe("a machine without the guest's key", () => {
  it("has nothing of a guest's stores in the clear", () => {
    const machine = new TestMachine()
    const bytes = Uint8Array.from({ length: 32 }, (_, i) => 200 + i)
    outcomes(machine, writeBytes(GPA.data, bytes), writeBytes(GPA.private2, bytes))
    for (let pfn = 0; pfn < 16; pfn++) {
      expect(Buffer.from(machine.host.readPage(pfn)).includes(Buffer.from(bytes))).toBe(false)
      expect(machine.byte(pfn, 2) === bytes[0] && machine.byte(pfn, 2, 1) === bytes[1]).toBe(false)
    }
    expect(machine.byte(PFN.data, ASID)).toBe(200)
    expect(machine.byte(PFN.data, HOST_ASID)).not.toBe(200)
  })
})
