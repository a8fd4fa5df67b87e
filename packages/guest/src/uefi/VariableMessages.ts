import { GUID_SIZE, getU64, guidBytes, guidText, setU64 } from "@vmpl-lab/sev-es"
import {
  ACCESS_VARIABLE,
  EFI_STATUS,
  efiStatusOf,
  LOCK_POLICY,
  MM_HEADER,
  MM_RECEIVER,
  MM_VARIABLE,
  NEXT_NAME,
  PAYLOAD_SIZE_SIZE,
  POLICY_COMMAND,
  POLICY_ENTRY,
  POLICY_HEADER,
  QUERY_INFO,
  VARIABLE_HEADER
} from "./MmMessage.ts"

/** A variable by its name, UTF-16 without its end, and its vendor's GUID as text. */
export interface VariableName {
  readonly name: string
  readonly guid: string
}

/** A variable as it is read and written. */
export interface Variable extends VariableName {
  readonly attributes: number
  readonly data: Uint8Array
}

/** What a variable may be, or what locks it. Sizes in bytes of its data. */
export interface VariablePolicy {
  /** Empty: all variables of the vendor; `#` stands for a hexadecimal digit. */
  readonly name: string
  readonly guid: string
  readonly minSize: number
  readonly maxSize: number
  readonly mustHave: number
  readonly cantHave: number
  readonly lock: number
}

const NO_LIMITS = { minSize: 0, maxSize: 0xffff_ffff, mustHave: 0, cantHave: 0, lock: LOCK_POLICY.NO_LOCK } as const

/** The bytes of a name with its end. */
export const nameBytes = (name: string): Uint8Array => {
  const bytes = new Uint8Array(2 * name.length + 2)
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < name.length; i++) view.setUint16(2 * i, name.charCodeAt(i), true)
  return bytes
}

/** The name in UTF-16 up to its end; all of the bytes where it has none. */
export const nameIn = (bytes: Uint8Array): string => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const units: Array<number> = []
  for (let at = 0; at + 2 <= bytes.length; at += 2) {
    const unit = view.getUint16(at, true)
    if (unit === 0) break
    units.push(unit)
  }
  return units.map((unit) => String.fromCharCode(unit)).join("")
}

/** A message: its receiver, then its bytes. */
export const mmMessage = (receiver: string, body: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(MM_HEADER.SIZE + body.length)
  bytes.set(guidBytes(receiver), MM_HEADER.guid)
  setU64(new DataView(bytes.buffer), MM_HEADER.length, body.length)
  bytes.set(body, MM_HEADER.SIZE)
  return bytes
}

/**
 * A message to the variable service, with `fill` writing what is behind its header. Where the status will be is none
 * yet: a service that leaves the message as it is has not said that all is well.
 */
const toVariables = (
  fn: number,
  size: number,
  fill: (view: DataView, bytes: Uint8Array) => void = () => {}
): Uint8Array => {
  const body = new Uint8Array(VARIABLE_HEADER.SIZE + size)
  setU64(new DataView(body.buffer), VARIABLE_HEADER.function, fn)
  body.fill(0xff, VARIABLE_HEADER.status, VARIABLE_HEADER.SIZE)
  const bytes = body.subarray(VARIABLE_HEADER.SIZE)
  fill(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), bytes)
  return mmMessage(MM_RECEIVER.VARIABLE, body)
}

const access = (fn: number, { name, guid }: VariableName, attributes: number, data: Uint8Array): Uint8Array => {
  const named = nameBytes(name)
  return toVariables(fn, ACCESS_VARIABLE.name + named.length + data.length, (view, bytes) => {
    bytes.set(guidBytes(guid), ACCESS_VARIABLE.guid)
    setU64(view, ACCESS_VARIABLE.data_size, data.length)
    setU64(view, ACCESS_VARIABLE.name_size, named.length)
    view.setUint32(ACCESS_VARIABLE.attributes, attributes, true)
    bytes.set(named, ACCESS_VARIABLE.name)
    bytes.set(data, ACCESS_VARIABLE.name + named.length)
  })
}

/** GetVariable with room for `room` bytes of data. */
export const getVariableMessage = (variable: VariableName, room: number): Uint8Array =>
  access(MM_VARIABLE.GET_VARIABLE, variable, 0, new Uint8Array(room))

/** SetVariable. */
export const setVariableMessage = (variable: Variable): Uint8Array =>
  access(MM_VARIABLE.SET_VARIABLE, variable, variable.attributes, variable.data)

/** GetNextVariableName with room for `room` bytes of name, but for no fewer than the one given has. */
export const nextNameMessage = ({ name, guid }: VariableName, room: number): Uint8Array => {
  const named = nameBytes(name)
  const size = Math.max(room, named.length)
  return toVariables(MM_VARIABLE.GET_NEXT_VARIABLE_NAME, NEXT_NAME.name + size, (view, bytes) => {
    bytes.set(guidBytes(guid), NEXT_NAME.guid)
    setU64(view, NEXT_NAME.name_size, size)
    bytes.set(named, NEXT_NAME.name)
  })
}

/** LockVariable: read only from the end of DXE on. */
export const lockVariableMessage = ({ name, guid }: VariableName): Uint8Array => {
  const named = nameBytes(name)
  return toVariables(MM_VARIABLE.LOCK_VARIABLE, NEXT_NAME.name + named.length, (view, bytes) => {
    bytes.set(guidBytes(guid), NEXT_NAME.guid)
    setU64(view, NEXT_NAME.name_size, named.length)
    bytes.set(named, NEXT_NAME.name)
  })
}

/** QueryVariableInfo for variables of these attributes. */
export const queryInfoMessage = (attributes: number): Uint8Array =>
  toVariables(MM_VARIABLE.QUERY_VARIABLE_INFO, QUERY_INFO.SIZE, (view) => {
    view.setUint32(QUERY_INFO.attributes, attributes, true)
  })

/** GetPayloadSize. */
export const payloadSizeMessage = (): Uint8Array => toVariables(MM_VARIABLE.GET_PAYLOAD_SIZE, PAYLOAD_SIZE_SIZE)

/** A function that is only a notice: ReadyToBoot and ExitBootService. */
export const noticeMessage = (fn: number): Uint8Array => toVariables(fn, 0)

/** A message about an event, as EDK2's firmware sends it: one byte behind the header. */
export const eventMessage = (receiver: string): Uint8Array => mmMessage(receiver, new Uint8Array(1))

/** A command about policies. */
export const policyMessage = (command: number, body: Uint8Array = new Uint8Array(0)): Uint8Array => {
  const bytes = new Uint8Array(POLICY_HEADER.SIZE + body.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(POLICY_HEADER.signature, POLICY_HEADER.SIGNATURE, true)
  view.setUint32(POLICY_HEADER.revision, POLICY_HEADER.REVISION, true)
  view.setUint32(POLICY_HEADER.command, command, true)
  bytes.fill(0xff, POLICY_HEADER.result, POLICY_HEADER.SIZE)
  bytes.set(body, POLICY_HEADER.SIZE)
  return mmMessage(MM_RECEIVER.VARIABLE_POLICY, bytes)
}

/** A VARIABLE_POLICY_ENTRY without a state that locks. */
export const policyEntry = (asked: VariableName & Partial<VariablePolicy>): Uint8Array => {
  const policy: VariablePolicy = { ...NO_LIMITS, ...asked }
  const named = policy.name === "" ? new Uint8Array(0) : nameBytes(policy.name)
  const bytes = new Uint8Array(POLICY_ENTRY.SIZE + named.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(POLICY_ENTRY.version, POLICY_ENTRY.REVISION, true)
  view.setUint16(POLICY_ENTRY.size, bytes.length, true)
  view.setUint16(POLICY_ENTRY.offset_to_name, POLICY_ENTRY.SIZE, true)
  bytes.set(guidBytes(policy.guid), POLICY_ENTRY.namespace)
  view.setUint32(POLICY_ENTRY.min_size, policy.minSize, true)
  view.setUint32(POLICY_ENTRY.max_size, policy.maxSize, true)
  view.setUint32(POLICY_ENTRY.attributes_must_have, policy.mustHave, true)
  view.setUint32(POLICY_ENTRY.attributes_cant_have, policy.cantHave, true)
  view.setUint8(POLICY_ENTRY.lock_policy_type, policy.lock)
  bytes.set(named, POLICY_ENTRY.SIZE)
  return bytes
}

/** Registers a policy. */
export const registerPolicyMessage = (policy: VariableName & Partial<VariablePolicy>): Uint8Array =>
  policyMessage(POLICY_COMMAND.REGISTER, policyEntry(policy))

/** A message's bytes behind both headers. */
const payloadOf = (message: Uint8Array): Uint8Array => message.subarray(MM_HEADER.SIZE + VARIABLE_HEADER.SIZE)
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The status that the variable service has left in a message. */
export const variableStatus = (message: Uint8Array): number =>
  efiStatusOf(viewOf(message), MM_HEADER.SIZE + VARIABLE_HEADER.status)

/** The result that the policies have left in a message. */
export const policyResult = (message: Uint8Array): number =>
  efiStatusOf(viewOf(message), MM_HEADER.SIZE + POLICY_HEADER.result)

/** GetVariable's answer: the data is as long as the answer says, or empty where there was no room. */
export const variableIn = (
  message: Uint8Array
): { readonly attributes: number; readonly size: number; readonly data: Uint8Array } => {
  const payload = payloadOf(message)
  const view = viewOf(payload)
  const size = getU64(view, ACCESS_VARIABLE.data_size)
  const from = ACCESS_VARIABLE.name + getU64(view, ACCESS_VARIABLE.name_size)
  const data = variableStatus(message) === EFI_STATUS.SUCCESS ? payload.slice(from, from + size) : new Uint8Array(0)
  return { attributes: view.getUint32(ACCESS_VARIABLE.attributes, true), size, data }
}

/** GetNextVariableName's answer. */
export const nextNameIn = (message: Uint8Array): VariableName & { readonly nameSize: number } => {
  const payload = payloadOf(message)
  const nameSize = getU64(viewOf(payload), NEXT_NAME.name_size)
  const name = nameIn(payload.subarray(NEXT_NAME.name, NEXT_NAME.name + nameSize))
  return { name, guid: guidText(payload.subarray(0, GUID_SIZE), 0), nameSize }
}

/** Room for variables, bytes. */
export interface VariableInfo {
  readonly maxStorage: number
  readonly remainingStorage: number
  readonly maxVariable: number
}

/** QueryVariableInfo's answer. */
export const queryInfoIn = (message: Uint8Array): VariableInfo => {
  const view = viewOf(payloadOf(message))
  return {
    maxStorage: getU64(view, QUERY_INFO.max_storage),
    remainingStorage: getU64(view, QUERY_INFO.remaining_storage),
    maxVariable: getU64(view, QUERY_INFO.max_variable)
  }
}

/** GetPayloadSize's answer. */
export const payloadSizeIn = (message: Uint8Array): number => getU64(viewOf(payloadOf(message)), 0)
