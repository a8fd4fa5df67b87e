import { GHCB, GHCB_MSR, VMSA } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import { ScriptedMachine } from "../../../test/support/scriptedMachine.ts"
import { resultName, svsmAnswers } from "../../../test/support/svsmAnswers.ts"
import { CORE_CALL, Ghcb, NOT_SERVED, PROTOCOL, type Ring, SVSM_RESULT, SvsmCaller } from "../src/index.ts"

const { answer, check } = svsmAnswers()
const CA = 0x1_0000
const GHCB_GPA = 0x2_0000
const { SUCCESS, INCOMPLETE, BUSY, INVALID_PARAMETER, INVALID_REQUEST } = SVSM_RESULT

/** What VMPL0 does at each ring: the result that it leaves, with the upper half of RAX; null: it does not run. */
type Served = readonly [lo: number, hi: number] | null

/** A guest that calls while SVSM and host do as they are told: the last of `served` again and again. */
const guest = (ring: Ring, served: ReadonlyArray<Served>, hostError = 0) => {
  const machine = new ScriptedMachine()
  machine.msr = [GHCB_GPA, 0]
  const rings: Array<{ readonly rcx: unknown; readonly pending: number; readonly last: unknown }> = []
  machine.onVmgexit = (at) => {
    const { address, lo } = at.stores.filter(({ cbit }) => cbit).at(-1)!
    rings.push({ rcx: at.registers.get(VMSA.rcx), pending: at.get(CA, 1)[0], last: [address, lo] })
    const rax = served[Math.min(rings.length, served.length) - 1]!
    if (rax !== null) {
      at.registers.set(VMSA.rax, rax)
      at.registers.set(VMSA.rcx, [0xdead, 0])
      at.set(CA, 1, 0)
    }
    const [lo_] = at.msr
    if ((lo_ & 0xfff) !== 0) at.msr = [GHCB_MSR.RUN_VMPL_RESPONSE, hostError]
    else at.set(GHCB_GPA + GHCB.sw_exit_info_1, 8, hostError, 0, "shared")
  }
  const caller = new SvsmCaller(CA, ring, ring === "page" ? new Ghcb(GHCB_GPA) : null)
  const result = machine.run(caller.call(PROTOCOL.CORE, CORE_CALL.REMAP_CA, { rcx: 5 }))
  return { machine, rings, result }
}
/** The result and, where the guest had to ask more than once, how often; the same by both ways to ring. */
const both = (served: ReadonlyArray<Served>, hostError = 0) => {
  const [first, second] = (["msr", "page"] as const).map((ring) => guest(ring, served, hostError))
  expect([first!.result, first!.rings.length]).toEqual([second!.result, second!.rings.length])
  const { result, rings } = first!
  return { name: result === NOT_SERVED ? "not served" : resultName(Number(result)), rings: rings.length }
}
const repeated = ({ name, rings }: ReturnType<typeof both>): string =>
  `${name} after ${rings} ring${rings === 1 ? "" : "s"}`

answer("guest/order", () => {
  const seen = (["msr", "page"] as const).map((ring) => guest(ring, [[SUCCESS, 0]]).rings[0]!)
  return seen.every(({ last, pending }) => pending === 1 && JSON.stringify(last) === JSON.stringify([CA, 1]))
    ? "call_pending = 1"
    : JSON.stringify(seen)
})
answer("guest/ring-msr", () => {
  const [lo, hi] = guest("msr", [[SUCCESS, 0]]).machine.exits[0]!
  return `0x${lo.toString(16).padStart(3, "0")}, VMPL ${hi}`
})
answer("guest/ring-page", () => {
  const { machine } = guest("page", [[SUCCESS, 0]])
  const fields = [GHCB.sw_exit_code, GHCB.sw_exit_info_1, GHCB.sw_exit_info_2]
  const written = fields.map((at) => machine.stores.find(({ address }) => address === GHCB_GPA + at)!.lo)
  return `0x${written[0]!.toString(16)}, ${written[1]}, ${written[2]}`
})
answer("guest/exchange", () => {
  const machine = new ScriptedMachine()
  machine.onVmgexit = (at) => {
    at.set(CA, 1, 0)
    at.msr = [GHCB_MSR.RUN_VMPL_RESPONSE, 0]
  }
  const looks: Array<string> = []
  machine.interrupts = (next) => {
    if (next?.address === CA && next.op !== OP.WRITE)
      looks.push(`${next.op === OP.XCHG8 ? "XCHG" : "a load"} with ${next.lo}`)
    return undefined
  }
  machine.run(new SvsmCaller(CA, "msr", null).call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, {}))
  return looks.length === 1 ? `one ${looks[0]}` : looks.join()
})
answer("guest/sign", () => {
  const { result } = guest("msr", [[INVALID_PARAMETER, 0xffff_ffff]])
  return `0x${Number(result).toString(16)}`
})
answer("guest/not-run", () => {
  const { machine, rings } = guest("page", [null])
  // Cleared, so that a later entry does not serve a call that nobody waits for.
  expect([machine.get(CA, 1)[0], rings.length]).toEqual([0, 1])
  return both([null]).name
})
answer("guest/host-error", () => both([[SUCCESS, 0]], 1).name)
answer("guest/incomplete", () =>
  repeated(
    both([
      [INCOMPLETE, 0],
      [INCOMPLETE, 0],
      [SUCCESS, 0]
    ])
  )
)
answer("guest/busy", () =>
  repeated(
    both([
      [BUSY, 0],
      [BUSY, 0],
      [SUCCESS, 0]
    ])
  )
)
answer("guest/failure", () =>
  repeated(
    both([
      [INVALID_REQUEST, 0],
      [SUCCESS, 0]
    ])
  )
)
answer("guest/registers", () => {
  const { rings } = guest("msr", [
    [INCOMPLETE, 0],
    [SUCCESS, 0]
  ])
  return JSON.stringify(rings[0]!.rcx) === JSON.stringify(rings[1]!.rcx)
    ? "sent again as at first"
    : "as the SVSM left them"
})

check()
