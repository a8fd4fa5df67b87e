import { BLOCK, blockOf, type ClientJob, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import {
  type Capabilities,
  defineCall,
  defineService,
  GuestMachine,
  guestBuffer,
  HANDLER_COST,
  hostService,
  refuse,
  type Service,
  serviceGuest,
  type TaggedFailure,
  u32,
  u64
} from "@vmpl-lab/lab"
import { GUEST_BUFFER_COST } from "@vmpl-lab/svsm"
import * as Effect from "effect/Effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { profile } from "../support/guestRun.ts"

const PROTOCOL = 0x1234

const machineWith = async (service: Service, seed = 1) => {
  const { launched } = serviceGuest(STRATEGIES[0]!)
  const { service: served, answerer } = hostService(service, seed)
  const guest = new GuestMachine({ ...launched, profile, seed, services: [served], answerers: [answerer] })
  await Effect.runPromise(guest.boot)
  const call = (registers: { rcx?: number; rdx?: number; r8?: number }, options: Partial<ClientJob> = {}) =>
    Effect.runPromise(
      guest.run({
        kind: "call",
        protocol: PROTOCOL,
        call: 0,
        registers,
        writes: [],
        reads: [],
        ...options
      } as ClientJob)
    )
  return { guest, call, page: guest.buffers[0]!, parameters: launched.svsm.parameters, svsm: launched.svsm }
}

/** A service whose one call tells what its handler got. */
const listening = (seen: Array<{ readonly word: number; readonly size: number }>) =>
  defineService({
    name: "listening",
    protocol: PROTOCOL,
    version: { min: 1, max: 1 },
    calls: {
      listen: defineCall({
        call: 0,
        uses: [],
        costNs: 0,
        request: {
          buffer: guestBuffer("rcx", { size: { register: "rdx", min: 1, max: 4096 }, align: 16 }),
          word: u32("r8")
        },
        reply: {},
        handler: ({ buffer, word }) =>
          Effect.sync(() => {
            seen.push({ word, size: buffer.size })
            return {}
          })
      })
    }
  })

describe("what a handler never hears of", () => {
  const P = SVSM_RESULT.INVALID_PARAMETER
  const A = SVSM_RESULT.INVALID_ADDRESS

  it("addresses that are not aligned, not the guest's, the SVSM's own, or not validated; values out of bounds", async () => {
    const seen: Array<{ readonly word: number; readonly size: number }> = []
    const { call, page, parameters, svsm } = await machineWith(listening(seen))
    const { ramSize, svsm: own } = parameters
    const unvalidated = blockOf(svsm, 0)
    const at = async (rcx: number, rdx = 16, r8 = 5) => (await call({ rcx, rdx, r8 })).result
    expect(await at(page)).toBe(SVSM_RESULT.SUCCESS)
    expect(seen).toEqual([{ word: 5, size: 16 }])
    expect(await at(page + 8)).toBe(P)
    expect(await at(page, 0)).toBe(P)
    expect(await at(page, 4097)).toBe(P)
    expect(await at(page, 16, 2 ** 32)).toBe(P)
    expect(await at(page + 4096, 4096)).toBe(SVSM_RESULT.SUCCESS)
    expect(await at(page + 4096 + 16, 4096)).toBe(A)
    for (const gpa of [own.gpa, own.gpa + own.size - 16, ramSize - 16, unvalidated, 2 ** 51, 2 ** 52]) {
      expect(await at(gpa), gpa.toString(16)).toBe(A)
    }
    // The calling area in use is the guest's memory, but its first 8 bytes are between guest and SVSM alone.
    expect(await at(unvalidated + BLOCK.CALLING_AREA)).toBe(A)
    expect(await at(unvalidated + BLOCK.CALLING_AREA + 16)).toBe(SVSM_RESULT.SUCCESS)
    expect(await at(unvalidated + BLOCK.GHCB)).toBe(A)
    expect(seen).toHaveLength(3)
  })

  it("anything outside of the guest's RAM, whatever the registers hold", async () => {
    const seen: Array<{ readonly word: number; readonly size: number }> = []
    const { call, page, parameters } = await machineWith(listening(seen))
    const { svsm, firmware, ramSize } = parameters
    const near = (gpa: number) => fc.integer({ min: -0x2000, max: 0x2000 }).map((offset) => Math.max(0, gpa + offset))
    const address = fc.oneof(
      fc.maxSafeNat(),
      near(page),
      near(svsm.gpa),
      near(svsm.gpa + svsm.size),
      near(firmware.gpa),
      near(firmware.gpa + firmware.size)
    )
    await fc.assert(
      fc.asyncProperty(address, fc.oneof(fc.nat(8192), fc.maxSafeNat()), fc.maxSafeNat(), async (rcx, rdx, r8) => {
        const before = seen.length
        const { result } = await call({ rcx, rdx, r8 })
        const isInRam = rcx + rdx <= ramSize || (rcx >= firmware.gpa && rcx + rdx <= firmware.gpa + firmware.size)
        const isServed = result === SVSM_RESULT.SUCCESS
        expect(seen.length - before).toBe(isServed ? 1 : 0)
        if (isServed) expect(isInRam && rcx % 16 === 0 && rdx >= 1 && rdx <= 4096 && r8 < 2 ** 32).toBe(true)
        else expect([P, A]).toContain(result)
      }),
      { numRuns: 300, seed: 7 }
    )
  })
})

/** A service with one call that does what it is told. */
const doing = (
  handler: (
    svsm: Capabilities & { readonly vmpl: number; readonly apicId: number }
  ) => Effect.Effect<bigint, TaggedFailure>,
  errors: Service["errors"] = {}
): Service =>
  defineService({
    name: "doing",
    protocol: PROTOCOL,
    version: { min: 1, max: 3 },
    errors,
    calls: {
      do: defineCall({
        call: 0,
        uses: ["secrets", "firmware", "clock", "random", "host"],
        costNs: 0,
        request: {},
        reply: { value: u64("r8") },
        handler: (_, svsm) => Effect.map(handler(svsm), (value) => ({ value }))
      })
    }
  })

describe("capabilities", () => {
  const number = (bytes: Uint8Array): bigint => bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n)

  it("random bytes are the seed's, and others with each call", async () => {
    const service = doing(({ random }) => Effect.map(random(6), number))
    const [first, same, other] = [await machineWith(service), await machineWith(service), await machineWith(service, 2)]
    const draws = [(await first.call({})).r8, (await first.call({})).r8]
    expect([(await same.call({})).r8, (await same.call({})).r8]).toEqual(draws)
    expect((await other.call({})).r8).not.toBe(draws[0])
    expect(draws[0]).not.toBe(draws[1])
  })

  it("secrets last from call to call, and are copies", async () => {
    const service = doing(({ secrets }) =>
      Effect.gen(function* () {
        const bytes = (yield* secrets.get("n")) ?? new Uint8Array(1)
        bytes[0]! += 1
        yield* secrets.set("n", bytes)
        bytes[0] = 99
        return BigInt((yield* secrets.get("n"))![0]!)
      })
    )
    const { call } = await machineWith(service)
    expect([(await call({})).r8, (await call({})).r8]).toEqual([1, 2])
    expect(Math.abs((await call({})).ns - 6_130 - 3 * HANDLER_COST.SECRET)).toBeLessThan(20)
  })

  it("what is done on the host costs what is said, however long it takes", async () => {
    const service = doing(({ host, clock }) =>
      Effect.gen(function* () {
        const begin = yield* clock
        yield* host(12_345, Effect.sleep("30 millis"))
        return BigInt((yield* clock) - begin)
      })
    )
    const { call } = await machineWith(service)
    expect(Math.abs((await call({})).r8 - 12_345)).toBeLessThanOrEqual(1)
  })

  it("a handler hears who called, and its refusals are results", async () => {
    const { call } = await machineWith(doing(({ vmpl, apicId }) => Effect.succeed(BigInt(16 * vmpl + apicId))))
    expect((await call({ r8: 9 })).r8).toBe(0x20)
    const refused = await machineWith(doing(() => Effect.fail(refuse(0x17))))
    const { result, r8 } = await refused.call({ r8: 9 })
    expect([result, r8]).toEqual([SVSM_RESULT.FAIL_BASE + 0x17, 9])
  })

  it("QUERY_PROTOCOL tells its versions", async () => {
    const { call } = await machineWith(doing(() => Effect.succeed(0n)))
    const query = async (version: number) =>
      (await call({ rcx: PROTOCOL * 0x1_0000_0000 + version }, { protocol: 0, call: 6 } as Partial<ClientJob>)).rcx
    expect([await query(0), await query(1), await query(3), await query(4)]).toEqual([
      0, 0x3_0000_0001, 0x3_0000_0001, 0
    ])
  })
})

describe("guest buffers", () => {
  it("are read and written across pages, at a price for each page and each KiB", async () => {
    const service = defineService({
      name: "reversing",
      protocol: PROTOCOL,
      version: { min: 1, max: 1 },
      calls: {
        reverse: defineCall({
          call: 0,
          uses: [],
          costNs: 0,
          request: { buffer: guestBuffer("rcx", { size: 1024 }) },
          reply: {},
          handler: ({ buffer }) =>
            Effect.as(
              Effect.flatMap(buffer.read(), (bytes) => buffer.write(bytes.reverse())),
              {}
            )
        })
      }
    })
    const { call, page } = await machineWith(service)
    const gpa = page + 4096 - 512
    const [low, high] = [new Uint8Array(512).fill(1), new Uint8Array(512).fill(2)]
    const [readLow, readHigh] = [new Uint8Array(512), new Uint8Array(512)]
    const writes = [
      { gpa, bytes: low },
      { gpa: gpa + 512, bytes: high }
    ]
    const reads = [
      { gpa, bytes: readLow },
      { gpa: gpa + 512, bytes: readHigh }
    ]
    const { result, ns, switchNs } = await call({ rcx: gpa }, { writes, reads } as Partial<ClientJob>)
    expect(result).toBe(SVSM_RESULT.SUCCESS)
    expect([readLow, readHigh]).toEqual([high, low])
    const copies = 4 * (GUEST_BUFFER_COST.MAP_PAGE + Math.ceil(GUEST_BUFFER_COST.COPY_KIB / 2))
    expect(Math.abs(ns - switchNs - copies)).toBeLessThanOrEqual(1)
  })
})
