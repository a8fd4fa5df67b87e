import {
  ACCESS_VARIABLE,
  EFI_STATUS,
  LOCK_POLICY,
  MM_VARIABLE,
  NEXT_NAME,
  nameBytes,
  nameIn,
  PAYLOAD_SIZE_SIZE,
  POLICY_ENTRY,
  policyEntry,
  QUERY_INFO,
  RUNTIME_CACHE_INFO,
  setEfiStatus,
  VARIABLE_HEADER,
  VARIABLE_PROPERTY,
  type VariableName
} from "@vmpl-lab/guest"
import { GUID_SIZE, getU64, guidBytes, guidText, setU64 } from "@vmpl-lab/sev-es"
import { VARIABLE_LIMITS } from "./StoredVariables.ts"
import type { VariableService } from "./VariableService.ts"

/** Bytes of a payload that are served: the largest variable with the headers of its message. */
export const PAYLOAD_MAX = VARIABLE_LIMITS.VARIABLE - VARIABLE_LIMITS.HEADER + VARIABLE_PROPERTY.name

/** What a function has come to: its status, and how many bytes of the payload it has changed, from the start. */
interface Served {
  readonly status: number
  readonly changed: number
}

/** A function's payload, the service's own copy. */
interface Payload {
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** Null leaves the message as it is. */
type Handler = (service: VariableService, payload: Payload) => Served | null

const { SUCCESS, INVALID_PARAMETER, BUFFER_TOO_SMALL, BAD_BUFFER_SIZE } = EFI_STATUS

const only = (status: number): Served => ({ status, changed: 0 })

/** The answer to a payload that is shorter than its function's structure, or longer than any variable makes it. */
const misfit = ({ rules }: VariableService): Served | null => (rules.misfit === null ? null : only(rules.misfit))

/** The name in `size` bytes from `at`, whose last unit is its end; a status where it has none, or is not in there. */
const nameAt = ({ rules }: VariableService, { bytes }: Payload, at: number, size: number): string | number => {
  if (at + size > bytes.length) return rules.outsideOfMessage
  const units = bytes.subarray(at, at + size - (size % 2))
  if (units.length < 2 || units[units.length - 2] !== 0 || units[units.length - 1] !== 0) return rules.endlessName
  return nameIn(units)
}

/** What GetVariable and SetVariable begin with; a status where name or data leave the message. */
const accessed = (
  service: VariableService,
  payload: Payload
): { readonly named: VariableName; readonly at: number; readonly size: number } | number => {
  const { bytes, view } = payload
  const size = getU64(view, ACCESS_VARIABLE.data_size)
  const nameSize = getU64(view, ACCESS_VARIABLE.name_size)
  const at = ACCESS_VARIABLE.name + nameSize
  if (at + size > bytes.length) return service.rules.outsideOfMessage
  const name = nameAt(service, payload, ACCESS_VARIABLE.name, nameSize)
  return typeof name === "number" ? name : { named: { name, guid: guidText(bytes, ACCESS_VARIABLE.guid) }, at, size }
}

const getVariable: Handler = (service, payload) => {
  const { bytes, view } = payload
  if (bytes.length < ACCESS_VARIABLE.name) return misfit(service)
  const access = accessed(service, payload)
  if (typeof access === "number") return only(access)
  const found = service.get(access.named)
  if (typeof found === "number") return only(found)
  const { data, attributes } = found
  view.setUint32(ACCESS_VARIABLE.attributes, attributes, true)
  setU64(view, ACCESS_VARIABLE.data_size, data.length)
  if (access.size < data.length) return { status: BUFFER_TOO_SMALL, changed: ACCESS_VARIABLE.name }
  bytes.set(data, access.at)
  service.variables.steps.copied += data.length
  return { status: SUCCESS, changed: access.at + data.length }
}

const setVariable: Handler = (service, payload) => {
  const { bytes, view } = payload
  if (bytes.length < ACCESS_VARIABLE.name) return misfit(service)
  const access = accessed(service, payload)
  if (typeof access === "number") return only(access)
  const attributes = view.getUint32(ACCESS_VARIABLE.attributes, true)
  const data = bytes.slice(access.at, access.at + access.size)
  return only(service.set({ ...access.named, attributes, data }))
}

/** The name ends within its size, and the room behind it, which is the rest of the message, ends with zero too. */
const getNextVariableName: Handler = (service, payload) => {
  const { bytes, view } = payload
  if (bytes.length < NEXT_NAME.name) return misfit(service)
  const size = getU64(view, NEXT_NAME.name_size)
  if (NEXT_NAME.name + size > bytes.length) return only(service.rules.outsideOfMessage)
  const room = nameAt(service, payload, NEXT_NAME.name, bytes.length - NEXT_NAME.name)
  if (typeof room === "number") return only(room)
  const name = nameIn(bytes.subarray(NEXT_NAME.name, NEXT_NAME.name + size))
  if (2 * name.length + 2 > size) return only(INVALID_PARAMETER)
  const next = service.next({ name, guid: guidText(bytes, NEXT_NAME.guid) })
  if (typeof next === "number") return only(next)
  const named = nameBytes(next.name)
  setU64(view, NEXT_NAME.name_size, named.length)
  if (named.length > size) return { status: BUFFER_TOO_SMALL, changed: NEXT_NAME.name }
  bytes.set(guidBytes(next.guid), NEXT_NAME.guid)
  bytes.set(named, NEXT_NAME.name)
  service.variables.steps.copied += named.length
  return { status: SUCCESS, changed: NEXT_NAME.name + named.length }
}

const queryVariableInfo: Handler = (service, { bytes, view }) => {
  if (bytes.length < QUERY_INFO.SIZE) return misfit(service)
  const info = service.info(view.getUint32(QUERY_INFO.attributes, true))
  if (typeof info === "number") return only(info)
  setU64(view, QUERY_INFO.max_storage, info.maxStorage)
  setU64(view, QUERY_INFO.remaining_storage, info.remainingStorage)
  setU64(view, QUERY_INFO.max_variable, info.maxVariable)
  return { status: SUCCESS, changed: QUERY_INFO.attributes }
}

/** LockVariable and the two of properties name a variable the same way: GUID, size of the name, ..., name. */
const namedAt = (service: VariableService, payload: Payload, nameAtOffset: number): VariableName | number => {
  const name = nameAt(service, payload, nameAtOffset, getU64(payload.view, NEXT_NAME.name_size))
  return typeof name === "number" ? name : { name, guid: guidText(payload.bytes.subarray(0, GUID_SIZE), 0) }
}

const lockVariable: Handler = (service, payload) => {
  if (payload.bytes.length < NEXT_NAME.name) return misfit(service)
  const named = namedAt(service, payload, NEXT_NAME.name)
  if (typeof named === "number") return only(named)
  // An entry tells its size in 16 bits.
  if (nameBytes(named.name).length > NAME_IN_POLICY_MAX) return only(BAD_BUFFER_SIZE)
  return only(service.lock(named, policyEntry({ ...named, lock: LOCK_POLICY.LOCK_NOW })))
}

const NAME_IN_POLICY_MAX = 0xffff - POLICY_ENTRY.SIZE

const setProperty: Handler = (service, payload) => {
  const { bytes, view } = payload
  if (bytes.length < VARIABLE_PROPERTY.name) return misfit(service)
  const named = namedAt(service, payload, VARIABLE_PROPERTY.name)
  if (typeof named === "number") return only(named)
  if (view.getUint16(VARIABLE_PROPERTY.revision, true) !== VARIABLE_PROPERTY.REVISION) return only(INVALID_PARAMETER)
  const property = {
    isReadOnly: (view.getUint16(VARIABLE_PROPERTY.property, true) & VARIABLE_PROPERTY.READ_ONLY) !== 0,
    attributes: view.getUint32(VARIABLE_PROPERTY.attributes, true),
    minSize: getU64(view, VARIABLE_PROPERTY.min_size),
    maxSize: getU64(view, VARIABLE_PROPERTY.max_size)
  }
  return only(service.setProperty(named, property))
}

const getProperty: Handler = (service, payload) => {
  const { bytes, view } = payload
  if (bytes.length < VARIABLE_PROPERTY.name) return misfit(service)
  const named = namedAt(service, payload, VARIABLE_PROPERTY.name)
  if (typeof named === "number") return only(named)
  const property = service.property(named)
  if (typeof property === "number") return only(property)
  view.setUint16(VARIABLE_PROPERTY.revision, VARIABLE_PROPERTY.REVISION, true)
  view.setUint16(VARIABLE_PROPERTY.property, property.isReadOnly ? VARIABLE_PROPERTY.READ_ONLY : 0, true)
  view.setUint32(VARIABLE_PROPERTY.attributes, property.attributes, true)
  setU64(view, VARIABLE_PROPERTY.min_size, property.minSize)
  setU64(view, VARIABLE_PROPERTY.max_size, property.maxSize)
  return { status: SUCCESS, changed: VARIABLE_PROPERTY.name }
}

const getPayloadSize: Handler = (service, { bytes, view }) => {
  if (bytes.length < PAYLOAD_SIZE_SIZE) return misfit(service)
  setU64(view, 0, PAYLOAD_MAX)
  return { status: SUCCESS, changed: PAYLOAD_SIZE_SIZE }
}

const getRuntimeCacheInfo: Handler = (service, { bytes, view }) => {
  if (bytes.length < RUNTIME_CACHE_INFO.SIZE) return misfit(service)
  setU64(view, RUNTIME_CACHE_INFO.hob, 0)
  setU64(view, RUNTIME_CACHE_INFO.non_volatile, VARIABLE_LIMITS.STORE)
  setU64(view, RUNTIME_CACHE_INFO.volatile, VARIABLE_LIMITS.STORE)
  view.setUint8(RUNTIME_CACHE_INFO.authenticated, 1)
  return { status: SUCCESS, changed: RUNTIME_CACHE_INFO.authenticated + 1 }
}

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [MM_VARIABLE.GET_VARIABLE, getVariable],
  [MM_VARIABLE.GET_NEXT_VARIABLE_NAME, getNextVariableName],
  [MM_VARIABLE.SET_VARIABLE, setVariable],
  [MM_VARIABLE.QUERY_VARIABLE_INFO, queryVariableInfo],
  [MM_VARIABLE.READY_TO_BOOT, (service) => only(service.readyToBoot())],
  [
    MM_VARIABLE.EXIT_BOOT_SERVICE,
    (service) => {
      service.exitBootServices()
      return only(SUCCESS)
    }
  ],
  [MM_VARIABLE.LOCK_VARIABLE, lockVariable],
  [MM_VARIABLE.VAR_CHECK_VARIABLE_PROPERTY_SET, setProperty],
  [MM_VARIABLE.VAR_CHECK_VARIABLE_PROPERTY_GET, getProperty],
  [MM_VARIABLE.GET_PAYLOAD_SIZE, getPayloadSize],
  [MM_VARIABLE.GET_RUNTIME_CACHE_INFO, getRuntimeCacheInfo]
])

/**
 * Serves a message to the variable service. Its bytes are changed in place.
 * @returns how many of them make the answer, from the start; 0 leaves the guest's message as it is
 */
export const serveVariables = (service: VariableService, message: Uint8Array): number => {
  if (message.length < VARIABLE_HEADER.SIZE) return 0
  const header = new DataView(message.buffer, message.byteOffset, VARIABLE_HEADER.SIZE)
  const bytes = message.subarray(VARIABLE_HEADER.SIZE)
  const fn = getU64(header, VARIABLE_HEADER.function)
  const handler = service.rules.functions.has(fn) ? HANDLERS.get(fn)! : () => only(EFI_STATUS.UNSUPPORTED)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const served = bytes.length > PAYLOAD_MAX ? misfit(service) : handler(service, { bytes, view })
  if (served === null) return 0
  setEfiStatus(header, VARIABLE_HEADER.status, served.status)
  return VARIABLE_HEADER.SIZE + served.changed
}
