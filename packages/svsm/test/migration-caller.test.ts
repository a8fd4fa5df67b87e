import { MIGRATION_CALL, MIGRATION_RESULT, MIGRATION_ROLE, SVSM_RESULT } from "@vmpl-lab/guest"
import type { Program } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { type GuestVmsa, migrationService, type SvsmRequest, SvsmState } from "../src/index.ts"
import { isRunning } from "../src/services/migration/Park.ts"

const service = () => {
  const made = migrationService({ newPrivateKey: () => new Uint8Array(48).fill(1), genuine: () => null })
  const state = new SvsmState([made.protocol])
  Object.assign(state, { parameters: { guestVmpl: 2 } })
  return { ...made, state }
}

const vcpu = (apicId: number, vmpl: number): GuestVmsa => ({
  vmsaGpa: 0x1000 * (apicId + 1),
  caGpa: 0x9000,
  apicId,
  vmpl,
  guestOwned: true
})

const request = (call: number, caller: GuestVmsa): SvsmRequest => ({
  protocol: 0,
  call,
  rcxLo: 1,
  rcxHi: 0,
  rdxLo: 0,
  rdxHi: 0,
  r8Lo: MIGRATION_ROLE.SOURCE,
  r8Hi: 0,
  sevFeatures: 1,
  vmpl: caller.vmpl,
  caller
})

/** A result that needs no operation of the hardware. */
const answer = ({ protocol, state }: ReturnType<typeof service>, call: number, caller: GuestVmsa): number => {
  const served = protocol.serve(state, request(call, caller))
  if (typeof served === "number") return served
  const step = served.next()
  expect(step.done).toBe(true)
  return step.value as number
}

describe("who may move a guest", () => {
  it("is a vCPU of the guest's own level or a more privileged one", () => {
    expect(answer(service(), MIGRATION_CALL.HELLO, vcpu(0, 3))).toBe(MIGRATION_RESULT.WRONG_PHASE)
    // Its buffer is none, but it was heard.
    for (const vmpl of [1, 2])
      expect(answer(service(), MIGRATION_CALL.HELLO, vcpu(0, vmpl))).toBe(SVSM_RESULT.INVALID_ADDRESS)
  })

  it("is one vCPU from the first call to the last, and PARK is for all others", () => {
    const made = service()
    const [agent, other] = [vcpu(0, 2), vcpu(1, 2)]
    Object.assign(made.migration, { agent, phase: "sending" })
    for (const call of [MIGRATION_CALL.START, MIGRATION_CALL.EXPORT, MIGRATION_CALL.STOP, MIGRATION_CALL.RESUME])
      expect(answer(made, call, other)).toBe(MIGRATION_RESULT.WRONG_PHASE)
    expect(answer(made, MIGRATION_CALL.EXPORT, agent)).toBe(SVSM_RESULT.INVALID_ADDRESS)
    expect(answer(made, MIGRATION_CALL.PARK, agent)).toBe(MIGRATION_RESULT.WRONG_PHASE)
    made.state.registry.push(other, vcpu(1, 3))
    expect(answer(made, MIGRATION_CALL.PARK, other)).toBe(MIGRATION_RESULT.MORE_LEVELS)
  })

  it("counts a vCPU that is about to park as one that runs, until it has", () => {
    const made = service()
    const [agent, other] = [vcpu(0, 2), vcpu(1, 2)]
    Object.assign(made.migration, { agent, phase: "sending" })
    made.state.registry.push(agent, other)
    const parking = made.protocol.serve(made.state, request(MIGRATION_CALL.PARK, other)) as Program<number>
    expect(parking.next().done).toBe(false)
    expect(made.migration.parking).toEqual(new Set([other]))
    expect(made.migration.parked.size).toBe(0)
    expect(isRunning(made.state, made.migration)).toBe(true)
  })

  it("stops for every vCPU that exists, whoever was parked and deleted", () => {
    const made = service()
    const [agent, gone, runs] = [vcpu(0, 2), vcpu(1, 2), vcpu(2, 2)]
    Object.assign(made.migration, { agent, phase: "sending" })
    made.state.registry.push(agent, runs)
    made.migration.parked.add(gone)
    expect(isRunning(made.state, made.migration)).toBe(true)
    made.migration.parked.add(runs)
    expect(isRunning(made.state, made.migration)).toBe(false)
  })

  it("asks for no call that there is not", () => {
    expect(answer(service(), 11, vcpu(0, 2))).toBe(SVSM_RESULT.UNSUPPORTED_CALL)
  })
})
