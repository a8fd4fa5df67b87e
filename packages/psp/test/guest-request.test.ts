import { PAGE_2M } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type GuestRequest, SnpFirmware, STATUS, type Status } from "../src/index.ts"
import {
  bytesOf,
  LARGE_PAGE,
  makeMachine,
  openGuestResponse,
  REQUEST,
  RESPONSE,
  RMP_FRAME,
  type Sealing
} from "./guest-message-support.ts"
import { KeyedMemory } from "./support.ts"

const TSC_INFO = 0x11
const TSC_PAYLOAD = new Uint8Array(0x80)

/** One mistake in an otherwise good request. */
interface Mistake {
  readonly command?: Partial<GuestRequest>
  readonly sealing?: Partial<Sealing>
  /** Changes the frame after it was sealed. */
  readonly damage?: (frame: Uint8Array) => void
  readonly offset?: number
  readonly isFinished?: boolean
  readonly isLarge?: boolean
}

/** Mistakes in the order in which the command finds them. */
const MISTAKES: ReadonlyArray<readonly [name: string, mistake: Mistake, status: Status]> = [
  ["the context lies in the RMP", { command: { gctx: RMP_FRAME } }, "INVALID_PARAM"],
  ["the context is no Context page", { command: { gctx: 9 } }, "INVALID_GUEST"],
  ["the response page is not Firmware", { command: { responsePfn: 10 } }, "INVALID_PAGE_STATE"],
  ["the request page has 2 MiB", { isLarge: true }, "INVALID_PAGE_SIZE"],
  ["the guest is in LAUNCH", { isFinished: false }, "INVALID_GUEST_STATE"],
  ["the header's size is 0x61", { sealing: { header: { 50: 0x61 } } }, "INVALID_PARAM"],
  ["the tag is another", { damage: (frame) => (frame[0]! ^= 1) }, "BAD_MEASUREMENT"],
  ["the sequence number is two too high", { sealing: { sequence: 3n } }, "AEAD_OFLOW"],
  ["the message's version is 2", { sealing: { version: 2 } }, "INVALID_PARAM"],
  ["the reply does not fit behind its offset", { command: { responseOffset: 0xf30 } }, "INVALID_PARAM"]
]

const attempt = (mistakes: ReadonlyArray<Mistake>) => {
  const all: Mistake = Object.assign({}, ...mistakes)
  const command: Partial<GuestRequest> = Object.assign({}, ...mistakes.map((one) => one.command).reverse())
  const sealing: Partial<Sealing> = Object.assign({}, ...mistakes.map((one) => one.sealing))
  const machine = makeMachine({ isFinished: all.isFinished ?? true })
  const { rmp, memory, guest, put, run, seal } = machine
  if (all.isLarge === true) rmp.rmpupdate(LARGE_PAGE, true, PAGE_2M, true, 0, 0)
  const frame = seal({ type: TSC_INFO, payload: TSC_PAYLOAD, ...sealing })
  all.damage?.(frame)
  put(frame, all.offset)
  if (all.isLarge === true) memory.writePlain(LARGE_PAGE, memory.readPlain(REQUEST))
  const status = run({ ...(all.isLarge === true ? { requestPfn: LARGE_PAGE } : {}), ...command })
  return { ...machine, status, isUntouched: !memory.raw.has(RESPONSE) && guest.messageCount.every((n) => n === 0n) }
}

describe("checks of SNP_GUEST_REQUEST", () => {
  it.each(MISTAKES)("%s", (_, mistake, status) => {
    expect(attempt([mistake])).toMatchObject({ status, isUntouched: true })
  })

  it.each(MISTAKES.map(([name, , status], i) => [name, i, status] as const))(
    "comes before what follows it: %s",
    (_, i, status) => {
      expect(attempt(MISTAKES.slice(i).map(([, mistake]) => mistake))).toMatchObject({ status, isUntouched: true })
    }
  )

  it.each<readonly [string, Mistake, Status]>([
    ["the request lies in the RMP", { command: { requestPfn: RMP_FRAME + 1 } }, "INVALID_PARAM"],
    ["the reply lies in the RMP", { command: { responsePfn: RMP_FRAME } }, "INVALID_PARAM"],
    ["the header leaves its page", { command: { requestOffset: PAGE_SIZE - 0x5f } }, "INVALID_PARAM"],
    ["header version 0", { sealing: { header: { 49: 0 } } }, "INVALID_PARAM"],
    ["header version 2", { sealing: { header: { 49: 2 } } }, "INVALID_PARAM"],
    ["header size 0x160", { sealing: { header: { 51: 1 } } }, "INVALID_PARAM"],
    ["algorithm 0", { sealing: { header: { 48: 0 } } }, "INVALID_PARAM"],
    ["algorithm 2", { sealing: { header: { 48: 2 } } }, "INVALID_PARAM"],
    ["no payload", { sealing: { payload: new Uint8Array(0) } }, "INVALID_PARAM"],
    ["a payload of 17 bytes", { sealing: { payload: new Uint8Array(17) } }, "INVALID_PARAM"],
    ["a payload that leaves the page", { sealing: { header: { 55: 0x10 } } }, "INVALID_PARAM"],
    ["a payload that would fit without its header", { sealing: { header: { 54: 0xb0, 55: 0x0f } } }, "INVALID_PARAM"],
    ["VMPCK 4", { sealing: { header: { 60: 4 } } }, "INVALID_PARAM"],
    ["VMPCK 1 in the header, key of VMPCK 0", { sealing: { header: { 60: 1 } } }, "BAD_MEASUREMENT"],
    ["a later number in the header", { damage: (frame) => (frame[0x20]! += 2) }, "BAD_MEASUREMENT"],
    ["a reserved byte of the header", { damage: (frame) => (frame[0x3d] = 1) }, "BAD_MEASUREMENT"],
    ["another type", { damage: (frame) => (frame[0x34] = 5) }, "BAD_MEASUREMENT"],
    ["a bit of the ciphertext", { damage: (frame) => (frame[0x60]! ^= 0x80) }, "BAD_MEASUREMENT"],
    ["the last byte of the tag", { damage: (frame) => (frame[15]! ^= 1) }, "BAD_MEASUREMENT"],
    ["sequence number 0", { sealing: { sequence: 0n } }, "AEAD_OFLOW"],
    ["sequence number 2", { sealing: { sequence: 2n } }, "AEAD_OFLOW"],
    ["message version 0", { sealing: { version: 0 } }, "INVALID_PARAM"],
    ["type 0", { sealing: { type: 0 } }, "INVALID_PARAM"],
    ["a reply's type", { sealing: { type: 6 } }, "INVALID_PARAM"],
    ["type 0x13", { sealing: { type: 0x13 } }, "INVALID_PARAM"]
  ])("refuse without a trace: %s", (_, mistake, status) => {
    expect(attempt([mistake])).toMatchObject({ status, isUntouched: true })
  })

  it("do not reach bytes that are not authenticated", () => {
    const damage = (frame: Uint8Array): void => {
      frame[0x10] = 1
      frame[0x28] = 1
    }
    expect(attempt([{ damage }]).status).toBe("SUCCESS")
  })

  it("take a reserved byte that the guest itself has set", () => {
    expect(attempt([{ sealing: { header: { 56: 1, 95: 1 } } }]).status).toBe("SUCCESS")
  })

  it("take a payload that fills its page, but not further into the page", () => {
    const { put, run, seal, ask } = makeMachine()
    ask(TSC_INFO, new Uint8Array(PAGE_SIZE - 0x60))
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD }), PAGE_SIZE - 0x60 - 0x80)
    expect(run({ requestOffset: PAGE_SIZE - 0x60 - 0x80 })).toBe("SUCCESS")
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD }).subarray(0, 0xd0), PAGE_SIZE - 0xd0)
    expect(run({ requestOffset: PAGE_SIZE - 0xd0 })).toBe("INVALID_PARAM")
  })

  it("begin with the platform's state", () => {
    const { rmp, put, seal } = makeMachine()
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD }))
    const firmware = new SnpFirmware(rmp, new KeyedMemory(), { seed: 1, initialised: false })
    const command = { gctx: RMP_FRAME, requestPfn: REQUEST, responsePfn: RESPONSE }
    expect(firmware.guestRequest(command)).toBe("INVALID_PLATFORM_STATE")
  })

  it("refuse a reply page of 2 MiB, and take a request page that no entry covers", () => {
    const { rmp, memory, put, run, seal } = makeMachine()
    rmp.rmpupdate(LARGE_PAGE, true, PAGE_2M, true, 0, 0)
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD }))
    expect(run({ responsePfn: LARGE_PAGE })).toBe("INVALID_PAGE_SIZE")
    expect(run({ responsePfn: LARGE_PAGE + 3 })).toBe("INVALID_PAGE_SIZE")
    memory.writePlain(0x10000, memory.readPlain(REQUEST))
    expect(run({ requestPfn: 0x10000 })).toBe("SUCCESS")
  })
})

describe("sequence numbers", () => {
  it("count by two for each VMPCK alone", () => {
    const { guest, ask } = makeMachine()
    for (const vmpck of [0, 0, 2, 3, 0, 2]) ask(TSC_INFO, TSC_PAYLOAD, vmpck)
    expect(guest.messageCount).toEqual([6n, 0n, 4n, 2n])
  })

  it("refuse a message that is sent again, and the reply sent as a request", () => {
    const { memory, guest, put, run, seal } = makeMachine()
    const frame = seal({ type: TSC_INFO, payload: TSC_PAYLOAD })
    put(frame)
    expect(run()).toBe("SUCCESS")
    const reply = memory.readPlain(RESPONSE)
    expect(run()).toBe("AEAD_OFLOW")
    put(reply.subarray(0, 0x60 + 0x80))
    expect(run()).toBe("AEAD_OFLOW")
    expect(memory.readPlain(RESPONSE)).toEqual(reply)
    expect(guest.messageCount[0]).toBe(2n)
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD }))
    expect(run()).toBe("SUCCESS")
    expect(memory.readPlain(RESPONSE)).not.toEqual(reply)
  })

  it("may be used again where the command was refused after the message was opened", () => {
    const { guest, put, run, seal, ask } = makeMachine()
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD, version: 2 }))
    expect(run()).toBe("INVALID_PARAM")
    expect(guest.messageCount[0]).toBe(0n)
    ask(TSC_INFO, TSC_PAYLOAD)
  })

  it.each<readonly [bigint, Status, bigint]>([
    [2n ** 64n - 4n, "SUCCESS", 2n ** 64n - 2n],
    [2n ** 64n - 2n, "AEAD_OFLOW", 2n ** 64n - 2n]
  ])("end before they overflow: count %i", (count, status, after) => {
    const { guest, put, run, seal } = makeMachine()
    guest.messageCount[1] = count
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD, vmpck: 1 }))
    expect(run()).toBe(status)
    expect(guest.messageCount[1]).toBe(after)
  })
})

describe("the reply", () => {
  it("goes where it was asked to, and the rest of its page stays", () => {
    const { memory, guest, put, run, seal } = makeMachine()
    memory.writePlain(RESPONSE, new Uint8Array(PAGE_SIZE).fill(0x55))
    put(seal({ type: TSC_INFO, payload: TSC_PAYLOAD }), 0x700)
    expect(run({ requestOffset: 0x700, responseOffset: 0xf20 })).toBe("SUCCESS")
    const page = memory.readPlain(RESPONSE)
    expect(page.subarray(0, 0xf20).every((byte) => byte === 0x55)).toBe(true)
    expect(openGuestResponse(guest.vmpck[0], page.subarray(0xf20)).sequence).toBe(2n)
  })

  it("is sealed although the message is refused, and counts", () => {
    const { guest, ask } = makeMachine()
    expect(ask(TSC_INFO, bytesOf(0x80, { 124: 1 })).status).toBe(STATUS.INVALID_PARAM)
    expect(guest.messageCount[0]).toBe(2n)
  })

  it("is the same in every run", () => {
    const page = () => {
      const machine = makeMachine()
      machine.ask(5, new Uint8Array(0x60))
      return machine.memory.readPlain(RESPONSE)
    }
    expect(page()).toEqual(page())
  })
})

describe("any request page", () => {
  const statuses = new Set<Status>()

  it("gets a status, and a refusal leaves the reply's page alone", () => {
    const { memory, guest, put, run, seal } = makeMachine()
    const random = fc.uint8Array({ maxLength: 0x200 }).map((bytes) => ({ kind: "raw" as const, bytes }))
    const sealed = fc.record({
      kind: fc.constant("sealed" as const),
      type: fc.nat(0x14),
      version: fc.integer({ min: 0, max: 2 }),
      vmpck: fc.nat(3),
      blocks: fc.integer({ min: 1, max: 0xfa }),
      bytes: fc.uint8Array({ maxLength: 0x60 }),
      header: fc.dictionary(fc.integer({ min: 0x30, max: 0x5f }).map(String), fc.nat(255), { maxKeys: 1 }),
      late: fc.boolean(),
      damaged: fc.option(fc.nat(0x5f), { freq: 3 })
    })
    fc.assert(
      fc.property(fc.oneof(random, sealed), fc.nat(PAGE_SIZE - 1), fc.boolean(), (request, at, isMoved) => {
        const requestOffset = isMoved ? at : 0
        if (request.kind === "raw") {
          const page = new Uint8Array(PAGE_SIZE)
          page.set(request.bytes.subarray(0, PAGE_SIZE - requestOffset), requestOffset)
          memory.writePlain(REQUEST, page)
        } else {
          const { type, version, vmpck, blocks, bytes, header, late, damaged } = request
          const payload = new Uint8Array(16 * blocks)
          payload.set(bytes.subarray(0, payload.length))
          const sequence = guest.messageCount[vmpck]! + (late ? 3n : 1n)
          const frame = seal({ type, version, vmpck, payload, header, sequence })
          if (damaged !== null) frame[damaged]! ^= 1
          put(frame)
        }
        const [before, counts] = [memory.readPlain(RESPONSE).slice(), [...guest.messageCount]]
        const status = run(request.kind === "raw" ? { requestOffset } : {})
        statuses.add(status)
        expect(STATUS[status]).toBeTypeOf("number")
        const isUntouched = Buffer.compare(before, memory.readPlain(RESPONSE)) === 0
        expect(isUntouched).toBe(status !== "SUCCESS")
        const advance = guest.messageCount.reduce((sum, count, i) => sum + count - counts[i]!, 0n)
        expect(advance).toBe(status === "SUCCESS" ? 2n : 0n)
      }),
      { seed: 42, numRuns: 600 }
    )
  })

  it("has met successes and each kind of refusal", () => {
    expect([...statuses].sort()).toEqual(["AEAD_OFLOW", "BAD_MEASUREMENT", "INVALID_PARAM", "SUCCESS"])
  })
})
