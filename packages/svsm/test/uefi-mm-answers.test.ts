import {
  CORE_CALL,
  EFI_VARIABLE,
  getVariableMessage,
  LOCK_POLICY,
  lockVariableMessage,
  MM_HEADER,
  MM_RECEIVER,
  MM_VARIABLE,
  mmMessage,
  NO_STATUS,
  nextNameMessage,
  noticeMessage,
  POLICY_COMMAND,
  POLICY_HEADER,
  PROTOCOL,
  payloadSizeMessage,
  policyMessage,
  queryInfoMessage,
  registerPolicyMessage,
  setVariableMessage,
  VARIABLE_HEADER,
  VARIABLE_PROPERTY,
  type Variable
} from "@vmpl-lab/guest"
import { PAGE_SIZE, setU64 } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { expect, it } from "vitest"
import {
  CA,
  FIRMWARE,
  GUEST_VMSA,
  MIB,
  ScriptedHost,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import { svsmAnswers } from "../../../test/support/svsmAnswers.ts"
import {
  BUFFER,
  BUFFER_SIZE,
  put,
  request,
  resultName,
  statusAt,
  statusName,
  take
} from "../../../test/support/uefiHost.ts"
import { uefiMm } from "../src/index.ts"

const { answer, check } = svsmAnswers(() => [uefiMm()])

const GUID = "11111111-2222-3333-4444-555555555555"
const { NON_VOLATILE, BOOTSERVICE_ACCESS, RUNTIME_ACCESS, APPEND_WRITE } = EFI_VARIABLE
const NAME = { name: "Boot0001", guid: GUID }
const BS = NON_VOLATILE | BOOTSERVICE_ACCESS
const RT = BS | RUNTIME_ACCESS
const variable = (attributes = RT, data: ReadonlyArray<number> = [1, 2, 3, 4]): Variable => ({
  ...NAME,
  attributes,
  data: Uint8Array.from(data)
})
const call = (host: ScriptedHost, rcx: number | readonly [number, number], rdx: number = BUFFER_SIZE, number = 1) =>
  resultName(host.call(PROTOCOL.UEFI_MM, number, { rcx, rdx }).result)
/** The call's result, or where it is SUCCESS, the status in the message. */
const asked = (host: ScriptedHost, message: Uint8Array, offset: number = VARIABLE_HEADER.status): string => {
  const outcome = request(host, message)
  return outcome.result === 0 ? statusAt(outcome.message, offset) : resultName(outcome.result)
}
const policy = (host: ScriptedHost, message: Uint8Array): string => asked(host, message, POLICY_HEADER.result)
const event = (host: ScriptedHost, receiver: string): void =>
  expect(request(host, mmMessage(receiver, new Uint8Array(1))).result).toBe(0)
const make = (host: ScriptedHost, made = variable()): void =>
  expect(asked(host, setVariableMessage(made))).toBe("SUCCESS")
/** A message with a length of its own. */
const withLength = (lo: number, hi = 0): Uint8Array => {
  const message = mmMessage(MM_RECEIVER.VARIABLE, new Uint8Array(16))
  const view = new DataView(message.buffer)
  view.setUint32(MM_HEADER.length, lo, true)
  view.setUint32(MM_HEADER.length + 4, hi, true)
  return message
}
/** Whether a request leaves all of the buffer as it is. */
const left = (host: ScriptedHost, message: Uint8Array): string => {
  const before = Uint8Array.from([...message, ...new Uint8Array(2 * PAGE_SIZE).fill(0xa5)])
  put(host, BUFFER, before)
  const result = call(host, BUFFER)
  // Not even with the bytes that were there: another vCPU may have put others meanwhile.
  expect(host.seen.filter(({ operation: { op } }) => op === OP.WRITE_BYTES)).toEqual([])
  if (result !== "SUCCESS") return result
  return Buffer.compare(take(host, BUFFER, before.length), before) === 0 ? "SUCCESS, unchanged" : "SUCCESS, changed"
}

answer("uefi-mm/query", (host) => {
  const { rcx } = host.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: [PROTOCOL.UEFI_MM, 1] })
  return `RCX = ${Math.floor(rcx / 2 ** 32)}, ${rcx % 2 ** 32}`
})
answer("uefi-mm/absent", (host) => {
  const without = new ScriptedHost(host.state.behaviour.name).boot()
  expect(without.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: [PROTOCOL.UEFI_MM, 1] }).rcx).toBe(0)
  return call(without, BUFFER)
})
answer("uefi-mm/call-0", (host) => call(host, BUFFER, BUFFER_SIZE, 0))
answer("uefi-mm/unknown", (host) => call(host, BUFFER, BUFFER_SIZE, 2))
answer("uefi-mm/null", (host) => call(host, 0))
answer("uefi-mm/svsm", (host) => call(host, SVSM_DATA))
answer("uefi-mm/outside", (host) => call(host, FIRMWARE.gpa + FIRMWARE.size))
answer("uefi-mm/beyond", (host) => call(host, [0xffff_ffff, 0xffff_f000]))
answer("uefi-mm/area", (host) => call(host, CA))
answer("uefi-mm/vmsa", (host) => call(host, GUEST_VMSA))
answer("uefi-mm/misaligned", (host) => call(host, BUFFER + 8))
answer("uefi-mm/unvalidated", (host) => call(host, UNVALIDATED))
answer("uefi-mm/small", (host) => call(host, BUFFER, MM_HEADER.SIZE - 1))
answer("uefi-mm/smallest", (host) => {
  put(host, BUFFER, mmMessage(MM_RECEIVER.END_OF_DXE, new Uint8Array(0)))
  return call(host, BUFFER, MM_HEADER.SIZE)
})
answer("uefi-mm/largest", (host) => resultName(request(host, noticeMessage(5), { rdx: 256 * 1024 }).result))
answer("uefi-mm/large", (host) => call(host, BUFFER, 256 * 1024 + 1))
answer("uefi-mm/both", (host) => call(host, SVSM_DATA, 8))
answer("uefi-mm/length", (host) => {
  const rdx = 4096
  expect(resultName(request(host, withLength(rdx - MM_HEADER.SIZE), { rdx }).result)).toBe("SUCCESS")
  return resultName(request(host, withLength(rdx - MM_HEADER.SIZE + 1), { rdx }).result)
})
answer("uefi-mm/length-64", (host) => resultName(request(host, withLength(0xffff_ffff, 0xffff_ffff)).result))
answer("uefi-mm/rest", (host) => {
  // The last validated page: the rest of the buffer is not the guest's to name.
  const rcx = FIRMWARE.gpa + FIRMWARE.size - PAGE_SIZE
  const outcome = request(host, payloadSizeMessage(), { rcx })
  return outcome.result === 0 ? statusAt(outcome.message, VARIABLE_HEADER.status) : resultName(outcome.result)
})
answer("uefi-mm/message", (host) => {
  const message = withLength(2 * PAGE_SIZE)
  return resultName(request(host, message, { rcx: FIRMWARE.gpa + FIRMWARE.size - PAGE_SIZE }).result)
})
answer("uefi-mm/taken", (host) => {
  put(host, BUFFER, payloadSizeMessage())
  // Another vCPU has the page rescinded while the message is served.
  host.meddle = ({ address }) => {
    if (address === BUFFER + MM_HEADER.SIZE) host.state.validated.delete(BUFFER / PAGE_SIZE)
  }
  return call(host, BUFFER)
})
answer("uefi-mm/no-room", (host) => {
  make(host)
  const message = getVariableMessage(NAME, 3)
  put(host, BUFFER, Uint8Array.from([...message, ...new Uint8Array(64).fill(0xa5)]))
  expect(call(host, BUFFER)).toBe("SUCCESS")
  expect(take(host, BUFFER + message.length, 64).every((byte) => byte === 0xa5)).toBe(true)
  return statusAt(take(host, BUFFER, message.length), VARIABLE_HEADER.status)
})
answer("uefi-mm/receiver", (host) => left(host, mmMessage(GUID, new Uint8Array(16))))
answer("uefi-mm/event", (host) => left(host, mmMessage(MM_RECEIVER.END_OF_DXE, new Uint8Array(1))))
answer("uefi-mm/no-header", (host) => left(host, mmMessage(MM_RECEIVER.VARIABLE, new Uint8Array(15))))

answer("uefi-variable/get", (host) => {
  make(host)
  return asked(host, getVariableMessage(NAME, 4))
})
answer("uefi-variable/get-absent", (host) => asked(host, getVariableMessage(NAME, 4)))
answer("uefi-variable/get-short", (host) => {
  const message = getVariableMessage(NAME, 0).subarray(0, MM_HEADER.SIZE + VARIABLE_HEADER.SIZE + 35)
  setU64(new DataView(message.buffer), MM_HEADER.length, VARIABLE_HEADER.SIZE + 35)
  return shortly(host, message)
})
/** The status, or that there is none: what the guest had left in its place. */
const shortly = (host: ScriptedHost, message: Uint8Array): string => {
  const status = asked(host, message)
  return status === statusName(NO_STATUS) ? "unchanged" : status
}
const spoilt = (message: Uint8Array, at: number, value: number): Uint8Array => {
  setU64(new DataView(message.buffer), MM_HEADER.SIZE + VARIABLE_HEADER.SIZE + at, value)
  return message
}
answer("uefi-variable/get-long", (host) => shortly(host, getVariableMessage(NAME, 0x8400)))
answer("uefi-variable/get-outside", (host) => asked(host, spoilt(getVariableMessage(NAME, 4), 16, 5)))
answer("uefi-variable/get-endless", (host) => asked(host, spoilt(getVariableMessage(NAME, 4), 24, 16)))
answer("uefi-variable/get-hidden", (host) => {
  make(host, variable(BS))
  expect(asked(host, noticeMessage(MM_VARIABLE.EXIT_BOOT_SERVICE))).toBe("SUCCESS")
  return asked(host, getVariableMessage(NAME, 4))
})
answer("uefi-variable/next", (host) => asked(host, nextNameMessage({ name: "", guid: GUID }, 64)))
answer("uefi-variable/next-absent", (host) => asked(host, nextNameMessage(NAME, 64)))
answer("uefi-variable/next-room", (host) => asked(host, nextNameMessage({ name: "", guid: GUID }, 4)))
answer("uefi-variable/set", (host) => asked(host, setVariableMessage(variable())))
answer("uefi-variable/set-other-attributes", (host) => {
  make(host)
  return asked(host, setVariableMessage(variable(BS)))
})
answer("uefi-variable/set-runtime-only", (host) => asked(host, setVariableMessage(variable(RUNTIME_ACCESS))))
answer("uefi-variable/set-counted", (host) => asked(host, setVariableMessage(variable(RT | 0x10))))
answer("uefi-variable/set-large", (host) =>
  asked(host, setVariableMessage(variable(RT, Array(0x8400 - 60 - 18 + 1).fill(1))))
)
answer("uefi-variable/set-full", (host) => {
  for (let i = 0; i < 7; i++) make(host, { ...variable(RT, Array(0x8000).fill(i)), name: `Large${i}` })
  return asked(host, setVariableMessage(variable(RT, Array(0x8000).fill(7))))
})
answer("uefi-variable/set-hidden", (host) => {
  make(host, variable(BS))
  asked(host, noticeMessage(MM_VARIABLE.EXIT_BOOT_SERVICE))
  return asked(host, setVariableMessage(variable(BS, [])))
})
answer("uefi-variable/set-volatile-at-runtime", (host) => {
  make(host, variable(RT & ~NON_VOLATILE))
  asked(host, noticeMessage(MM_VARIABLE.EXIT_BOOT_SERVICE))
  return asked(host, setVariableMessage(variable(RT & ~NON_VOLATILE, [9])))
})
answer("uefi-variable/append", (host) => {
  make(host)
  return asked(host, setVariableMessage(variable(RT | APPEND_WRITE, [5])))
})
answer("uefi-variable/delete", (host) => {
  make(host)
  expect(asked(host, setVariableMessage(variable(RT, [])))).toBe("SUCCESS")
  return asked(host, getVariableMessage(NAME, 4))
})
answer("uefi-variable/delete-absent", (host) => asked(host, setVariableMessage(variable(RT, []))))
answer("uefi-variable/set-mode", (host) =>
  asked(
    host,
    setVariableMessage({ ...variable(6, [0]), name: "SetupMode", guid: "8be4df61-93ca-11d2-aa0d-00e098032b8c" })
  )
)
answer("uefi-variable/set-unsigned", (host) =>
  asked(host, setVariableMessage({ ...variable(0x27), name: "PK", guid: "8be4df61-93ca-11d2-aa0d-00e098032b8c" }))
)
answer("uefi-variable/query", (host) => asked(host, queryInfoMessage(RT)))
answer("uefi-variable/query-0", (host) => asked(host, queryInfoMessage(0)))
answer("uefi-variable/payload-size", (host) => asked(host, payloadSizeMessage()))
answer("uefi-variable/ready-to-boot", (host) => asked(host, noticeMessage(MM_VARIABLE.READY_TO_BOOT)))
answer("uefi-variable/exit-boot-service", (host) => asked(host, noticeMessage(MM_VARIABLE.EXIT_BOOT_SERVICE)))
answer("uefi-variable/statistics", (host) => asked(host, noticeMessage(MM_VARIABLE.GET_STATISTICS)))
answer("uefi-variable/lock", (host) => {
  make(host)
  expect(asked(host, lockVariableMessage(NAME))).toBe("SUCCESS")
  event(host, MM_RECEIVER.END_OF_DXE)
  return asked(host, setVariableMessage(variable(RT, [9])))
})
answer("uefi-variable/lock-late", (host) => {
  event(host, MM_RECEIVER.END_OF_DXE)
  return asked(host, lockVariableMessage(NAME))
})
const property = (fn: number): Uint8Array => {
  // The name's place is another one than LockVariable's: the property comes before it.
  const named = lockVariableMessage(NAME).subarray(MM_HEADER.SIZE + VARIABLE_HEADER.SIZE)
  const body = new Uint8Array(VARIABLE_HEADER.SIZE + VARIABLE_PROPERTY.name + named.length - 24)
  const view = new DataView(body.buffer)
  setU64(view, 0, fn)
  body.set(named.subarray(0, 24), VARIABLE_HEADER.SIZE)
  view.setUint16(VARIABLE_HEADER.SIZE + VARIABLE_PROPERTY.revision, VARIABLE_PROPERTY.REVISION, true)
  view.setUint16(VARIABLE_HEADER.SIZE + VARIABLE_PROPERTY.property, VARIABLE_PROPERTY.READ_ONLY, true)
  body.set(named.subarray(24), VARIABLE_HEADER.SIZE + VARIABLE_PROPERTY.name)
  return mmMessage(MM_RECEIVER.VARIABLE, body)
}
answer("uefi-variable/property-set", (host) => {
  const status = asked(host, property(MM_VARIABLE.VAR_CHECK_VARIABLE_PROPERTY_SET))
  if (status !== "SUCCESS") return status
  event(host, MM_RECEIVER.END_OF_DXE)
  return `SUCCESS, then a write is ${asked(host, setVariableMessage(variable()))}`
})
answer("uefi-variable/property-get", (host) => asked(host, property(MM_VARIABLE.VAR_CHECK_VARIABLE_PROPERTY_GET)))
answer("uefi-variable/cache", (host) =>
  [12, 13].map((fn) => asked(host, mmMessage(MM_RECEIVER.VARIABLE, Uint8Array.from([fn, ...Array(63).fill(0)])))).join()
)
answer("uefi-variable/cache-info", (host) =>
  asked(host, mmMessage(MM_RECEIVER.VARIABLE, Uint8Array.from([14, ...Array(47).fill(0)])))
)
answer("uefi-variable/unknown", (host) =>
  [0, 15, 0xff].map((fn) => asked(host, noticeMessage(fn))).reduce((one, other) => (one === other ? one : "several"))
)

answer("uefi-policy/enabled", (host) => policy(host, policyMessage(POLICY_COMMAND.IS_ENABLED, new Uint8Array(1))))
answer("uefi-policy/register", (host) => {
  expect(policy(host, registerPolicyMessage({ ...NAME, lock: LOCK_POLICY.LOCK_NOW }))).toBe("SUCCESS")
  make(host)
  event(host, MM_RECEIVER.END_OF_DXE)
  return asked(host, setVariableMessage(variable(RT, [9])))
})
answer("uefi-policy/twice", (host) => {
  policy(host, registerPolicyMessage(NAME))
  return policy(host, registerPolicyMessage(NAME))
})
answer("uefi-policy/malformed", (host) => policy(host, registerPolicyMessage({ ...NAME, maxSize: 0 })))
answer("uefi-policy/late", (host) => {
  event(host, MM_RECEIVER.END_OF_DXE)
  return policy(host, registerPolicyMessage(NAME))
})
answer("uefi-policy/locked", (host) => {
  expect(policy(host, policyMessage(POLICY_COMMAND.LOCK))).toBe("SUCCESS")
  return policy(host, registerPolicyMessage(NAME))
})
answer("uefi-policy/disable", (host) => policy(host, policyMessage(POLICY_COMMAND.DISABLE)))
answer("uefi-policy/dump", (host) => {
  policy(host, registerPolicyMessage(NAME))
  return policy(host, policyMessage(POLICY_COMMAND.DUMP, new Uint8Array(16_340)))
})
answer("uefi-policy/unknown", (host) => policy(host, policyMessage(6)))
answer("uefi-policy/signature", (host) => {
  const message = policyMessage(POLICY_COMMAND.LOCK)
  message[MM_HEADER.SIZE] = 0
  return policy(host, message)
})

check()

it("has room for buffers where the cases put them", () => {
  expect(BUFFER + 256 * 1024).toBeLessThanOrEqual(2 * MIB)
})
