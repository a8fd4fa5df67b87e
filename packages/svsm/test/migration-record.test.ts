import { createECDH, createHash } from "node:crypto"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { openRecord, recordSize, sealRecord } from "../src/services/migration/SealedRecord.ts"
import { agree, boundTo, decodeHello, encodeHello, type PeerReport } from "../src/services/migration/TransportKey.ts"

const key = new Uint8Array(createHash("sha256").update("a key").digest())

const anyRecord = fc.record({
  kind: fc.integer({ min: 0, max: 255 }),
  rights: fc.integer({ min: 0, max: 0xff_ffff }),
  gpa: fc.nat().map((page) => page * 4096),
  payload: fc.uint8Array({ maxLength: 200 })
})

describe("a sealed record", () => {
  it("is what was sealed, wherever more follows", () => {
    fc.assert(
      fc.property(anyRecord, fc.maxSafeNat(), fc.uint8Array({ maxLength: 40 }), (record, sequence, rest) => {
        const sealed = sealRecord(key, sequence, record)
        const opened = openRecord(key, sequence, Buffer.concat([sealed, rest]))
        expect(opened).toEqual({ ok: true, size: recordSize(record.payload.length), record })
      })
    )
  })

  it("opens with no bit of it changed, under no other number, and with no other key", () => {
    fc.assert(
      fc.property(anyRecord, fc.nat(1_000), fc.nat(), fc.nat(7), (record, sequence, at, bit) => {
        const sealed = sealRecord(key, sequence, record)
        expect(openRecord(key, sequence + 1, sealed)).toEqual({ ok: false, why: "sequence" })
        expect(openRecord(new Uint8Array(32), sequence, sealed)).toEqual({ ok: false, why: "authenticity" })
        sealed[at % sealed.length]! ^= 1 << bit
        expect(openRecord(key, sequence, sealed).ok).toBe(false)
      }),
      { numRuns: 300 }
    )
  })

  it("shows nothing of a page but where it goes", () => {
    const payload = new Uint8Array(4096).fill(0x41)
    const sealed = sealRecord(key, 7, { kind: 1, rights: 0xf0f, gpa: 0x8000, payload })
    expect(Buffer.from(sealed).includes(Buffer.alloc(16, 0x41))).toBe(false)
    expect(sealRecord(key, 8, { kind: 1, rights: 0xf0f, gpa: 0x8000, payload }).subarray(32)).not.toEqual(
      sealed.subarray(32)
    )
  })

  it("is malformed where it is short, whatever is in it", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        expect(openRecord(key, 0, bytes)).toEqual({ ok: false, why: "malformed" })
      })
    )
  })
})

const POLICY = 0x3_0000n
const TCB = Uint8Array.of(3, 0, 0, 0, 0, 0, 8, 115)

/** A side whose report says what it is given, and is believed. */
const side = (role: number, name: string, changes: Partial<PeerReport> = {}) => {
  const privateKey = new Uint8Array(createHash("sha384").update(name).digest())
  const ecdh = createECDH("secp384r1")
  ecdh.setPrivateKey(privateKey)
  const publicKey = new Uint8Array(ecdh.getPublicKey())
  const measurement = new Uint8Array(48).fill(0x11)
  const reportData = boundTo(role, publicKey)
  const told: PeerReport = { vmpl: 0, reportData, measurement, policy: POLICY, reportedTcb: TCB, ...changes }
  const report = new Uint8Array(0x4a0)
  report.set(measurement, 0x90)
  new DataView(report.buffer).setBigUint64(0x08, POLICY, true)
  report.set(TCB, 0x180)
  return { privateKey, told, hello: encodeHello({ role, publicKey, report, certificates: new Uint8Array(3) }) }
}

const keysOf = (source: ReturnType<typeof side>, target: ReturnType<typeof side>) => [
  agree({ genuine: () => target.told }, source.privateKey, source.hello, target.hello),
  agree({ genuine: () => source.told }, target.privateKey, target.hello, source.hello)
]

describe("the agreement on a key", () => {
  it("gives both sides the same one, and another pair another", () => {
    const [a, b] = keysOf(side(0, "source"), side(1, "target"))
    expect(a).toHaveLength(32)
    expect(a).toEqual(b)
    expect(keysOf(side(0, "source"), side(1, "another"))[0]).not.toEqual(a)
  })

  it.each([
    ["a report of VMPL2", { vmpl: 2 }],
    ["other software", { measurement: new Uint8Array(48) }],
    ["a report about another key", { reportData: new Uint8Array(64) }],
    ["a guest that its host may debug", { policy: POLICY | (1n << 19n) }],
    ["older firmware in one part", { reportedTcb: Uint8Array.of(3, 0, 0, 0, 0, 0, 7, 116) }]
  ])("is refused to %s", (_name, changes) => {
    expect(keysOf(side(0, "source"), side(1, "target", changes))[0]).toBeNull()
  })

  it("is given to newer firmware, and a guest may come from older", () => {
    const newer = { reportedTcb: Uint8Array.of(3, 0, 0, 0, 0, 0, 9, 115) }
    expect(keysOf(side(0, "source"), side(1, "target", newer))[0]).not.toBeNull()
    const older = { reportedTcb: Uint8Array.of(2, 0, 0, 0, 0, 0, 8, 115) }
    expect(keysOf(side(0, "source", older), side(1, "target"))[1]).not.toBeNull()
  })

  it("is refused to a side with the same role, and to a report that is not genuine", () => {
    expect(keysOf(side(0, "source"), side(0, "target"))[0]).toBeNull()
    const [source, target] = [side(0, "source"), side(1, "target")]
    expect(agree({ genuine: () => null }, source.privateKey, source.hello, target.hello)).toBeNull()
  })

  it("is refused to a point that is not on the curve, though its report names it", () => {
    const source = side(0, "source")
    const publicKey = new Uint8Array(97).fill(4)
    const report = new Uint8Array(0x4a0)
    const hello = encodeHello({ role: 1, publicKey, report, certificates: new Uint8Array(0) })
    const told = { ...source.told, reportData: boundTo(1, publicKey) }
    expect(agree({ genuine: () => told }, source.privateKey, source.hello, hello)).toBeNull()
  })

  it("reads no offer of another size", () => {
    const { hello } = side(1, "target")
    expect(decodeHello(hello)).not.toBeNull()
    fc.assert(
      fc.property(fc.nat(hello.length - 1), (length) => {
        expect(decodeHello(hello.subarray(0, length))).toBeNull()
      })
    )
    expect(decodeHello(Buffer.concat([hello, new Uint8Array(1)]))).toBeNull()
  })
})
