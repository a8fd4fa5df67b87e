import { getVariableMessage, PROTOCOL, SVSM_RESULT, UEFI_MM_CALL } from "@vmpl-lab/guest"
import { SHIPPED_PROTOCOLS, type SvsmRequest, UEFI_MM_COST, uefiMm } from "@vmpl-lab/svsm"
import { OP, type Program } from "@vmpl-lab/vmpl"
import { expect, it } from "vitest"
import { ScriptedHost } from "../../../test/support/scriptedHost.ts"
import { BUFFER } from "../../../test/support/uefiHost.ts"

const MESSAGE = getVariableMessage({ name: "A", guid: "11111111-2222-3333-4444-555555555555" }, 0)
const RESULT = { lo: 0, hi: 0, ecx: 0, edx: 0, carry: false }

/** Steps one vCPU's call; its memory holds MESSAGE. @returns the operation's number, or the call's result as text */
const stepper = (program: Program<number>) => (): number | string => {
  const { value, done } = program.next(RESULT)
  if (done === true) return `result ${value}`
  if (value.op === OP.READ_BYTES) {
    const from = value.address - BUFFER
    value.bytes!.set(MESSAGE.subarray(from, from + value.bytes!.length))
  }
  return value.op
}

it("a vCPU waits while another one's message is served, and only then", () => {
  const protocol = uefiMm()
  const { state } = new ScriptedHost("specification", [...SHIPPED_PROTOCOLS, protocol])
  const request = (): SvsmRequest => {
    const caller = { vmsaGpa: 0x1000, caGpa: 0x2000, apicId: 0, vmpl: 2, guestOwned: false }
    const registers = { rcxLo: BUFFER, rcxHi: 0, rdxLo: 0x1000, rdxHi: 0, r8Lo: 0, r8Hi: 0 }
    return { protocol: PROTOCOL.UEFI_MM, call: UEFI_MM_CALL.REQUEST, ...registers, sevFeatures: 1, vmpl: 2, caller }
  }
  const programs = [request(), request()].map((one) => protocol.serve(state, one) as Program<number>)
  const [first, second] = programs.map(stepper) as [() => number | string, () => number | string]
  const upTo = (step: () => number | string, ops: ReadonlyArray<number | string>): number | string => {
    for (;;) {
      const op = step()
      if (ops.includes(op) || typeof op === "string") return op
    }
  }
  // Header and message are read at the price of a page each; the third piece of work is the store's.
  for (let i = 0; i < 3; i++) expect(upTo(first, [OP.WORK, OP.PAUSE])).toBe(OP.WORK)
  for (let i = 0; i < 2; i++) expect(upTo(second, [OP.WORK, OP.PAUSE])).toBe(OP.WORK)
  for (let i = 0; i < 3; i++) expect(upTo(second, [OP.WORK, OP.PAUSE])).toBe(OP.PAUSE)
  // The first one writes its answer: the lock is free, the second one is served and ends.
  expect(upTo(first, [OP.WORK, OP.PAUSE])).toBe(OP.WORK)
  expect(upTo(second, [OP.WORK, OP.PAUSE])).toBe(OP.WORK)
  for (const step of [first, second]) expect(upTo(step, [])).toBe(`result ${SVSM_RESULT.SUCCESS}`)
  expect(UEFI_MM_COST.MESSAGE).toBeGreaterThan(0)
})
