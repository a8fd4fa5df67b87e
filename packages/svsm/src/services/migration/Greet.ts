import { MIGRATION_RESULT, MIGRATION_ROLE, SVSM_RESULT } from "@vmpl-lab/guest"
import { certificateTableSize, PAGE_SIZE, toNumber } from "@vmpl-lab/sev-es"
import { type Program, work } from "@vmpl-lab/vmpl"
import { MESSAGE_PAGES } from "../../Image.ts"
import { gpaOf, type SvsmRequest, setRegister } from "../../protocols/Request.ts"
import type { SvsmState } from "../../State.ts"
import { MIGRATION_COST, type Migration } from "./Migration.ts"
import { movedPages } from "./MovedPages.ts"
import { giveShared, type SharedBuffer, takeShared } from "./SharedBuffer.ts"
import { agree, boundTo, encodeHello, publicKeyOf, type TransportOptions } from "./TransportKey.ts"

const { SUCCESS, INVALID_PARAMETER, INVALID_REQUEST } = SVSM_RESULT
const NO_BYTES = new Uint8Array(0)

/**
 * HELLO: a fresh public key, and a report of the AMD-SP that binds it to this SVSM and its role. A migration that came
 * to nothing may begin anew with it, under another key.
 */
export function* hello(
  state: SvsmState,
  migration: Migration,
  options: TransportOptions,
  request: SvsmRequest,
  buffer: SharedBuffer
): Program<number> {
  const role = request.r8Lo
  if (role !== MIGRATION_ROLE.SOURCE && role !== MIGRATION_ROLE.TARGET) return INVALID_PARAMETER
  if (state.messages === null) return INVALID_REQUEST
  const privateKey = options.newPrivateKey()
  const publicKey = publicKeyOf(privateKey)
  yield work(MIGRATION_COST.KEY_AGREEMENT)
  const data = boundTo(role, publicKey)
  const reply = yield* state.messages.report(request.caller.apicId, data, MESSAGE_PAGES.CERTIFICATE_COUNT)
  if (reply === null || !reply.ok) return INVALID_REQUEST
  const certificates = reply.certificates.slice(0, certificateTableSize(reply.certificates))
  const offer = encodeHello({ role, publicKey, report: reply.payload, certificates })
  if (offer.length > buffer.size) return INVALID_PARAMETER
  yield* giveShared(buffer, offer)
  migration.phase = "greeted"
  migration.role = role
  migration.agent = request.caller
  migration.hello = offer
  migration.privateKey = privateKey
  migration.key = null
  setRegister(request, "rcx", offer.length)
  return SUCCESS
}

/** PEER: the other side's offer. From here on there is a key that nobody else has. */
export function* peer(migration: Migration, options: TransportOptions, buffer: SharedBuffer): Program<number> {
  const offer = yield* takeShared(buffer)
  yield work(MIGRATION_COST.CHECK_REPORT + MIGRATION_COST.KEY_AGREEMENT)
  const key = agree(options, migration.privateKey, migration.hello, offer)
  if (key === null) return MIGRATION_RESULT.UNTRUSTED_PEER
  migration.key = key
  migration.privateKey = NO_BYTES
  migration.sequence = 0
  migration.versions.clear()
  migration.phase = "keyed"
  return SUCCESS
}

/** START: everything is to be sent. */
export const start = (state: SvsmState, migration: Migration, request: SvsmRequest): number => {
  const gpa = gpaOf(request.rcxLo, request.rcxHi)
  const size = toNumber(request.rdxLo, request.rdxHi)
  const levels = new Set(state.registry.map(({ apicId }) => apicId))
  if (levels.size !== state.registry.length) return MIGRATION_RESULT.MORE_LEVELS
  if (gpa % PAGE_SIZE !== 0 || size % PAGE_SIZE !== 0 || request.r8Lo > 3) return INVALID_PARAMETER
  migration.own = { gpa, size }
  migration.hostTracks = (request.r8Lo & 1) !== 0
  migration.rehash = (request.r8Lo & 2) !== 0
  migration.pending.clear()
  for (const gfn of movedPages(state, migration)) migration.pending.add(gfn)
  migration.phase = "sending"
  setRegister(request, "rdx", migration.pending.size)
  return SUCCESS
}
