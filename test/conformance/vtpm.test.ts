import { BLOCK, blockOf, type ClientJob, PROTOCOL, SVSM_RESULT, TPM_SEND_COMMAND, VTPM_CALL } from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import { GuestMachine, guestTpm, serviceGuest, TPM_COSTS, type TpmBackEnd } from "@vmpl-lab/lab"
import { GUEST_BUFFER_COST, type TpmPort, vtpm } from "@vmpl-lab/svsm"
import { OutsidePort } from "@vmpl-lab/vmpl"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { profile } from "../support/guestRun.ts"

/** Answers every command with success and what it was asked. */
const echo: TpmBackEnd = {
  send: (command) => {
    const response = new Uint8Array(10 + command.length)
    const view = new DataView(response.buffer)
    view.setUint16(0, 0x8001)
    view.setUint32(2, response.length)
    response.set(command, 10)
    return Effect.succeed(response)
  },
  powerCycle: Effect.void
}

const inputs = (strategy: Strategy) => ({ ...serviceGuest(strategy).launched, profile, seed: 1 })

const GET_RANDOM = Uint8Array.from([0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8])

/** A machine whose TPM answers `response`, ready for calls; null is a TPM without power. */
const machineWith = async (response: Uint8Array | null) => {
  const port: TpmPort = new OutsidePort()
  const seen: Array<Uint8Array> = []
  const answer = Effect.sync(() => {
    seen.push(port.open!.ask)
    port.answer(response === null ? { response } : { response, ns: 1_000 })
  })
  const guest = new GuestMachine({
    ...inputs(STRATEGIES[0]!),
    services: [vtpm(port)],
    answerers: [{ port, answer }]
  })
  await Effect.runPromise(guest.boot)
  return { guest, seen, buffer: guest.buffers[0]! }
}

/** A request as its fields say; the data that is there may be less than `size`. */
const request = (fields: { command?: number; locality?: number; size?: number }) => {
  const bytes = new Uint8Array(64)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, fields.command ?? TPM_SEND_COMMAND, true)
  bytes[4] = fields.locality ?? 0
  view.setUint32(5, fields.size ?? 12, true)
  bytes.set(GET_RANDOM, 9)
  return bytes
}

const vtpmCall = (rcx: number, write?: { gpa: number; bytes: Uint8Array }, call = 1): ClientJob => ({
  kind: "call",
  protocol: PROTOCOL.VTPM,
  call,
  registers: { rcx, rdx: 77 },
  writes: write === undefined ? [] : [write],
  reads: []
})

describe.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))(
  "a TPM under %s",
  (_, strategy) => {
    it("answers the guest, and its time is switch, service and TPM", async () => {
      const { send, end } = await Effect.runPromise(guestTpm(echo, inputs(strategy)))
      const { response, result, timing } = await Effect.runPromise(send(GET_RANDOM, 0))
      await Effect.runPromise(end)
      expect(result).toBe(SVSM_RESULT.SUCCESS)
      expect([...response.subarray(10)]).toEqual([...GET_RANDOM])
      expect(timing.tpmNs).toBe(TPM_COSTS.state.ns)
      expect(timing.switchNs).toBeGreaterThan(2_000)
      // Two copies, each of one page, of 4096 bytes and of the response with its size; the rest is the TSC's rounding.
      const copies = 2 * GUEST_BUFFER_COST.MAP_PAGE + 4 * GUEST_BUFFER_COST.COPY_KIB + 1
      expect(Math.abs(timing.serviceNs - copies)).toBeLessThanOrEqual(2)
      expect(timing.switchNs + timing.serviceNs + timing.tpmNs).toBe(timing.ns)
    })
  }
)

describe("the vTPM protocol", () => {
  it("queries: one platform command, no features", async () => {
    const { guest } = await machineWith(new Uint8Array(10))
    const { result, rcx, rdx } = await Effect.runPromise(guest.run(vtpmCall(0, undefined, VTPM_CALL.QUERY)))
    expect([result, rcx, rdx]).toEqual([SVSM_RESULT.SUCCESS, 1 << TPM_SEND_COMMAND, 0])
  })

  it("is offered by QUERY_PROTOCOL", async () => {
    const { guest } = await machineWith(new Uint8Array(10))
    const query = (protocol: number): ClientJob => ({
      kind: "call",
      protocol: 0,
      call: 6,
      registers: { rcx: protocol * 0x1_0000_0000 + 1 },
      writes: [],
      reads: []
    })
    expect((await Effect.runPromise(guest.run(query(PROTOCOL.VTPM)))).rcx).toBe(0x1_0000_0001)
    expect((await Effect.runPromise(guest.run(query(PROTOCOL.VTPM + 7)))).rcx).toBe(0)
  })

  const P = SVSM_RESULT.INVALID_PARAMETER
  const A = SVSM_RESULT.INVALID_ADDRESS
  const OUTSIDE_OF_RAM = 0x10_0000_0000
  it.each<[string, { command?: number; locality?: number; size?: number }, number]>([
    ["served", {}, SVSM_RESULT.SUCCESS],
    ["platform command 7", { command: 7 }, P],
    ["platform command 0x108", { command: 0x108 }, P],
    ["locality 1", { locality: 1 }, P],
    ["4087 bytes", { size: 4087 }, SVSM_RESULT.SUCCESS],
    ["4088 bytes", { size: 4088 }, P],
    ["4 GiB less one", { size: 0xffff_ffff }, P],
    ["no bytes", { size: 0 }, SVSM_RESULT.SUCCESS]
  ])("%s", async (_, fields, expected) => {
    const { guest, seen, buffer } = await machineWith(new Uint8Array(10))
    const { result } = await Effect.runPromise(guest.run(vtpmCall(buffer, { gpa: buffer, bytes: request(fields) })))
    expect(result).toBe(expected)
    expect(seen.map(({ length }) => length)).toEqual(expected === SVSM_RESULT.SUCCESS ? [fields.size ?? 12] : [])
  })

  it("takes a buffer of any alignment, across two of the guest's pages", async () => {
    const { guest, seen, buffer } = await machineWith(new Uint8Array(10))
    const gpa = buffer + 0x801
    const { result } = await Effect.runPromise(guest.run(vtpmCall(gpa, { gpa, bytes: request({}) })))
    expect(result).toBe(SVSM_RESULT.SUCCESS)
    expect([...seen[0]!]).toEqual([...GET_RANDOM])
  })

  it("refuses buffers that are not the guest's, or not validated", async () => {
    const { guest, seen, buffer } = await machineWith(new Uint8Array(10))
    const { svsm } = serviceGuest(STRATEGIES[0]!).launched
    const block = blockOf(svsm, 0)
    const results = []
    // None; the SVSM's own; no memory; a page that nobody has validated; a command of 0 before a page that has no end.
    for (const gpa of [
      0,
      svsm.parameters.svsm.gpa,
      OUTSIDE_OF_RAM,
      2 ** 52,
      block + BLOCK.VMSA - 0x1000,
      buffer + 0x1001
    ]) {
      results.push((await Effect.runPromise(guest.run(vtpmCall(gpa)))).result)
    }
    expect(results).toEqual([P, A, A, A, A, P])
    expect(seen).toEqual([])
  })

  it("refuses calls that there are not", async () => {
    const { guest } = await machineWith(new Uint8Array(10))
    const { result } = await Effect.runPromise(guest.run(vtpmCall(0, undefined, 2)))
    expect(result).toBe(SVSM_RESULT.UNSUPPORTED_CALL)
  })

  it("says INVALID_REQUEST without power, and where a response has no room", async () => {
    for (const response of [null, new Uint8Array(4093)]) {
      const { guest, buffer } = await machineWith(response)
      const { result } = await Effect.runPromise(guest.run(vtpmCall(buffer, { gpa: buffer, bytes: request({}) })))
      expect(result).toBe(SVSM_RESULT.INVALID_REQUEST)
    }
  })

  it("does not depend on when the answer came", async () => {
    const slow: TpmBackEnd = { ...echo, send: (command) => Effect.delay(echo.send(command), "20 millis") }
    const digests = []
    for (const tpm of [echo, slow]) {
      const { send, end, guest } = await Effect.runPromise(guestTpm(tpm, inputs(STRATEGIES[0]!)))
      await Effect.runPromise(send(GET_RANDOM, 0))
      await Effect.runPromise(end)
      digests.push(guest.machine.stateDigest())
    }
    expect(digests[0]).toBe(digests[1])
  })
})
