import { EFI_STATUS, POLICY_COMMAND, POLICY_DUMP, POLICY_ENTRY, POLICY_HEADER, setEfiStatus } from "@vmpl-lab/guest"
import type { VariableService } from "./VariableService.ts"

const { SUCCESS, INVALID_PARAMETER, UNSUPPORTED, WRITE_PROTECTED, TIMEOUT } = EFI_STATUS

/** A result, and how many bytes behind the header have changed. */
interface Served {
  readonly status: number
  readonly changed: number
}

const only = (status: number): Served => ({ status, changed: 0 })

/** The service's copy of a dump that a guest is fetching page by page. */
export interface PolicyDump {
  bytes: Uint8Array | null
}

const isEnabled = (body: Uint8Array): Served => {
  if (body.length < 1) return only(INVALID_PARAMETER)
  body[0] = 1
  return { status: SUCCESS, changed: 1 }
}

const register = (service: VariableService, body: Uint8Array): Served =>
  body.length < POLICY_ENTRY.SIZE ? only(INVALID_PARAMETER) : only(service.policies.register(body))

/**
 * Page 0 takes a copy and tells its size, the pages from 1 on are the copy. A page without a copy comes too late; no
 * policy at all makes a dump of one empty page.
 */
const dump = (service: VariableService, body: Uint8Array, taken: PolicyDump): Served => {
  if (body.length < POLICY_DUMP.SIZE + POLICY_DUMP.PAGE) return only(INVALID_PARAMETER)
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  const page = view.getUint32(POLICY_DUMP.page_requested, true)
  const answer = (status: number, total: number, size: number, hasMore: boolean): Served => {
    view.setUint32(POLICY_DUMP.total_size, total, true)
    view.setUint32(POLICY_DUMP.page_size, size, true)
    view.setUint8(POLICY_DUMP.has_more, hasMore ? 1 : 0)
    return { status, changed: POLICY_DUMP.SIZE + size }
  }
  if (page === 0) {
    const bytes = service.policies.dump()
    taken.bytes = bytes.length === 0 ? null : bytes
    return answer(SUCCESS, bytes.length, 0, bytes.length > 0)
  }
  const { bytes } = taken
  if (bytes === null) return answer(TIMEOUT, 0, 0, false)
  const from = (page - 1) * POLICY_DUMP.PAGE
  if (from >= bytes.length) return only(INVALID_PARAMETER)
  const part = bytes.subarray(from, from + POLICY_DUMP.PAGE)
  body.set(part, POLICY_DUMP.SIZE)
  service.variables.steps.copied += part.length
  const hasMore = from + part.length < bytes.length
  if (!hasMore) taken.bytes = null
  return answer(SUCCESS, bytes.length, part.length, hasMore)
}

const serve = (service: VariableService, command: number, body: Uint8Array, taken: PolicyDump): Served => {
  if (!service.rules.policyCommands.has(command)) return only(UNSUPPORTED)
  switch (command) {
    case POLICY_COMMAND.DISABLE:
      // EDK2's build says whether it may be: no build of it that protects secure boot does.
      return only(WRITE_PROTECTED)
    case POLICY_COMMAND.IS_ENABLED:
      return isEnabled(body)
    case POLICY_COMMAND.REGISTER:
      return register(service, body)
    case POLICY_COMMAND.DUMP:
      return dump(service, body, taken)
    default:
      return only(service.policies.lock())
  }
}

/**
 * Serves a message about policies. Its bytes are changed in place.
 * @returns how many of them make the answer, from the start; 0 leaves the guest's message as it is
 */
export const servePolicies = (service: VariableService, message: Uint8Array, taken: PolicyDump): number => {
  if (message.length < POLICY_HEADER.SIZE || message.length > POLICY_DUMP.BUFFER_MAX) return 0
  const header = new DataView(message.buffer, message.byteOffset, POLICY_HEADER.SIZE)
  const isKnown =
    header.getUint32(POLICY_HEADER.signature, true) === POLICY_HEADER.SIGNATURE &&
    header.getUint32(POLICY_HEADER.revision, true) === POLICY_HEADER.REVISION
  const command = header.getUint32(POLICY_HEADER.command, true)
  if (command !== POLICY_COMMAND.DUMP) taken.bytes = null
  const { status, changed } = isKnown
    ? serve(service, command, message.subarray(POLICY_HEADER.SIZE), taken)
    : only(INVALID_PARAMETER)
  setEfiStatus(header, POLICY_HEADER.result, status)
  return POLICY_HEADER.SIZE + changed
}
