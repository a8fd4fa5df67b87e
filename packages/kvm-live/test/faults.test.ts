import { CHOREOGRAPHIES, LIVE_CASES, LiveFailed, OVERHEAD_CASES, runCases, Session } from "@vmpl-lab/kvm-live"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { KVM_EXIT } from "../src/kvm/Abi.ts"
import { type ImaginaryOptions, imaginaryKvm } from "./support/imaginaryKvm.ts"

const OPTIONS = { rounds: 1, share: 0.001, onProgress: () => {} }
const CASES = [...LIVE_CASES, ...CHOREOGRAPHIES]

/** All cases on an imaginary machine, every thread's calls on the same one. @returns what failed, by case */
const runAll = async (options: ImaginaryOptions) => {
  const machine = imaginaryKvm(options)
  let session: Session
  try {
    session = Session.inline("/dev/kvm", () => machine.os)
  } catch (error) {
    if (!(error instanceof LiveFailed)) throw error
    return { machine, reasons: [error.why], measured: 0 }
  }
  const { taken, notMeasured } = await runCases(session, CASES, OPTIONS)
  await session.close()
  return { machine, reasons: notMeasured.map(({ why }) => why), measured: taken.size }
}

// Whatever interrupts a spinning vCPU comes from outside: an imaginary KVM_RUN ends by itself.
const KICKED = 1

describe("an imaginary KVM", () => {
  it("is measured, and all is closed after", async () => {
    const { machine, reasons, measured } = await runAll({})
    expect(reasons).toHaveLength(KICKED)
    expect(measured).toBe(CASES.length - KICKED)
    expect([machine.open.size, machine.mapped.size]).toEqual([0, 0])
  })

  it("any call may fail with any errno: one line names both, the other cases go on, and nothing stays open", async () => {
    const calls = (await runAll({})).machine.calls
    const named = { KVM_GET_VCPU_MMAP_SIZE: 1, KVM_CREATE_VM: 1, KVM_RUN: 1, mmap: 1, sched_setaffinity: 1 }
    const seen = new Set<string>()
    await fc.assert(
      fc.asyncProperty(fc.nat(calls.length - 1), fc.constantFrom(12, 22, 24, 25, 16, 14), async (call, errno) => {
        const { machine, reasons } = await runAll({ fails: { call, errno } })
        expect([machine.open.size, machine.mapped.size]).toEqual([0, 0])
        const name = machine.calls[call]!
        seen.add(name)
        // Reading a capability has no failure of its own, and KVM_SET_TSS_ADDR may be refused.
        const mayFail = ["KVM_CHECK_EXTENSION", "KVM_SET_TSS_ADDR"].includes(name)
        const text = reasons.filter((why) => /E(NOMEM|INVAL|MFILE|NOTTY|BUSY|FAULT)\b/.test(why)).join()
        if (!mayFail && Object.hasOwn(named, name)) expect(text).toContain(name === "mmap" ? "mmap of" : name)
      }),
      { seed: 1, numRuns: 300 }
    )
    for (const name of Object.keys(named)) expect(seen).toContain(name)
  })

  it.each([
    [KVM_EXIT.SHUTDOWN, /^KVM_RUN ends with KVM_EXIT_SHUTDOWN: the guest has triple-faulted$/],
    [KVM_EXIT.FAIL_ENTRY, /^KVM_RUN ends with KVM_EXIT_FAIL_ENTRY: the processor refuses the guest, reason \d+$/],
    [KVM_EXIT.INTERNAL_ERROR, /^KVM_RUN ends with KVM_EXIT_INTERNAL_ERROR, suberror \d+: this KVM cannot run/],
    [KVM_EXIT.HLT, /^KVM_RUN ends with KVM_EXIT_HLT, which the guest does not cause$/],
    [99, /^KVM_RUN ends with KVM_EXIT_99, which the guest does not cause$/]
  ])("a guest that ends with exit reason %i is told in one line", async (exitReason, line) => {
    const { machine, reasons } = await runAll({ exitReason })
    const ofGuests = reasons.filter((why) => why.includes("KVM_EXIT_"))
    expect(ofGuests.length).toBeGreaterThan(10)
    for (const why of ofGuests) expect(why).toMatch(line)
    expect([machine.open.size, machine.mapped.size]).toEqual([0, 0])
  })

  it("one without capabilities says which are missing", async () => {
    const { reasons } = await runAll({ capability: 0 })
    expect(reasons).toContain("this KVM lacks KVM_CAP_SYNC_REGS")
    expect(reasons).toContain("this KVM lacks KVM_CAP_IMMEDIATE_EXIT")
  })

  it("a session that is closed measures no more", async () => {
    const session = Session.inline("/dev/kvm", () => imaginaryKvm().os)
    await session.close()
    const { taken, notMeasured } = await runCases(session, OVERHEAD_CASES.slice(0, 1), OPTIONS)
    expect([taken.size, notMeasured[0]?.why]).toEqual([0, "the session is closed"])
  })
})
