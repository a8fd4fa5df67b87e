import { now, SVSM_RESULT } from "@vmpl-lab/guest"
import { toNumber } from "@vmpl-lab/sev-es"
import { type OutsidePort, type Program, work } from "@vmpl-lab/vmpl"
import type { Protocol, Versions } from "../protocols/Protocol.ts"
import { gpaOf, type SvsmRequest } from "../protocols/Request.ts"
import { SecretStore } from "./SecretStore.ts"
import { type FirmwareAsk, type ServiceAccess, svsmAccess } from "./ServiceAccess.ts"

/** Registers that carry a call's arguments and its reply. */
export const CALL_REGISTERS = ["rcx", "rdx", "r8"] as const
export type CallRegister = (typeof CALL_REGISTERS)[number]

/** A register that holds the address of guest memory, which is checked before a handler hears of the call. */
export interface BufferRule {
  readonly register: CallRegister
  /** Bytes; or the register that tells how many, with the most and the fewest that may be. */
  readonly size: number | { readonly register: CallRegister; readonly min: number; readonly max: number }
  /** Bytes, a power of two. */
  readonly align: number
}

/** What is checked of one call, and what it costs before the handler begins. */
export interface CallRule {
  readonly call: number
  readonly buffers: ReadonlyArray<BufferRule>
  /** Registers of 32 bits: their upper half must be zero. */
  readonly words: ReadonlyArray<CallRegister>
  readonly costNs: number
}

/** A call that has passed its checks. Register values are whole 64-bit ones. */
export interface HandledCall {
  readonly call: number
  readonly registers: { readonly [R in CallRegister]: bigint }
  /** Addresses and sizes of the buffers, in the order of the rule. */
  readonly buffers: ReadonlyArray<{ readonly gpa: number; readonly size: number }>
  readonly vmpl: number
  readonly apicId: number
}

/** What a handler has the SVSM do next; `done` is its last. */
export type HandlerStep =
  | { readonly kind: "read"; readonly gpa: number; readonly into: Uint8Array }
  | { readonly kind: "write"; readonly gpa: number; readonly from: Uint8Array }
  | { readonly kind: "work"; readonly ns: number }
  | { readonly kind: "clock" }
  | { readonly kind: "get secret"; readonly key: string }
  | { readonly kind: "set secret"; readonly key: string; readonly value: Uint8Array }
  | { readonly kind: "remove secret"; readonly key: string }
  | { readonly kind: "firmware"; readonly ask: FirmwareAsk }
  | {
      readonly kind: "done"
      readonly result: number
      readonly reply: { readonly [R in CallRegister]?: bigint }
    }

/**
 * What a handler hears: at first its call, then how each step went. `isThere` is false where memory was taken away;
 * `isDone` where there was no room for a secret; `bytes` are a secret, or what the firmware has answered.
 */
export type HandlerEvent =
  | { readonly kind: "called"; readonly call: HandledCall }
  | {
      readonly kind: "stepped"
      readonly isThere: boolean
      readonly isDone: boolean
      readonly bytes: Uint8Array | null
      readonly ns: number
    }

/** Where handlers are run. `session` is the same object for all events of one call. */
export type HandlerPort = OutsidePort<{ readonly session: object; readonly event: HandlerEvent }, HandlerStep>

/** The caller's part of a request: the handler changes the registers that it returns. */
export type ServiceRequest = Pick<
  SvsmRequest,
  "call" | "rcxLo" | "rcxHi" | "rdxLo" | "rdxHi" | "r8Lo" | "r8Hi" | "vmpl"
> & { readonly apicId: number }

/** A service's calls, whoever serves them: the SVSM at VMPL0, or a program at VMPL1. */
export type ServeCall = (access: ServiceAccess, request: ServiceRequest) => Program<number>

/**
 * Calls whose handlers run outside of the simulation. What touches the guest is here: the checks of its addresses, the
 * copies, the secrets, and the time that each step takes.
 */
export const handledCalls = (rules: ReadonlyArray<CallRule>, port: HandlerPort): ServeCall => {
  const secrets = new SecretStore()
  return function* (access, request) {
    const rule = rules.find(({ call }) => call === request.call)
    if (rule === undefined) return SVSM_RESULT.UNSUPPORTED_CALL
    const checked = check(request, rule)
    if (typeof checked === "number") return checked
    for (const { gpa, size } of checked.buffers) {
      if (!(yield* access.isCallersBuffer(request.vmpl, gpa, size))) return SVSM_RESULT.INVALID_ADDRESS
    }
    if (rule.costNs > 0) yield work(rule.costNs)
    return yield* handle({ access, port, secrets }, request, checked)
  }
}

/** Such a service as a protocol of the SVSM. */
export const handledService = (number: number, versions: Versions, serveCall: ServeCall): Protocol => ({
  number,
  versions: () => versions,
  *serve(state, request) {
    const { apicId } = request.caller
    const own: ServiceRequest = Object.assign(request, { apicId })
    return yield* serveCall(svsmAccess(state, request.caller), own)
  }
})

/** The checks of parameters and alignment; those of addresses follow. @returns the call, or why it is refused. @spec SVSM 5 */
const check = (request: ServiceRequest, { call, buffers, words }: CallRule): HandledCall | number => {
  if (words.some((register) => request[`${register}Hi`] !== 0)) return SVSM_RESULT.INVALID_PARAMETER
  const places = []
  for (const { register, size, align } of buffers) {
    const gpa = gpaOf(request[`${register}Lo`], request[`${register}Hi`])
    const bytes =
      typeof size === "number" ? size : toNumber(request[`${size.register}Lo`], request[`${size.register}Hi`])
    if (typeof size !== "number" && (bytes < size.min || bytes > size.max)) return SVSM_RESULT.INVALID_PARAMETER
    if (gpa % align !== 0) return SVSM_RESULT.INVALID_PARAMETER
    places.push({ gpa, size: bytes })
  }
  const value = (register: CallRegister): bigint =>
    (BigInt(request[`${register}Hi`]) << 32n) | BigInt(request[`${register}Lo`] >>> 0)
  const registers = { rcx: value("rcx"), rdx: value("rdx"), r8: value("r8") }
  return { call, registers, buffers: places, vmpl: request.vmpl, apicId: request.apicId }
}

interface Handling {
  readonly access: ServiceAccess
  readonly port: HandlerPort
  readonly secrets: SecretStore
}

type Stepped = Extract<HandlerEvent, { kind: "stepped" }>
const STEPPED: Stepped = { kind: "stepped", isThere: true, isDone: true, bytes: null, ns: 0 }

function* handle(handling: Handling, request: ServiceRequest, call: HandledCall): Program<number> {
  const session = {}
  let event: HandlerEvent = { kind: "called", call }
  for (;;) {
    const asked: HandlerStep = yield* handling.port.ask({ session, event })
    if (asked.kind === "done") {
      for (const register of CALL_REGISTERS) setRegister(request, register, asked.reply[register])
      return asked.result
    }
    event = { ...STEPPED, ...(yield* step(handling, asked)) }
  }
}

function* step(
  { access, secrets }: Handling,
  asked: Exclude<HandlerStep, { kind: "done" }>
): Program<Partial<Stepped>> {
  switch (asked.kind) {
    case "read":
      return { isThere: yield* access.read(asked.gpa, asked.into) }
    case "write":
      return { isThere: yield* access.write(asked.gpa, asked.from) }
    case "work":
      if (asked.ns > 0) yield work(asked.ns)
      return {}
    case "clock":
      return { ns: yield* now() }
    case "get secret":
      return { bytes: yield* secrets.get(asked.key) }
    case "set secret":
      return { isDone: yield* secrets.set(asked.key, asked.value, () => access.allocate()) }
    case "remove secret":
      yield* secrets.remove(asked.key)
      return {}
    case "firmware":
      return { bytes: yield* access.firmware(asked.ask) }
  }
}

const setRegister = (request: ServiceRequest, register: CallRegister, value: bigint | undefined): void => {
  if (value === undefined) return
  request[`${register}Lo`] = Number(value & 0xffff_ffffn)
  request[`${register}Hi`] = Number((value >> 32n) & 0xffff_ffffn)
}
