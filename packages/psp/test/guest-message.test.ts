import { createHash, createHmac, hkdfSync, verify } from "node:crypto"
import { openMessage, readMessageHeader, sealMessage } from "@vmpl-lab/sev-es"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { publicKeyOf, scalarFromExtraBits, signatureBytes, signP384 } from "../src/EcdsaP384.ts"
import { firmwareKdf } from "../src/FirmwareKdf.ts"
import { GUEST_MESSAGE, MESSAGE_TYPE } from "../src/index.ts"
import { openGuestResponse, sealGuestRequest } from "./guest-message-support.ts"

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i)
const PAYLOAD = new Uint8Array(0x60)
for (let i = 0; i < 64; i++) PAYLOAD[i] = i
PAYLOAD[0x40] = 1
const LABEL = { sequence: 1n, type: 5, version: 1, vmpck: 1 }

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

describe("the frame of a guest message", () => {
  it("has its fields where the facts have them", () => {
    expect(GUEST_MESSAGE).toEqual({
      auth_tag: 0,
      msg_seqno: 0x20,
      reserved1: 0x28,
      algo: 0x30,
      hdr_version: 0x31,
      hdr_size: 0x32,
      msg_type: 0x34,
      msg_version: 0x35,
      msg_size: 0x36,
      reserved2: 0x38,
      msg_vmpck: 0x3c,
      reserved3: 0x3d
    })
  })

  it("numbers its types from CPUID_REQ to TSC_INFO_RSP", () => {
    expect(Object.values(MESSAGE_TYPE)).toEqual(Array.from({ length: 18 }, (_, i) => i + 1))
    expect(MESSAGE_TYPE).toMatchObject({ KEY_REQ: 3, REPORT_REQ: 5, EXPORT_REQ: 7, VMRK_REQ: 0xd, TSC_INFO_REQ: 0x11 })
  })

  it("equals a frame that was computed elsewhere", () => {
    const frame = sealMessage(KEY, LABEL, PAYLOAD)
    expect(hex(frame.subarray(0, 16))).toBe("704c073c69e701a21c4213cfccce510e")
    expect(createHash("sha256").update(frame).digest("hex")).toBe(
      "938d31e51cd36e43f08192ef3d364c83fa3061df24e9523bc4b7612d2896233d"
    )
    expect(sealGuestRequest({ key: KEY, ...LABEL, payload: PAYLOAD })).toEqual(frame)
    expect(openGuestResponse(KEY, frame)).toEqual({ ...LABEL, payload: PAYLOAD })
  })

  it("opens what was sealed, and reads back its label", () => {
    const label = { sequence: 0x0102030405060708n, type: 0x11, version: 9, vmpck: 3 }
    const frame = sealMessage(KEY, label, PAYLOAD)
    expect(readMessageHeader(frame)).toEqual({ ...label, algorithm: 1, headerVersion: 1, headerSize: 0x60, size: 0x60 })
    expect(openMessage(KEY, frame)).toEqual(PAYLOAD)
  })

  it("authenticates every bit but the tag's upper half and eight reserved bytes", () => {
    const frame = sealMessage(KEY, LABEL, PAYLOAD)
    const isOutside = (offset: number): boolean =>
      (offset >= 0x10 && offset < 0x20) || (offset >= 0x28 && offset < 0x30)
    fc.assert(
      fc.property(fc.nat(frame.length - 1), fc.nat(7), (offset, bit) => {
        const changed = frame.slice()
        changed[offset]! ^= 1 << bit
        expect(openMessage(KEY, changed)).toEqual(isOutside(offset) ? PAYLOAD : null)
      }),
      { seed: 42, numRuns: 1500 }
    )
  })
})

describe("the firmware's key derivation", () => {
  it("is HMAC-SHA-256 of counter, label, zero byte, context and length in bits", () => {
    const context = Uint8Array.of(9, 8)
    const message = Buffer.concat([
      Buffer.from([1, 0, 0, 0]),
      Buffer.from("label\0"),
      context,
      Buffer.from([0, 1, 0, 0])
    ])
    expect(hex(firmwareKdf(KEY, "label", context, 32))).toBe(createHmac("sha256", KEY).update(message).digest("hex"))
  })

  it("goes on with the next counter beyond one block", () => {
    const message = (counter: number) => Buffer.from([counter, 0, 0, 0, 0x78, 0, 0xc0, 1, 0, 0])
    const block = (counter: number) => createHmac("sha256", KEY).update(message(counter)).digest("hex")
    expect(hex(firmwareKdf(KEY, "x", new Uint8Array(0), 56))).toBe((block(1) + block(2)).slice(0, 112))
  })
})

describe("ECDSA P-384", () => {
  const SCALAR = 0x6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5n

  // RFC 6979, A.2.6, SHA-384.
  it.each([
    [
      "sample",
      0x94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46n,
      0x99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8n
    ],
    [
      "test",
      0x8203b63d3c853e8d77227fb377bcf7b7b772e97892a80f36ab775d509d7a5feb0542a7f0812998da8f1dd3ca3cf023dbn,
      0xddd0760448d42d8a43af45af836fce4de8be06b485e9b61b827c2f13173923e06a739f040649a667bf3b828246baa5a5n
    ]
  ])("signs %j as RFC 6979 does", (text, r, s) => {
    expect(signP384(SCALAR, Buffer.from(text))).toEqual({ r, s })
  })

  it("signs so that node verifies, with r and s little-endian in 72 bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 56, maxLength: 56 }), fc.uint8Array(), (random, message) => {
        const scalar = scalarFromExtraBits(random)
        const bytes = signatureBytes(signP384(scalar, message))
        expect(bytes.length).toBe(512)
        expect([...bytes.subarray(48, 72), ...bytes.subarray(120)].every((byte) => byte === 0)).toBe(true)
        const signature = Buffer.concat([bytes.slice(0, 48).reverse(), bytes.slice(72, 120).reverse()])
        expect(verify("sha384", message, { key: publicKeyOf(scalar), dsaEncoding: "ieee-p1363" }, signature)).toBe(true)
      }),
      { seed: 42, numRuns: 20 }
    )
  })

  it("takes little-endian bytes modulo n - 1, plus 1", () => {
    const one = new Uint8Array(56)
    one[0] = 1
    expect(scalarFromExtraBits(new Uint8Array(56))).toBe(1n)
    expect(scalarFromExtraBits(one)).toBe(2n)
    const random = new Uint8Array(hkdfSync("sha256", "x", "", "", 56))
    expect(scalarFromExtraBits(random)).toBeLessThan(2n ** 384n)
  })
})
