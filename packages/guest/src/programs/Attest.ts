import { PAGE_SIZE, SECRETS, VMSA } from "@vmpl-lab/sev-es"
import { OP, type Program, read, readBytes, readRegister, writeBytes } from "@vmpl-lab/vmpl"
import { Ghcb } from "../Ghcb.ts"
import { GuestMessenger } from "../GuestMessenger.ts"
import { copyBytes } from "../ghcb/SharedMemory.ts"
import { makeShared } from "../MsrProtocol.ts"
import { type PvalidateEntry, pvalidateList } from "../PvalidateList.ts"
import { ATTESTATION_CALL, CORE_CALL, PROTOCOL, SVSM_RESULT, SvsmCaller } from "../SvsmCall.ts"
import { BLOCK, blockOf, type GuestBody, type GuestPlan } from "./GuestPlan.ts"

/** Pages of RAM that the guest's attestation uses, as offsets into a range that nobody else uses. */
export const ATTEST_PAGES = {
  /** Shared. */
  REQUEST: 0x0000,
  RESPONSE: 0x1000,
  CERTIFICATES: 0x2000,
  CERTIFICATE_PAGES: 4,
  /** Private: what the SVSM reads and writes. */
  OPERATION: 0x6000,
  NONCE: 0x7000,
  REPORT: 0x8000,
  MANIFEST: 0x9000,
  SVSM_CERTIFICATES: 0xa000,
  SIZE: 0xe000
} as const

/** What the guest is to ask for. */
export interface AttestPlan {
  /** Start of the range of ATTEST_PAGES. */
  readonly gpa: number
  /** REPORT_DATA of the guest's own report, or the nonce that the SVSM binds its manifest to; 64 bytes. */
  readonly nonce: Uint8Array
  /** Level that the report is about, 1 to 3, by the guest's own message; 0: the SVSM's services. */
  readonly vmpl: number
  /** The one service that is asked for, by the 16 bytes of its GUID; null: all of them. */
  readonly service: Uint8Array | null
  /** KEY_SEL of the guest's own request. */
  readonly keySelect: number
  readonly attested: (attested: Attested) => void
}

/** What the guest got. */
export interface Attested {
  /** The SVSM's result, or 0; -1 where the guest's own message came to nothing. */
  readonly result: number
  readonly report: Uint8Array
  /** A table of certificates. */
  readonly certificates: Uint8Array
  /** Empty where the guest asked for itself. */
  readonly manifest: Uint8Array
}

const NOTHING = new Uint8Array(0)
const KEY_SIZE = 32

/** The boot processor asks, and is done. */
export const attestBody =
  (attest: AttestPlan): GuestBody =>
  (plan, apicId, caGpa): Program =>
    run(attest, plan, apicId, caGpa)

function* run(attest: AttestPlan, plan: GuestPlan, apicId: number, caGpa: number): Program {
  const ghcb = new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB)
  plan.report.ready(apicId)
  if (apicId === 0) {
    const svsm = new SvsmCaller(caGpa, plan.ring, ghcb)
    const attested = attest.vmpl === 0 ? yield* askSvsm(attest, svsm) : yield* askFirmware(attest, plan, ghcb)
    attest.attested(attested)
  }
  plan.report.done(apicId)
}

/** The guest's own message, under the key of its own level. */
function* askFirmware({ gpa, nonce, vmpl, keySelect }: AttestPlan, plan: GuestPlan, ghcb: Ghcb): Program<Attested> {
  const refused = { result: -1, report: NOTHING, certificates: NOTHING, manifest: NOTHING }
  for (let page = ATTEST_PAGES.REQUEST; page < ATTEST_PAGES.OPERATION; page += PAGE_SIZE) {
    if (!(yield* makeShared(gpa + page))) return refused
  }
  yield* ghcb.use()
  const own = (yield read(plan.secretsGpa + SECRETS.svsm_guest_vmpl, 1)).lo
  const key = new Uint8Array(KEY_SIZE)
  yield readBytes(plan.secretsGpa + SECRETS.vmpck0 + own * KEY_SIZE, key)
  const pages = { request: gpa + ATTEST_PAGES.REQUEST, response: gpa + ATTEST_PAGES.RESPONSE }
  const room = { gpa: gpa + ATTEST_PAGES.CERTIFICATES, pages: ATTEST_PAGES.CERTIFICATE_PAGES }
  const messenger = new GuestMessenger(key, own, pages, room)
  yield* messenger.clearRoom()
  const reply = yield* messenger.report(ghcb, nonce, vmpl, keySelect, room.pages)
  if (reply === null || !reply.ok) return refused
  return { result: 0, report: reply.payload, certificates: reply.certificates, manifest: NOTHING }
}

/** Offsets in the structure that RCX points at, and its size for one service. @spec SVSM 7 */
const OPERATION = { report: 0x00, nonce: 0x10, manifest: 0x20, certificates: 0x30, guid: 0x40, SIZE: 0x58 } as const
const REPORT_SIZE = 0x4a0

/**
 * What RCX points at: where nonce and outputs are, by ATTEST_PAGES from `gpa` on.
 * @param service 16 bytes of a GUID; null: all services
 * @param certificatePages 0: no certificates
 * @spec SVSM 7 table 10
 */
export const attestOperation = (
  gpa: number,
  nonceSize: number,
  service: Uint8Array | null,
  certificatePages: number
): Uint8Array => {
  const operation = new Uint8Array(OPERATION.SIZE)
  const view = new DataView(operation.buffer)
  const buffer = (at: number, page: number, size: number): void => {
    view.setBigUint64(at, BigInt(gpa + page), true)
    view.setUint32(at + 8, size, true)
  }
  buffer(OPERATION.report, ATTEST_PAGES.REPORT, PAGE_SIZE)
  buffer(OPERATION.nonce, ATTEST_PAGES.NONCE, nonceSize)
  buffer(OPERATION.manifest, ATTEST_PAGES.MANIFEST, PAGE_SIZE)
  buffer(OPERATION.certificates, ATTEST_PAGES.SVSM_CERTIFICATES, certificatePages * PAGE_SIZE)
  if (service !== null) operation.set(service, OPERATION.guid)
  return operation
}

/** ATTEST_SERVICES or ATTEST_SINGLE_SERVICE. */
function* askSvsm({ gpa, nonce, service }: AttestPlan, svsm: SvsmCaller): Program<Attested> {
  const entries: Array<PvalidateEntry> = []
  for (let page = ATTEST_PAGES.OPERATION; page < ATTEST_PAGES.SIZE; page += PAGE_SIZE) {
    entries.push({ gpa: gpa + page, validate: true })
  }
  const listGpa = svsm.caGpa + 8
  yield writeBytes(listGpa, pvalidateList(entries))
  const validated = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: listGpa })
  if (validated !== SVSM_RESULT.SUCCESS) {
    return { result: validated, report: NOTHING, certificates: NOTHING, manifest: NOTHING }
  }
  const operation = attestOperation(gpa, nonce.length, service, ATTEST_PAGES.CERTIFICATE_PAGES)
  yield writeBytes(gpa + ATTEST_PAGES.OPERATION, operation)
  yield writeBytes(gpa + ATTEST_PAGES.NONCE, nonce)
  const call = service === null ? ATTESTATION_CALL.ATTEST_SERVICES : ATTESTATION_CALL.ATTEST_SINGLE_SERVICE
  const result = yield* svsm.call(PROTOCOL.ATTESTATION, call, { rcx: gpa + ATTEST_PAGES.OPERATION })
  if (result !== SVSM_RESULT.SUCCESS) return { result, report: NOTHING, certificates: NOTHING, manifest: NOTHING }
  const manifest = new Uint8Array((yield readRegister(VMSA.rcx)).lo)
  const certificates = new Uint8Array((yield readRegister(VMSA.rdx)).lo)
  const report = new Uint8Array(Math.min((yield readRegister(VMSA.r8)).lo, REPORT_SIZE))
  yield* copyBytes(OP.READ_BYTES, gpa + ATTEST_PAGES.MANIFEST, manifest, true)
  yield* copyBytes(OP.READ_BYTES, gpa + ATTEST_PAGES.SVSM_CERTIFICATES, certificates, true)
  yield* copyBytes(OP.READ_BYTES, gpa + ATTEST_PAGES.REPORT, report, true)
  return { result, report, certificates, manifest }
}
