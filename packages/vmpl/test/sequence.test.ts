import { EXIT, VMSA } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  GuestException,
  hlt,
  type Operation,
  type Program,
  rdmsr,
  read,
  readRegister,
  recordedSequence,
  sequence,
  vmgexit,
  write,
  writeRegister,
  xchg8
} from "../src/index.ts"
import { ASID, GPA, PFN, TestMachine } from "./machine.ts"

/** An MSR that the model does not know: #GP. */
const UNKNOWN_MSR = 0x1234_5678

const operation: fc.Arbitrary<() => Operation> = fc.oneof(
  fc.tuple(fc.nat(15), fc.constantFrom(1, 2, 4, 8), fc.nat()).map(
    ([at, size, value]) =>
      () =>
        write(GPA.data + 8 * at, size, value, value)
  ),
  fc.tuple(fc.nat(15), fc.constantFrom(1, 2, 4, 8)).map(
    ([at, size]) =>
      () =>
        read(GPA.data + 8 * at, size)
  ),
  fc.tuple(fc.nat(15), fc.nat(255)).map(
    ([at, value]) =>
      () =>
        xchg8(GPA.data + at, value)
  ),
  fc.nat().map((value) => () => writeRegister(VMSA.rcx, value, 7)),
  fc.constant(() => readRegister(VMSA.rcx)),
  fc.constant(() => vmgexit()),
  // Validated by nobody: #VC without a handler ends the guest in the middle.
  fc.constant(() => read(GPA.spare, 4))
)

/** All that hardware and host see of a program that yields these operations, exit after exit. */
const observe = (program: () => Program): unknown => {
  const machine = new TestMachine()
  machine.install(program)
  const exits: Array<unknown> = []
  for (let i = 0; i < 40; i++) {
    const code = machine.run()
    const frames: Array<unknown> = []
    machine.memory.forEachFrame((pfn, asid, bytes) => frames.push([pfn, asid, Buffer.from(bytes).toString("base64")]))
    exits.push([code, frames, machine.cpu.thread.time])
    if (code !== EXIT.VMGEXIT) break
  }
  return exits
}

describe("a sequence of operations", () => {
  it("is for the hardware what its operations are one by one, wherever they are cut", () => {
    const cut = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1 })
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 20 }), cut, (operations, lengths) => {
        const single = observe(function* () {
          for (const make of operations) yield make()
        })
        const grouped = observe(function* () {
          for (let i = 0, k = 0; i < operations.length; k++) {
            const length = lengths[k % lengths.length]!
            yield sequence(operations.slice(i, i + length).map((make) => make()))
            i += length
          }
        })
        expect(grouped).toEqual(single)
      })
    )
  })

  it("gives the program the last result, and all of them where it is recorded", () => {
    const machine = new TestMachine()
    const all = recordedSequence([read(GPA.data, 8), vmgexit(), read(GPA.data + 8, 4), readRegister(VMSA.rcx)])
    machine.install(function* () {
      yield sequence([write(GPA.data, 8, 1, 2), write(GPA.data + 8, 4, 3), writeRegister(VMSA.rcx, 4, 5)])
      const { lo, hi } = yield all
      machine.log.push(`${lo} ${hi}`)
      yield hlt()
    })
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log).toEqual(["4 5"])
    expect([...all.outcomes.slice(0, 2), ...all.outcomes.slice(4)]).toEqual([1, 2, 3, 0, 4, 5])
  })

  it("is dropped from the operation on that raises an exception", () => {
    const machine = new TestMachine()
    machine.install(function* () {
      yield write(GPA.data, 2, 0)
      try {
        yield sequence([write(GPA.data, 1, 1), rdmsr(UNKNOWN_MSR), write(GPA.data + 1, 1, 1)])
      } catch (exception) {
        if (!(exception instanceof GuestException)) throw exception
        machine.log.push(exception.vector)
      }
      const { lo } = yield read(GPA.data, 2)
      machine.log.push(lo.toString(16))
      yield hlt()
    })
    expect(machine.run()).toBe(EXIT.HLT)
    expect(machine.log).toEqual(["#GP", "1"])
    expect(machine.memory.read(PFN.data, ASID).getUint16(0, true)).toBe(1)
  })

  it("goes on where an interrupt has cut it, with its own outcomes", () => {
    const machine = new TestMachine()
    const all = recordedSequence([read(GPA.data, 1), read(GPA.data + 1, 1), read(GPA.data + 2, 1)])
    machine.install(function* () {
      yield sequence([write(GPA.data, 4, 0x03_02_01)])
      yield all
      yield hlt()
    })
    // A physical interrupt arrives before each operation in turn; what is restarted or goes on is the sequence.
    let exits = 0
    for (let code = EXIT.INTR as number; code === EXIT.INTR && exits < 20; exits++) {
      if (machine.vmrun() !== "entered") throw new Error("VMRUN fails")
      machine.cpu.interruptAt = machine.cpu.thread.time + 1
      code = machine.resume()
    }
    expect(all.outcomes.filter((_, i) => i % 2 === 0)).toEqual(Float64Array.of(1, 2, 3))
    expect(machine.memory.read(PFN.data, ASID).getUint32(0, true)).toBe(0x03_02_01)
  })
})
