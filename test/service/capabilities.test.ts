/** What a handler may use: secrets in the SVSM's pages, messages to the AMD-SP, structures in guest memory, errors by tag. */
import { type ClientJob, SVSM_RESULT } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import {
  bufferReply,
  bytes,
  type Capabilities,
  defineCall,
  defineService,
  GuestMachine,
  guestBuffer,
  guestStruct,
  hostService,
  RunFailed,
  type Service,
  serviceGuest,
  serviceTrouble,
  type TaggedFailure,
  u32,
  u64
} from "@vmpl-lab/lab"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { svsmHeapRange } from "@vmpl-lab/svsm"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { profile } from "../support/guestRun.ts"

const PROTOCOL = 0x1234

const machineWith = async (service: Service, seed = 1) => {
  const { launched } = serviceGuest(STRATEGIES[0]!)
  const hosted = hostService(service, seed)
  const { service: served, answerer } = hosted
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
  return { guest, call, page: guest.buffers[0]! }
}

type Svsm = Pick<Capabilities, "secrets" | "firmware">

const doing = (
  handler: (svsm: Svsm, rcx: number) => Effect.Effect<bigint, TaggedFailure>,
  errors: NonNullable<Service["errors"]> = {}
): Service =>
  defineService({
    name: "doing",
    protocol: PROTOCOL,
    version: { min: 1, max: 1 },
    errors,
    calls: {
      do: defineCall({
        call: 0,
        uses: ["secrets", "firmware"],
        costNs: 0,
        request: { what: u32("rcx") },
        reply: { value: u64("r8") },
        handler: ({ what }, svsm) => Effect.map(handler(svsm, what), (value) => ({ value }))
      })
    }
  })

/** System frames of the guest's whose contents, under its key, hold some bytes. */
const framesWith = ({ machine }: GuestMachine, text: Uint8Array): ReadonlyArray<number> => {
  const { rmp, memory } = machine.hardware
  return Array.from({ length: rmp.coveredPages }, (_, pfn) => pfn).filter((pfn) => {
    const { assigned, asid } = rmp.entry(pfn)
    if (!assigned || asid === 0) return false
    const { buffer, byteOffset } = memory.read(pfn, asid)
    return Buffer.from(buffer, byteOffset, PAGE_SIZE).includes(Buffer.from(text))
  })
}

const SECRET = new TextEncoder().encode("nobody else may see this secret")

describe("secrets", () => {
  it("are in validated pages of the SVSM's range to which no other level has a right, and nowhere else", async () => {
    const { guest, call } = await machineWith(doing(({ secrets }) => Effect.as(secrets.set("s", SECRET), 0n)))
    const { rmp } = guest.machine.hardware
    expect(framesWith(guest, SECRET)).toEqual([])
    expect((await call({})).result).toBe(SVSM_RESULT.SUCCESS)
    const [pfn, ...others] = framesWith(guest, SECRET)
    expect(others).toEqual([])
    const { gfn, validated, perms } = rmp.entry(pfn!)
    const heap = svsmHeapRange(guest.machine.svsm.parameters)
    expect(gfn * PAGE_SIZE >= heap.gpa && gfn * PAGE_SIZE < heap.gpa + heap.size).toBe(true)
    expect([validated, ...perms]).toEqual([true, 0xf, 0, 0, 0])
  })

  it("are wiped where they are removed or replaced by longer ones", async () => {
    const steps = [SECRET, new Uint8Array(200).fill(7)]
    const { guest, call } = await machineWith(
      doing(({ secrets }, what) => Effect.as(what < 2 ? secrets.set("s", steps[what]!) : secrets.remove("s"), 0n))
    )
    const holds = (text: Uint8Array): boolean => framesWith(guest, text).length > 0
    await call({ rcx: 0 })
    expect([holds(SECRET), holds(steps[1]!)]).toEqual([true, false])
    await call({ rcx: 1 })
    expect([holds(SECRET), holds(steps[1]!)]).toEqual([false, true])
    await call({ rcx: 2 })
    expect([holds(SECRET), holds(steps[1]!)]).toEqual([false, false])
  })

  it("are what was set last, whatever is set, replaced and removed in between", async () => {
    let job: (secrets: Svsm["secrets"]) => Effect.Effect<unknown, TaggedFailure> = () => Effect.void
    const { call } = await machineWith(doing(({ secrets }) => Effect.as(job(secrets), 0n)))
    const key = fc.constantFrom("a", "b", "c", "d")
    const step = fc.oneof(
      fc.record({ key, value: fc.uint8Array({ maxLength: 600 }) }),
      fc.record({ key, value: fc.constant(null) })
    )
    const kept = new Map<string, Uint8Array>()
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const found: Array<Uint8Array | undefined> = []
        const expected: typeof found = []
        for (const { key, value } of steps) {
          if (value === null) kept.delete(key)
          else kept.set(key, Uint8Array.from(value))
          for (const each of ["a", "b", "c", "d"]) expected.push(kept.get(each))
        }
        job = (secrets) =>
          Effect.forEach(steps, ({ key, value }) =>
            Effect.gen(function* () {
              yield* value === null ? secrets.remove(key) : secrets.set(key, value)
              for (const each of ["a", "b", "c", "d"]) found.push(yield* secrets.get(each))
            })
          )
        expect((await call({})).result).toBe(SVSM_RESULT.SUCCESS)
        expect(found).toEqual(expected)
      }),
      { numRuns: 40, seed: 5 }
    )
  })

  it("come to an end with the pages: the call is refused, and what was there stays", async () => {
    const { guest, call } = await machineWith(
      doing(
        ({ secrets }, what) =>
          what === 0
            ? Effect.map(secrets.get("1"), (value) => BigInt(value![0]!))
            : Effect.as(secrets.set(String(what), new Uint8Array(PAGE_SIZE).fill(what & 0xff)), 0n),
        { SecretsFull: 5 }
      )
    )
    const pages = svsmHeapRange(guest.machine.svsm.parameters).size / PAGE_SIZE
    for (let i = 1; i <= pages; i++) expect((await call({ rcx: i })).result).toBe(SVSM_RESULT.SUCCESS)
    expect((await call({ rcx: pages + 1 })).result).toBe(SVSM_RESULT.FAIL_BASE + 5)
    expect(await call({})).toMatchObject({ result: SVSM_RESULT.SUCCESS, r8: 1 })
    expect((await call({ rcx: 1 })).result).toBe(SVSM_RESULT.SUCCESS)
  })
})

describe("messages to the AMD-SP", () => {
  it("bring a report that binds the data, at VMPL0", async () => {
    let report = new Uint8Array(0)
    const { call } = await machineWith(
      doing(({ firmware }) =>
        Effect.map(firmware.report(SECRET), (found) => {
          report = new Uint8Array(found)
          return 0n
        })
      )
    )
    const { result, ns, switchNs } = await call({})
    expect(result).toBe(SVSM_RESULT.SUCCESS)
    // VMPL at 0x30, REPORT_DATA at 0x50. @spec SNP-ABI ATTESTATION_REPORT
    expect(new DataView(report.buffer).getUint32(0x30, true)).toBe(0)
    expect([...report.subarray(0x50, 0x50 + 64)]).toEqual([...SECRET, ...new Uint8Array(64 - SECRET.length)])
    expect(ns - switchNs).toBeGreaterThan(profile.primitives.psp_guest_request.ns)
  })

  it("derive keys: the same for the same selection, another for another", async () => {
    const keys: Array<string> = []
    const { call } = await machineWith(
      doing(({ firmware }, fields) =>
        Effect.map(firmware.key({ root: "guest", fields, vmpl: 0 }), (key) => {
          keys.push(Buffer.from(key).toString("hex"))
          return BigInt(key.length)
        })
      )
    )
    for (const rcx of [0, 1, 0]) expect((await call({ rcx })).r8).toBe(32)
    expect(keys[2]).toBe(keys[0])
    expect(keys[1]).not.toBe(keys[0])
    // A bit that the firmware does not know.
    expect((await call({ rcx: 0x40 })).result).toBe(SVSM_RESULT.INVALID_REQUEST)
  })

  it("tell of the TSC", async () => {
    const { call } = await machineWith(doing(({ firmware }) => Effect.map(firmware.tscInfo, ({ offset }) => offset)))
    expect(await call({})).toMatchObject({ result: SVSM_RESULT.SUCCESS, r8: 0 })
  })
})

class CounterFull extends Data.TaggedError("CounterFull") {}

describe("errors", () => {
  it("have the result codes that the service gives their tags", async () => {
    const full = () => Effect.fail(new CounterFull())
    const own = await machineWith(doing(full, { CounterFull: 3 }))
    expect((await own.call({})).result).toBe(SVSM_RESULT.FAIL_BASE + 3)
    const named = await machineWith(doing(full, { CounterFull: "INVALID_FORMAT" }))
    expect((await named.call({})).result).toBe(SVSM_RESULT.INVALID_FORMAT)
    const none = await machineWith(doing(full))
    const why = await none.call({}).then(String, (error) => (error instanceof RunFailed ? error.why : String(error)))
    expect(why).toContain("it fails with CounterFull, expected a tag that the service's errors name")
  })
})

/** Adds to a number of the structure, and gives back what the bytes were. */
const adding = defineService({
  name: "adding",
  protocol: PROTOCOL,
  version: { min: 1, max: 1 },
  calls: {
    add: defineCall({
      call: 0,
      uses: [],
      costNs: 0,
      request: {
        sum: guestStruct("rcx", { a: "u64", b: "u32", c: "u16", d: "u8", rest: bytes(3) }),
        out: guestBuffer("rdx", { size: 16, align: 8 })
      },
      reply: { out: bufferReply("out", { total: "u64", rest: bytes(3), low: "u8" }) },
      example: { sum: { a: 1n, rest: Uint8Array.of(9) } },
      handler: ({ sum: { a, b, c, d, rest } }) =>
        Effect.succeed({ out: { total: a + BigInt(b + c + d), rest: rest.toReversed(), low: 0x1ff } })
    })
  }
})

describe("structures in guest memory", () => {
  it("are decoded after the checks, and replies encoded, little-endian and without gaps", async () => {
    const { call, page } = await machineWith(adding)
    const input = Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 3, 0, 4, 5, 6, 7)
    const read = new Uint8Array(16)
    const writes = [{ gpa: page, bytes: input }]
    const reads = [{ gpa: page + 64, bytes: read }]
    const { result } = await call({ rcx: page, rdx: page + 64 }, { writes, reads } as Partial<ClientJob>)
    expect(result).toBe(SVSM_RESULT.SUCCESS)
    expect([...read]).toEqual([0x09, 1, 0, 0, 1, 0, 0, 0, 7, 6, 5, 0xff, 0, 0, 0, 0])
    expect((await call({ rcx: page + 4, rdx: page })).result).toBe(SVSM_RESULT.INVALID_PARAMETER)
    expect((await call({ rcx: 0, rdx: page })).result).toBe(SVSM_RESULT.INVALID_ADDRESS)
  })

  it.each<readonly [string, (service: Service) => object, string]>([
    [
      "a kind of number that is none",
      ({ calls }) => ({ ...calls.add!.request.sum, fields: { a: "i8" } }),
      "calls.add.request.sum.a: expected u8, u16, u32, u64 or bytes(length)"
    ],
    [
      "bytes of no length",
      ({ calls }) => ({ ...calls.add!.request.sum, fields: { a: bytes(0) } }),
      "calls.add.request.sum.a.length: expected a whole number from 1 to 8192, got 0"
    ],
    [
      "no fields",
      ({ calls }) => ({ ...calls.add!.request.sum, fields: {} }),
      "calls.add.request.sum: expected an object of at least one field"
    ]
  ])("%s is refused", (_, change, expected) => {
    const sum = change(adding)
    const add = { ...adding.calls.add, request: { ...adding.calls.add!.request, sum } }
    expect(serviceTrouble({ ...adding, calls: { add } })).toContain(expected)
  })

  it.each<readonly [string, object, string]>([
    [
      "goes to no buffer",
      { reply: { out: bufferReply("nowhere", { a: "u8" }) } },
      'calls.add.reply.out.buffer: expected one of the request\'s buffers (sum,out), got "nowhere"'
    ],
    [
      "does not fit",
      { reply: { out: bufferReply("out", { a: bytes(17) }) } },
      "calls.add.reply.out: 17 bytes, expected at most out's 16"
    ],
    [
      "has an example of another type",
      { example: { sum: { a: 1 } } },
      'calls.add.example.sum.a: expected a bigint, got "number"'
    ]
  ])("a reply that %s is refused", (_, change, expected) => {
    expect(serviceTrouble({ ...adding, calls: { add: { ...adding.calls.add, ...change } } })).toContain(expected)
  })

  it("errors with codes that are none are refused", () => {
    expect(serviceTrouble({ ...adding, errors: { Full: "FULL" } })).toContain("errors.Full: expected a whole number")
    expect(serviceTrouble(adding)).toBeUndefined()
  })
})
