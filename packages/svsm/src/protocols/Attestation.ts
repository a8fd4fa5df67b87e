import { createHash } from "node:crypto"
import { ATTESTATION_CALL, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { certificateTableSize, GUID_SIZE, guidText, layout, offsetsOf, PAGE_SIZE } from "@vmpl-lab/sev-es"
import type { Program } from "@vmpl-lab/vmpl"
import { COCONUT_PANIC } from "../CoconutPanic.ts"
import { validRegion } from "../GuestAddress.ts"
import { MESSAGE_PAGES } from "../Image.ts"
import { servicesManifest } from "../ServiceManifest.ts"
import type { SvsmState } from "../State.ts"
import { readGuest, writeGuest } from "../services/GuestBuffer.ts"
import { type Protocol, protocolOf } from "./Protocol.ts"
import { gpaOf, type SvsmRequest, setRegister } from "./Request.ts"

/** The structure that RCX points at; a call for all services ends before the GUID. @spec SVSM 7 table 10 */
export const ATTEST_OPERATION_FIELDS = layout([
  ["report_gpa", 0x00, 8],
  ["report_size", 0x08, 4],
  ["reserved1", 0x0c, 4],
  ["nonce_gpa", 0x10, 8],
  ["nonce_size", 0x18, 2],
  ["reserved2", 0x1a, 6],
  ["manifest_gpa", 0x20, 8],
  ["manifest_size", 0x28, 4],
  ["reserved3", 0x2c, 4],
  ["certificate_gpa", 0x30, 8],
  ["certificate_size", 0x38, 4],
  ["reserved4", 0x3c, 4],
  ["service_guid", 0x40, 16],
  ["manifest_version", 0x50, 4],
  ["reserved5", 0x54, 4]
])
const FIELD = offsetsOf(ATTEST_OPERATION_FIELDS)
const SIZE = { SERVICES: 0x40, SINGLE_SERVICE: 0x58 } as const
const NONCE_SIZE = 64
const CERTIFICATES_MAX = MESSAGE_PAGES.CERTIFICATE_COUNT * PAGE_SIZE

const RESERVED: ReadonlyArray<readonly [at: number, size: number]> = [
  [FIELD.reserved1, 4],
  [FIELD.reserved2, 6],
  [FIELD.reserved3, 4],
  [FIELD.reserved4, 4]
]

/** A guest's buffer. */
interface Buffer64 {
  readonly gpa: bigint
  readonly size: number
}

/** A call as read. */
interface Operation {
  readonly report: Buffer64
  readonly nonce: Buffer64
  readonly manifest: Buffer64
  readonly certificates: Buffer64
  /** Null: all services. */
  readonly guid: string | null
}

const { SUCCESS, INVALID_PARAMETER, INVALID_ADDRESS, INVALID_REQUEST, UNSUPPORTED_PROTOCOL } = SVSM_RESULT

/** Attestation protocol. @spec SVSM 7 */
export const attestationProtocol: Protocol = protocolOf(
  PROTOCOL.ATTESTATION,
  { MIN: 1, MAX: 1 },
  {
    [ATTESTATION_CALL.ATTEST_SERVICES]: (state, request) => attest(state, request, SIZE.SERVICES),
    [ATTESTATION_CALL.ATTEST_SINGLE_SERVICE]: (state, request) => attest(state, request, SIZE.SINGLE_SERVICE)
  }
)

/**
 * A report that binds the caller's nonce and what the services say of themselves. The firmware is asked before the
 * output buffers are looked at, as COCONUT-SVSM does.
 * @spec-silent the order of the checks, and what is answered where the firmware gives no report
 */
function* attest(state: SvsmState, request: SvsmRequest, size: number): Program<number> {
  const { unreadableArgument, handsOnWholeCertificateRoom } = state.behaviour
  const bytes = yield* argument(state, request, BigInt(gpaOf(request.rcxLo, request.rcxHi)), size)
  if (bytes === null) return unreadableArgument
  const operation = decode(bytes)
  if (operation === null) return INVALID_PARAMETER
  const manifest = manifestOf(state, operation.guid)
  if (manifest === null) return UNSUPPORTED_PROTOCOL
  const { nonce: from, certificates } = operation
  const inPage = from.size === NONCE_SIZE && Number(from.gpa % BigInt(PAGE_SIZE)) + NONCE_SIZE <= PAGE_SIZE
  if (!inPage) return INVALID_PARAMETER
  const nonce = yield* argument(state, request, from.gpa, NONCE_SIZE)
  if (nonce === null) return unreadableArgument

  const { messages } = state
  if (messages === null) return INVALID_REQUEST
  const data = new Uint8Array(createHash("sha512").update(nonce).update(manifest).digest())
  const wanted = handsOnWholeCertificateRoom ? CERTIFICATES_MAX : certificates.size
  const pages = certificates.size === 0 ? 0 : Math.min(Math.ceil(wanted / PAGE_SIZE), MESSAGE_PAGES.CERTIFICATE_COUNT)
  const reply = yield* messages.report(request.caller.apicId, data, pages)
  if (reply === null || (!reply.ok && reply.pagesNeeded === 0)) return INVALID_REQUEST
  if (!reply.ok) {
    setRegister(request, "rcx", manifest.length)
    // The host says how many pages its certificates need: it may say anything.
    setRegister(request, "rdx", reply.pagesNeeded * PAGE_SIZE)
    return INVALID_PARAMETER
  }
  const used = certificateTableSize(reply.certificates)
  const table = reply.certificates.subarray(0, used > 0 && handsOnWholeCertificateRoom ? CERTIFICATES_MAX : used)
  return yield* answer(state, request, operation, { report: reply.payload, manifest, certificates: table })
}

/** The operation; null where bytes that must be zero are not. */
const decode = (bytes: Uint8Array): Operation | null => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const isZero = (at: number, size: number): boolean => bytes.subarray(at, at + size).every((byte) => byte === 0)
  const isSingle = bytes.length === SIZE.SINGLE_SERVICE
  if (!RESERVED.every(([at, size]) => isZero(at, size))) return null
  if (isSingle && !isZero(FIELD.manifest_version, 8)) return null
  const buffer = (at: number): Buffer64 => ({
    gpa: view.getBigUint64(at, true),
    size: view.getUint32(at + 8, true)
  })
  return {
    report: buffer(FIELD.report_gpa),
    nonce: { gpa: view.getBigUint64(FIELD.nonce_gpa, true), size: view.getUint16(FIELD.nonce_size, true) },
    manifest: buffer(FIELD.manifest_gpa),
    certificates: buffer(FIELD.certificate_gpa),
    guid: isSingle ? guidText(bytes.subarray(FIELD.service_guid, FIELD.service_guid + GUID_SIZE), 0) : null
  }
}

/** What is bound and returned; null for a service that is not there. */
const manifestOf = ({ services }: SvsmState, guid: string | null): Uint8Array | null =>
  guid === null ? servicesManifest(services) : (services.find((service) => service.guid === guid)?.bytes() ?? null)

/** What the guest gets. */
interface Answer {
  readonly report: Uint8Array
  readonly manifest: Uint8Array
  readonly certificates: Uint8Array
}

const ADDRESS_END = 1n << 64n

/** Why a buffer cannot be an output, or SUCCESS. */
const refused = ({ gpa, size }: Buffer64): number => {
  if (gpa % BigInt(PAGE_SIZE) !== 0n) return INVALID_PARAMETER
  return gpa + BigInt(size) >= ADDRESS_END ? INVALID_ADDRESS : SUCCESS
}

function* answer(state: SvsmState, request: SvsmRequest, operation: Operation, given: Answer): Program<number> {
  const { report, manifest, certificates } = operation
  for (const buffer of [manifest, report, certificates]) {
    const isCertificates = buffer === certificates
    if (isCertificates && buffer.size === 0) continue
    if (isCertificates && buffer.size > CERTIFICATES_MAX) return INVALID_PARAMETER
    const why = refused(buffer)
    if (why !== SUCCESS) return why
  }
  const outputs: Array<readonly [Buffer64, Uint8Array]> = [
    [report, given.report],
    [manifest, given.manifest]
  ]
  if (certificates.size > 0 && given.certificates.length > 0) outputs.push([certificates, given.certificates])
  setRegister(request, "rcx", given.manifest.length)
  setRegister(request, "rdx", certificates.size > 0 ? given.certificates.length : 0)
  setRegister(request, "r8", given.report.length)
  if (outputs.some(([{ size }, bytes]) => size < bytes.length)) return INVALID_PARAMETER
  for (const [{ gpa: address }, bytes] of outputs) {
    // The end is rounded up to a page before it is looked at.
    const end = address + BigInt(bytes.length)
    if (end > ADDRESS_END - BigInt(PAGE_SIZE)) state.wouldPanic(COCONUT_PANIC.ADDRESS_OVERFLOW)
    const gpa = rangeOf(state, address, bytes.length)
    if (gpa === null || !(yield* writeGuest(state, request.caller, gpa, bytes))) return INVALID_ADDRESS
  }
  return SUCCESS
}

/** A range that is the caller's to name, as a number; null where it is not. It may not straddle two memory map entries. */
const rangeOf = (state: SvsmState, address: bigint, size: number): number | null => {
  if (address + BigInt(size) > BigInt(Number.MAX_SAFE_INTEGER)) return null
  return validRegion(state, Number(address), size) ? Number(address) : null
}

/** Bytes of the guest's memory; null where the caller may not name it. */
function* argument(
  state: SvsmState,
  { caller }: SvsmRequest,
  address: bigint,
  size: number
): Program<Uint8Array | null> {
  const gpa = rangeOf(state, address, size)
  const bytes = new Uint8Array(size)
  return gpa !== null && (yield* readGuest(state, caller, gpa, bytes)) ? bytes : null
}
