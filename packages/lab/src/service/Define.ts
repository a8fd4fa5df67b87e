import { type KeyOptions, SVSM_RESULT, type TscInfo } from "@vmpl-lab/guest"
import type { CallRegister } from "@vmpl-lab/svsm"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import { type StructFields, type StructValue, structSize } from "./Struct.ts"

/** A register of 32 bits: a `number`. Its upper half must be zero. */
export interface U32 {
  readonly kind: "u32"
  readonly register: CallRegister
}

/** A whole register: a `bigint`. */
export interface U64 {
  readonly kind: "u64"
  readonly register: CallRegister
}

/** How many bytes a buffer has: so many, or as a register says within bounds. */
export type BufferSize = number | { readonly register: CallRegister; readonly min: number; readonly max: number }

/** Guest memory by the address in a register: a `GuestBuffer`. */
export interface BufferField {
  readonly kind: "buffer"
  readonly register: CallRegister
  readonly size: BufferSize
  readonly align: number
}

/** A structure in guest memory by the address in a register: its fields' values, read after the checks. */
export interface StructBuffer<F extends StructFields = StructFields> {
  readonly kind: "struct"
  readonly register: CallRegister
  /** Bytes of all fields. */
  readonly size: number
  readonly align: number
  readonly fields: F
}

/** A structure that the reply puts at the start of one of the request's buffers. */
export interface BufferReply<F extends StructFields = StructFields> {
  readonly kind: "buffer reply"
  /** Name of the request's `guestBuffer` or `guestStruct`. */
  readonly buffer: string
  readonly fields: F
}

export const u32 = (register: CallRegister): U32 => ({ kind: "u32", register })
export const u64 = (register: CallRegister): U64 => ({ kind: "u64", register })

/** @param options.align a power of two up to 4096; 1 when left out */
export const guestBuffer = (
  register: CallRegister,
  options: { readonly size: BufferSize; readonly align?: number }
): BufferField => ({ kind: "buffer", register, size: options.size, align: options.align ?? 1 })

/** Fields lie one behind the other, little-endian, without gaps. @param align bytes, a power of two; 8 when left out */
export const guestStruct = <const F extends StructFields>(
  register: CallRegister,
  fields: F,
  align = 8
): StructBuffer<F> => ({ kind: "struct", register, size: structSize(fields), align, fields })

/** @param buffer which of the request's buffers, by its name */
export const bufferReply = <const F extends StructFields>(buffer: string, fields: F): BufferReply<F> => ({
  kind: "buffer reply",
  buffer,
  fields
})

/**
 * Guest memory that the SVSM has checked: aligned, inside the guest's RAM, none of the SVSM's own, validated. There is no
 * way from it to any other address. Each access is checked once more, as another vCPU may take the memory away.
 */
export interface GuestBuffer {
  readonly size: number
  /** A copy of so many bytes from `offset` on; all of them when left out. Ends the call with INVALID_ADDRESS where gone. */
  readonly read: (offset?: number, length?: number) => Effect.Effect<Uint8Array>
  /** Stores bytes from `offset` on. A handler that goes beyond the end dies, and the run fails: that is its bug. */
  readonly write: (bytes: Uint8Array, offset?: number) => Effect.Effect<void>
}

/** What a handler may use beside its guest's buffers; a call names those that it wants. */
export interface Capabilities {
  /**
   * Bytes in pages of the SVSM's own, which no other level can read, for as long as it runs. A value has a page at most;
   * SecretsFull where no page is left. What is removed or replaced is wiped.
   */
  readonly secrets: {
    readonly get: (key: string) => Effect.Effect<Uint8Array | undefined>
    readonly set: (key: string, value: Uint8Array) => Effect.Effect<void, SecretsFull>
    readonly remove: (key: string) => Effect.Effect<void>
  }
  /**
   * Messages to the AMD-SP under the SVSM's key. Each is a VMGEXIT and the AMD-SP's work; FirmwareRefused where the
   * firmware says no or the host does not carry the message.
   */
  readonly firmware: {
    /** An attestation report about VMPL0. @param data 64 bytes that it binds; shorter ones are filled up with zeros */
    readonly report: (data: Uint8Array) => Effect.Effect<Uint8Array, FirmwareRefused>
    /** A key of 32 bytes that only this guest on this chip can have. */
    readonly key: (options: KeyOptions) => Effect.Effect<Uint8Array, FirmwareRefused>
    /** What SecureTSC is set up with. */
    readonly tscInfo: Effect.Effect<TscInfo, FirmwareRefused>
  }
  /** Virtual ns by the vCPU's TSC. */
  readonly clock: Effect.Effect<number>
  /** So many random bytes; equal seeds give equal ones. */
  readonly random: (bytes: number) => Effect.Effect<Uint8Array>
  /** Something outside of the guest, such as a file: it is waited for, and costs the virtual time given here. */
  readonly host: <A, E>(ns: number, io: Effect.Effect<A, E>) => Effect.Effect<A, E>
}
export type CapabilityName = keyof Capabilities

/** What every handler has. */
export interface HandlerContext {
  /** VMPL of the caller, and the APIC ID of its vCPU. */
  readonly vmpl: number
  readonly apicId: number
  /** Charges virtual time for a step of the handler's own, ns. */
  readonly work: (ns: number) => Effect.Effect<void>
}

/** There is no room for another secret. INVALID_REQUEST unless the service's `errors` says otherwise. */
export class SecretsFull extends Data.TaggedError("SecretsFull")<{ readonly key: string }> {}

/** The AMD-SP has not answered. INVALID_REQUEST unless the service's `errors` says otherwise. */
export class FirmwareRefused extends Data.TaggedError("FirmwareRefused") {}

export type ResultName =
  | "INCOMPLETE"
  | "BUSY"
  | "INVALID_ADDRESS"
  | "INVALID_FORMAT"
  | "INVALID_PARAMETER"
  | "INVALID_REQUEST"

/** A call is refused: a result by its name, or one of the protocol's own failures, counted from 0x8000_1000. */
export class Refused extends Data.TaggedError("Refused")<{ readonly result: number }> {}

/** The result code of a name of the specification, or of 0 to 0x7fff_efff: a failure of the protocol's own. */
export const resultCode = (why: ResultName | number): number =>
  typeof why === "number" ? SVSM_RESULT.FAIL_BASE + why : SVSM_RESULT[why]

/** @param why a name of the specification, or 0 to 0x7fff_efff for a failure of the protocol's own. @spec SVSM 5 table 4 */
export const refuse = (why: ResultName | number): Refused => new Refused({ result: resultCode(why) })

/** A call's arguments by name. */
export type RequestFields = { readonly [name: string]: U32 | U64 | BufferField | StructBuffer }
/** A call's results by name: what registers and buffers hold after it. */
export type ReplyFields = { readonly [name: string]: U32 | U64 | BufferReply }

type ValueOf<F> = F extends U32
  ? number
  : F extends U64
    ? bigint
    : F extends BufferField
      ? GuestBuffer
      : F extends StructBuffer<infer Fields> | BufferReply<infer Fields>
        ? StructValue<Fields>
        : never
type ExampleOf<F> = F extends U32
  ? number
  : F extends U64
    ? bigint
    : F extends StructBuffer<infer Fields>
      ? Partial<StructValue<Fields>>
      : Uint8Array

/** What a handler fails with: a refusal, or an error of its own that the service's `errors` gives a result code. */
export interface TaggedFailure {
  readonly _tag: string
}

/** One call of a service. */
export interface ServiceCall<
  Request extends RequestFields = RequestFields,
  Reply extends ReplyFields = ReplyFields,
  Uses extends CapabilityName = CapabilityName
> {
  readonly call: number
  readonly uses: ReadonlyArray<Uses>
  /** Virtual ns of the handler's own code, an assumption of whoever writes it. */
  readonly costNs: number
  readonly request: Request
  readonly reply: Reply
  /** Arguments that the call is tried with; zero for what is left out. */
  readonly example?: { readonly [K in keyof Request]?: ExampleOf<Request[K]> }
  // A method, so that calls of different fields fit into one service.
  handler(
    request: { readonly [K in keyof Request]: ValueOf<Request[K]> },
    svsm: HandlerContext & Pick<Capabilities, Uses>
  ): Effect.Effect<{ readonly [K in keyof Reply]: ValueOf<Reply[K]> }, TaggedFailure>
}

/** A protocol with its calls. */
export interface Service {
  readonly name: string
  readonly protocol: number
  readonly version: { readonly min: number; readonly max: number }
  /** Result codes of the errors that handlers fail with, by `_tag`: as for `refuse`. */
  readonly errors?: { readonly [tag: string]: ResultName | number }
  readonly calls: { readonly [name: string]: ServiceCall }
}

/** One call of a service, with the types of its handler taken from its fields. */
export const defineCall = <
  const Request extends RequestFields,
  const Reply extends ReplyFields,
  const Uses extends CapabilityName = never
>(
  call: ServiceCall<Request, Reply, Uses>
): ServiceCall => call as unknown as ServiceCall

/** A service for an SVSM. What is wrong with it is found when it is run. */
export const defineService = (service: Service): Service => service
