import {
  getVariableMessage,
  lockVariableMessage,
  MM_HEADER,
  MM_RECEIVER,
  mmMessage,
  nextNameMessage,
  noticeMessage,
  payloadSizeMessage,
  policyMessage,
  queryInfoMessage,
  registerPolicyMessage,
  SVSM_RESULT,
  setVariableMessage,
  UEFI_VENDOR
} from "@vmpl-lab/guest"
import { getU64 } from "@vmpl-lab/sev-es"
import { SHIPPED_PROTOCOLS, SVSM_BEHAVIOURS, uefiMm, VARIABLE_LIMITS } from "@vmpl-lab/svsm"
import { OP } from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  CA,
  FIRMWARE,
  GUEST_VMSA,
  ScriptedHost,
  SVSM,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import { BUFFER, put } from "../../../test/support/uefiHost.ts"

/** Messages for each behaviour; a fresh guest after so many. */
const MESSAGES = 10_000
const PER_HOST = 500

const vendor = fc.constantFrom<string>(...Object.values(UEFI_VENDOR))
/** Variables that anybody may write, and those that only few may. */
const ordinary = fc.record({ name: fc.constantFrom("A", "B", "x".repeat(300)), guid: fc.constant(UEFI_VENDOR.SHIM) })
const special = fc.record({ name: fc.constantFrom("db", "PK", "SetupMode", "", "Boot####"), guid: vendor })
const name = fc.oneof({ weight: 2, arbitrary: ordinary }, { weight: 1, arbitrary: special })
const data = fc.oneof(
  fc.uint8Array({ maxLength: 64 }),
  fc.constantFrom(0x1000, 0x8000, 0x9000).map((n) => new Uint8Array(n))
)
const attributes = fc.oneof(
  { weight: 4, arbitrary: fc.constant(7) },
  { weight: 2, arbitrary: fc.constantFrom(2, 3, 6, 0x27, 0x67, 0x47, 0) },
  { weight: 1, arbitrary: fc.nat(255) }
)
const good = fc.oneof(
  fc.tuple(name, fc.constantFrom(0, 16, 64, 0x1000, 0x8000)).map(([n, room]) => getVariableMessage(n, room)),
  fc.tuple(name, fc.nat(700)).map(([n, room]) => nextNameMessage(n, room)),
  fc.tuple(name, attributes, data).map(([n, a, d]) => setVariableMessage({ ...n, attributes: a, data: d })),
  special.map(lockVariableMessage),
  attributes.map(queryInfoMessage),
  fc.constant(payloadSizeMessage()),
  fc.nat(60).map((n) => noticeMessage(n % 31)),
  special.map(registerPolicyMessage),
  fc.tuple(fc.nat(7), fc.uint8Array({ maxLength: 100 })).map(([command, body]) => policyMessage(command, body)),
  fc.constant(policyMessage(4, new Uint8Array(16_340)))
)
const random = fc
  .tuple(fc.constantFrom<string>(...Object.values(MM_RECEIVER), UEFI_VENDOR.SHIM), fc.uint8Array({ maxLength: 200 }))
  .map(([receiver, body]) => mmMessage(receiver, body))
/** Good ones, good ones with some bytes changed or cut off, and noise. */
const message = fc.oneof(
  { weight: 3, arbitrary: good },
  {
    weight: 5,
    arbitrary: fc
      .tuple(
        good,
        fc.array(fc.tuple(fc.integer({ min: 16, max: 90 }), fc.constantFrom(0, 1, 0x7f, 0xff)), { maxLength: 4 }),
        fc.nat(3)
      )
      .map(([bytes, changes, cut]) => {
        const changed = bytes.slice(0, Math.max(MM_HEADER.SIZE, bytes.length - cut))
        for (const [at, value] of changes) if (at < changed.length) changed[at] = value
        return changed
      })
  },
  { weight: 1, arbitrary: random },
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 24, maxLength: 100 }) }
)
const turn = fc.record({
  message,
  gpa: fc.oneof(
    { weight: 12, arbitrary: fc.constant(BUFFER) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(0, CA, GUEST_VMSA, SVSM_DATA, SVSM.gpa - 0x1000, UNVALIDATED, BUFFER + 1, 2 ** 52)
    },
    { weight: 1, arbitrary: fc.constant(FIRMWARE.gpa + FIRMWARE.size - 0x1000) }
  ),
  size: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(0x1_0000, 0x2000, 0x4_0000) },
    { weight: 1, arbitrary: fc.nat(200) },
    { weight: 1, arbitrary: fc.constantFrom(0x4_0001, 2 ** 32, Number.MAX_SAFE_INTEGER) }
  )
})

const isBuffer = (gpa: number): boolean => gpa === BUFFER || gpa === FIRMWARE.gpa + FIRMWARE.size - 0x1000

describe.each(SVSM_BEHAVIOURS)("as %s", (behaviour) => {
  it(`${MESSAGES} messages of anything: nothing is written but the message itself, and the SVSM goes on`, () => {
    const results = new Map<number, number>()
    const written = { bytes: 0, longest: 0 }
    const turns = fc.sample(turn, { seed: 3, numRuns: MESSAGES })
    for (let start = 0; start < MESSAGES; start += PER_HOST) {
      const protocol = uefiMm()
      const host = new ScriptedHost(behaviour, [...SHIPPED_PROTOCOLS, protocol]).boot()
      const before = host.svsmBytes()
      for (const given of turns.slice(start, start + PER_HOST)) {
        if (isBuffer(given.gpa)) put(host, given.gpa, given.message.subarray(0, 0x1000))
        if (given.gpa === BUFFER) put(host, given.gpa, given.message)
        const length = getU64(new DataView(given.message.buffer, given.message.byteOffset), MM_HEADER.length)
        host.seen.length = 0
        const { result } = host.call(4, 1, { rcx: given.gpa, rdx: given.size })
        results.set(result, (results.get(result) ?? 0) + 1)
        const stores = host.seen
          .filter(({ operation: { op } }) => op === OP.WRITE_BYTES)
          .map(({ operation }) => operation)
        for (const { address, bytes } of stores) {
          const from = address - given.gpa
          const to = from + (bytes as Uint8Array).length
          expect(from).toBeGreaterThanOrEqual(MM_HEADER.SIZE)
          expect(to).toBeLessThanOrEqual(Math.min(MM_HEADER.SIZE + length, given.size))
          written.bytes += to - from
          written.longest = Math.max(written.longest, to)
        }
        const { variables } = protocol.managementMode(host.state)
        for (const kind of [6, 7]) {
          const room = variables.variables.remaining(kind)
          expect(room).toBeGreaterThanOrEqual(0)
          expect(room).toBeLessThan(VARIABLE_LIMITS.STORE)
        }
        // Nobody has a key: no signature is good, so no guest comes to secure boot.
        expect(variables.isSecureBoot).toBe(false)
      }
      expect(host.svsmBytes()).toBe(before)
    }
    // The garbage was good enough: every result of the protocol, and answers of every size.
    const { SUCCESS, INVALID_PARAMETER, INVALID_ADDRESS } = SVSM_RESULT
    expect([...results.keys()].sort()).toEqual([SUCCESS, INVALID_ADDRESS, INVALID_PARAMETER].sort())
    expect(results.get(SUCCESS)).toBeGreaterThan(MESSAGES / 4)
    expect(written.longest).toBeGreaterThan(0x1000)
  })
})
