import { createHash } from "node:crypto"
import { ATTESTATION_CALL, type MessageOutcome, PROTOCOL } from "@vmpl-lab/guest"
import { guidBytes, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { SERVICE_GUID, type SvsmBehaviour, servicesManifest } from "@vmpl-lab/svsm"
import { type Program, pause } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import { CA, FIRMWARE, PAGE, ScriptedHost, SVSM_DATA, UNVALIDATED } from "../../../test/support/scriptedHost.ts"
import { resultName, svsmAnswers } from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { ATTEST_SERVICES, ATTEST_SINGLE_SERVICE } = ATTESTATION_CALL

/** Pages of the guest. */
const OPERATION = PAGE
const NONCE = 0x2_8000
const REPORT = 0x2_9000
const MANIFEST = 0x2_a000
const CERTIFICATES = 0x2_b000
const OUTSIDE = FIRMWARE.gpa + FIRMWARE.size
const ROOM = 4 * PAGE_SIZE

const EK = new Uint8Array(300).map((_, i) => i)
const VTPM = guidBytes(SERVICE_GUID.VTPM)
const REPORT_BYTES = new Uint8Array(0x4a0).fill(0xab)
const NONCE_BYTES = new Uint8Array(64).map((_, i) => 200 - i)
/** One certificate of 100 bytes: its entry, the entry that ends the table, and its bytes. */
const TABLE_SIZE = 48 + 100
const table = (() => {
  const bytes = new Uint8Array(ROOM)
  bytes.set(guidBytes("63da758d-e664-4564-adc5-f4b93be8accd"))
  new DataView(bytes.buffer).setUint32(16, 48, true)
  new DataView(bytes.buffer).setUint32(20, 100, true)
  bytes.fill(0xce, 48, TABLE_SIZE)
  return bytes
})()

type Value = number | bigint | Uint8Array
/** 32-bit words, 64-bit ones and bytes by offset. */
type Change = { readonly [offset: number]: Value }

interface Asked {
  readonly data: Uint8Array
  readonly pages: number
}
type Reply = (pages: number) => MessageOutcome | null
const given: Reply = (pages) => ({
  ok: true,
  payload: REPORT_BYTES,
  certificates: table.subarray(0, pages * PAGE_SIZE)
})
const bare: Reply = (pages) => ({ ok: true, payload: REPORT_BYTES, certificates: new Uint8Array(pages * PAGE_SIZE) })

/** A guest that asks an SVSM whose firmware and host reply so. */
class Attester {
  readonly host: ScriptedHost
  readonly asked: Array<Asked> = []

  constructor(behaviour: SvsmBehaviour, reply: Reply = given) {
    const { asked } = this
    this.host = new ScriptedHost(behaviour).boot()
    const { state } = this.host
    state.services.push({ guid: SERVICE_GUID.VTPM, bytes: () => EK })
    state.messages = {
      *report(_: number, data: Uint8Array, pages: number): Program<MessageOutcome | null> {
        asked.push({ data, pages })
        yield pause()
        return reply(pages)
      }
    } as never
    this.put(NONCE, NONCE_BYTES)
  }

  put(gpa: number, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => {
      this.host.poke(gpa + i).setUint8(0, byte)
    })
  }

  /** Writes a good operation with some of it changed, and calls. */
  call(change: Change = {}, call: number = ATTEST_SERVICES, at = OPERATION) {
    const rows: Change = {
      0: BigInt(REPORT),
      8: PAGE_SIZE,
      16: BigInt(NONCE),
      24: 64,
      32: BigInt(MANIFEST),
      40: PAGE_SIZE,
      48: BigInt(CERTIFICATES),
      56: ROOM,
      ...change
    }
    const bytes = Buffer.alloc(0x58)
    for (const [offset, value] of Object.entries(rows)) {
      if (typeof value === "number") bytes.writeUInt32LE(value, Number(offset))
      else if (typeof value === "bigint") bytes.writeBigUInt64LE(value, Number(offset))
      else bytes.set(value, Number(offset))
    }
    this.put(at, bytes)
    return this.ring(at, call)
  }

  ring(rcx: number | readonly [number, number], call: number = ATTEST_SERVICES) {
    const { result, ...registers } = this.host.call(PROTOCOL.ATTESTATION, call, { rcx, rdx: 7, r8: 7 })
    return { result: resultName(result), ...registers }
  }

  bytes(gpa: number, size: number): Uint8Array {
    return Uint8Array.from({ length: size }, (_, i) => this.host.peek(gpa + i).getUint8(0))
  }
}

const MANIFEST_SIZE = servicesManifest([{ guid: SERVICE_GUID.VTPM, bytes: () => EK }]).length
const single = (change: Change = {}): Change => ({ 64: VTPM, ...change })

/** Result of a changed operation that is refused before the firmware is asked. */
const early = (behaviour: SvsmBehaviour, change: Change, call: number = ATTEST_SERVICES): string => {
  const attester = new Attester(behaviour)
  const { result, rdx, r8 } = attester.call(change, call)
  expect([attester.asked, rdx, r8]).toEqual([[], 7, 7])
  return result
}
/** Result of a changed operation that is refused after it. */
const late = (host: ScriptedHost, behaviour: SvsmBehaviour, change: Change, reply?: Reply): string => {
  const attester = new Attester(behaviour, reply)
  const { result, rcx, rdx, r8 } = attester.call(change)
  expect(attester.asked).toHaveLength(1)
  for (const [why, times] of attester.host.state.panics) host.state.panics.set(why, times)
  const isSet = r8 === REPORT_BYTES.length && rcx === MANIFEST_SIZE && rdx !== 7
  const isLeft = rcx === OPERATION && rdx === 7 && r8 === 7
  expect(isSet || isLeft).toBe(true)
  return `${result}, lengths ${isSet ? "set" : "left"}`
}
/** Result of the call for an operation at an address that nobody wrote to. */
const unread = (host: ScriptedHost, behaviour: SvsmBehaviour, rcx: number | readonly [number, number]): string => {
  const attester = new Attester(behaviour)
  const { result } = attester.ring(rcx)
  expect(attester.asked).toEqual([])
  for (const [why, times] of attester.host.state.panics) host.state.panics.set(why, times)
  return result
}

answer("attestation/unknown", (_, behaviour) => {
  const attester = new Attester(behaviour)
  return [...new Set([2, 0xffff_ffff].map((call) => attester.ring(OPERATION, call).result))].join()
})
answer("attestation/services", (_, behaviour) => {
  const attester = new Attester(behaviour)
  const { result, rcx, r8 } = attester.call()
  expect(rcx).toBe(MANIFEST_SIZE)
  expect(attester.bytes(REPORT, r8)).toEqual(REPORT_BYTES)
  return `${result}, R8 = 0x${r8.toString(16)}`
})
answer("attestation/manifest", (_, behaviour) => {
  const attester = new Attester(behaviour)
  const { rcx } = attester.call()
  const view = new DataView(attester.bytes(MANIFEST, rcx).buffer)
  const bytes = attester.bytes(MANIFEST, rcx)
  expect([...bytes.subarray(0, 16)]).toEqual([...guidBytes("63849ebb-3d92-4670-a1ff-58f9c94b87bb")])
  expect([...bytes.subarray(24, 40)]).toEqual([...VTPM])
  expect(bytes.subarray(48)).toEqual(EK)
  return [16, 20, 40, 44].map((at) => view.getUint32(at, true)).join(", ")
})
answer("attestation/manifest-none", (_, behaviour) => {
  const attester = new Attester(behaviour)
  attester.host.state.services.length = 0
  const { result, rcx } = attester.call()
  return `${result}, RCX = ${rcx}`
})
answer("attestation/manifest-two", (_, behaviour) => {
  const attester = new Attester(behaviour)
  attester.host.state.services.push({ guid: SERVICE_GUID.UEFI_MM, bytes: () => new Uint8Array(8) })
  const { rcx } = attester.call()
  const view = new DataView(attester.bytes(MANIFEST, rcx).buffer)
  return [16, 20, 40, 44, 64, 68].map((at) => view.getUint32(at, true)).join(", ")
})
const bound = (behaviour: SvsmBehaviour, call: number, change: Change, manifest: Uint8Array): string => {
  const attester = new Attester(behaviour)
  expect(attester.call(change, call).result).toBe("SUCCESS")
  const expected = createHash("sha512").update(NONCE_BYTES).update(manifest).digest()
  return Buffer.from(attester.asked[0]!.data).equals(expected) ? "SHA-512 of nonce and manifest" : "something else"
}
answer("attestation/bound", (_, behaviour) =>
  bound(behaviour, ATTEST_SERVICES, {}, servicesManifest([{ guid: SERVICE_GUID.VTPM, bytes: () => EK }]))
)
answer("attestation/bound-single", (_, behaviour) => bound(behaviour, ATTEST_SINGLE_SERVICE, single(), EK))
answer("attestation/single", (_, behaviour) => {
  const attester = new Attester(behaviour)
  const { result, rcx, r8 } = attester.call(single(), ATTEST_SINGLE_SERVICE)
  expect(attester.bytes(MANIFEST, rcx)).toEqual(EK)
  return `${result}, RCX = ${rcx}, R8 = 0x${r8.toString(16)}`
})

answer("attestation/op-outside", (host, behaviour) => unread(host, behaviour, OUTSIDE))
answer(
  "attestation/op-null",
  (_, behaviour) => early(behaviour, { 12: 1 }) && new Attester(behaviour).call({ 12: 1 }, 0, 0).result
)
answer("attestation/op-svsm", (host, behaviour) => unread(host, behaviour, SVSM_DATA))
answer("attestation/op-area", (host, behaviour) => unread(host, behaviour, CA))
answer("attestation/op-wraps", (host, behaviour) => unread(host, behaviour, [0xffff_ffff, 0xffff_ffe0]))
answer("attestation/op-unvalidated", (host, behaviour) => unread(host, behaviour, UNVALIDATED))
answer("attestation/op-cut", (host, behaviour) => unread(host, behaviour, OUTSIDE - 0x3f))
answer("attestation/op-entries", (_, behaviour) => {
  const attester = new Attester(behaviour)
  const { state } = attester.host
  state.parameters = { ...state.parameters, highRam: { gpa: OUTSIDE, size: PAGE_SIZE } }
  state.validated.add(OUTSIDE / PAGE_SIZE)
  return attester.ring(OUTSIDE - 0x20).result
})
answer("attestation/op-unaligned", (_, behaviour) => new Attester(behaviour).call({}, 0, OPERATION + 3).result)
answer("attestation/op-crosses", (_, behaviour) => new Attester(behaviour).call({}, 0, OPERATION + 0xfe0).result)
answer("attestation/op-size", (_, behaviour) => {
  // What stands behind 0x40 is not looked at in a call for all services.
  const rest = { 64: new Uint8Array(24).fill(0xff) }
  return new Attester(behaviour).call(rest).result
})
answer("attestation/reserved-0c", (_, behaviour) => early(behaviour, { 12: 1 }))
answer("attestation/reserved-1a", (_, behaviour) => {
  const all = [0x1a, 0x1f].map((at) => early(behaviour, { [at]: Uint8Array.of(1) }))
  return [...new Set(all)].join()
})
answer("attestation/reserved-2c", (_, behaviour) => early(behaviour, { 44: 0x8000_0000 }))
answer("attestation/reserved-3c", (_, behaviour) => early(behaviour, { 60: 1 }))
answer("attestation/reserved-54", (_, behaviour) => early(behaviour, single({ 84: 1 }), ATTEST_SINGLE_SERVICE))
answer("attestation/version", (_, behaviour) => early(behaviour, single({ 80: 1 }), ATTEST_SINGLE_SERVICE))
answer("attestation/guid", (_, behaviour) => early(behaviour, { 64: new Uint8Array(16) }, ATTEST_SINGLE_SERVICE))
answer("attestation/guid-order", (_, behaviour) => {
  // Stored as the text is read: not the mixed-endian form.
  const text = Uint8Array.from(Buffer.from(SERVICE_GUID.VTPM.replaceAll("-", ""), "hex"))
  return early(behaviour, { 64: text }, ATTEST_SINGLE_SERVICE)
})
answer("attestation/guid-absent", (_, behaviour) =>
  early(behaviour, { 64: guidBytes(SERVICE_GUID.UEFI_MM) }, ATTEST_SINGLE_SERVICE)
)
answer("attestation/nonce-size", (_, behaviour) => {
  const all = [0, 63, 65, 0xffff].map((size) => early(behaviour, { 24: size }))
  return [...new Set(all)].join()
})
answer("attestation/nonce-crosses", (_, behaviour) => early(behaviour, { 16: BigInt(NONCE + PAGE_SIZE - 63) }))
answer(
  "attestation/nonce-last",
  (_, behaviour) => new Attester(behaviour).call({ 16: BigInt(NONCE + PAGE_SIZE - 64) }).result
)
answer("attestation/nonce-outside", (_, behaviour) => early(behaviour, { 16: BigInt(OUTSIDE) }))
answer("attestation/nonce-wraps", (_, behaviour) => early(behaviour, { 16: 2n ** 64n - 64n }))
answer("attestation/nonce-unvalidated", (host, behaviour) => {
  const attester = new Attester(behaviour)
  const { result } = attester.call({ 16: BigInt(UNVALIDATED) })
  for (const [why, times] of attester.host.state.panics) host.state.panics.set(why, times)
  return result
})

answer("attestation/no-messages", (_, behaviour) => {
  const attester = new Attester(behaviour)
  attester.host.state.messages = null
  return attester.call().result
})
answer("attestation/refused", (_, behaviour) => new Attester(behaviour, () => null).call().result)
answer(
  "attestation/given-up",
  (_, behaviour) => new Attester(behaviour, () => ({ ok: false, pagesNeeded: 0 })).call().result
)
answer("attestation/host-room", (_, behaviour) => {
  const attester = new Attester(behaviour, () => ({ ok: false, pagesNeeded: 5 }))
  const { result, rcx, rdx, r8 } = attester.call()
  return `${result}, RCX = ${rcx}, RDX = 0x${rdx.toString(16)}, R8 ${r8 === 7 ? "left" : "set"}`
})
answer("attestation/certificates-none", (_, behaviour) => {
  const attester = new Attester(behaviour)
  const { result, rdx } = attester.call({ 48: 1n, 56: 0 })
  return `${result}, RDX = ${rdx}, ${attester.asked[0]!.pages === 0 ? "plain" : "extended"} report`
})
answer("attestation/certificates-pages", (_, behaviour) => {
  const attester = new Attester(behaviour)
  attester.call({ 56: PAGE_SIZE + 1 })
  return `${attester.asked[0]!.pages} pages`
})
answer("attestation/certificates", (_, behaviour) => {
  const attester = new Attester(behaviour)
  const { result, rdx } = attester.call()
  expect(attester.bytes(CERTIFICATES, TABLE_SIZE)).toEqual(table.subarray(0, TABLE_SIZE))
  return `${result}, RDX = ${rdx}`
})
answer("attestation/certificates-zero", (_, behaviour) => {
  const attester = new Attester(behaviour, bare)
  attester.host.fill(CERTIFICATES, 0xcc)
  const { result, rdx } = attester.call()
  expect(attester.bytes(CERTIFICATES, 4)).toEqual(Uint8Array.of(0xcc, 0xcc, 0xcc, 0xcc))
  return `${result}, RDX = ${rdx}`
})
answer("attestation/certificates-max", (host, behaviour) => late(host, behaviour, { 56: ROOM + 1 }))
answer("attestation/firmware-first", (_, behaviour) => {
  const attester = new Attester(behaviour)
  const { result } = attester.call({ 0: 1n, 32: 1n, 48: 1n })
  return `${result}, ${attester.asked.length === 1 ? "the firmware was asked" : "nobody was asked"}`
})
answer("attestation/report-misaligned", (host, behaviour) => late(host, behaviour, { 0: BigInt(REPORT + 8) }))
answer("attestation/manifest-misaligned", (host, behaviour) => late(host, behaviour, { 32: BigInt(MANIFEST + 8) }))
answer("attestation/certificates-misaligned", (host, behaviour) =>
  late(host, behaviour, { 48: BigInt(CERTIFICATES + 8) })
)
const LAST = 2n ** 64n - BigInt(PAGE_SIZE)
answer("attestation/report-wraps", (host, behaviour) => late(host, behaviour, { 0: LAST, 8: PAGE_SIZE }))
answer("attestation/manifest-wraps", (host, behaviour) => late(host, behaviour, { 32: LAST, 40: PAGE_SIZE }))
answer("attestation/certificates-wraps", (host, behaviour) => late(host, behaviour, { 48: LAST }))
answer("attestation/report-last-page", (host, behaviour) => late(host, behaviour, { 0: LAST, 8: 0x4a0 }))
answer("attestation/report-small", (host, behaviour) => late(host, behaviour, { 8: 0x49f }))
answer("attestation/report-exact", (_, behaviour) => new Attester(behaviour).call({ 8: 0x4a0 }).result)
answer("attestation/manifest-small", (host, behaviour) => late(host, behaviour, { 40: MANIFEST_SIZE - 1 }))
answer("attestation/certificates-small", (host, behaviour) => late(host, behaviour, { 56: TABLE_SIZE - 1 }))
answer("attestation/certificates-exact", (_, behaviour) => {
  const { result, rdx } = new Attester(behaviour).call({ 56: TABLE_SIZE })
  return `${result}, RDX = ${rdx}`
})
answer("attestation/report-fault", (host, behaviour) => late(host, behaviour, { 0: BigInt(OUTSIDE) }))
answer("attestation/report-svsm", (host, behaviour) => late(host, behaviour, { 0: BigInt(SVSM_DATA) }))
answer("attestation/report-area", (host, behaviour) => late(host, behaviour, { 0: BigInt(CA) }))
answer("attestation/report-unvalidated", (host, behaviour) => late(host, behaviour, { 0: BigInt(UNVALIDATED) }))
answer("attestation/manifest-fault", (host, behaviour) => late(host, behaviour, { 32: 2n ** 60n }))
answer("attestation/certificates-fault", (host, behaviour) => late(host, behaviour, { 48: BigInt(SVSM_DATA) }))
answer("attestation/report-copied-first", (_, behaviour) => {
  const attester = new Attester(behaviour)
  expect(attester.call({ 32: BigInt(OUTSIDE) }).result).toBe("INVALID_ADDRESS")
  return attester.bytes(REPORT, 1)[0] === 0xab ? "written" : "not written"
})

check()
