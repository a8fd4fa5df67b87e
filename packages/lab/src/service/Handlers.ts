import { SVSM_RESULT } from "@vmpl-lab/guest"
import { RandomStream } from "@vmpl-lab/sim"
import {
  type BufferRule,
  type CallRule,
  type HandledCall,
  type HandlerEvent,
  type HandlerPort,
  type HandlerStep,
  handledCalls,
  handledService,
  type Protocol,
  type ServeCall
} from "@vmpl-lab/svsm"
import { OutsidePort } from "@vmpl-lab/vmpl"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { RunFailed } from "../RunFailed.ts"
import type { OutsideAnswerer } from "../tpm/GuestMachine.ts"
import { bufferFor, capabilitiesFor, type Step } from "./Capabilities.ts"
import {
  type BufferField,
  type BufferReply,
  type Capabilities,
  type HandlerContext,
  Refused,
  resultCode,
  type Service,
  type ServiceCall,
  type StructBuffer
} from "./Define.ts"
import { decodeStruct, encodeStruct } from "./Struct.ts"

type InMemory = BufferField | StructBuffer

const buffersOf = ({ request }: ServiceCall): ReadonlyArray<readonly [name: string, field: InMemory]> =>
  Object.entries(request).filter(
    (entry): entry is [string, InMemory] => entry[1].kind === "buffer" || entry[1].kind === "struct"
  )

const ruleOf = (call: ServiceCall): CallRule => ({
  call: call.call,
  costNs: call.costNs,
  buffers: buffersOf(call).map(([, { register, size, align }]): BufferRule => ({ register, size, align })),
  words: Object.values(call.request).flatMap((field) => (field.kind === "u32" ? [field.register] : []))
})

/** One call's line between its handler, which is an Effect, and the SVSM, which is not. */
interface Session {
  readonly steps: Queue.Queue<HandlerStep | RunFailed>
  readonly events: Queue.Queue<HandlerEvent>
}

const stepIn =
  ({ steps, events }: Session): Step =>
  (step) =>
    Queue.offer(steps, step).pipe(
      Effect.andThen(Queue.take(events)),
      Effect.flatMap((event) =>
        event.kind === "stepped" && event.isThere
          ? Effect.succeed(event)
          : Effect.fail(new Refused({ result: SVSM_RESULT.INVALID_ADDRESS }))
      )
    )

/** Where each buffer of a call is, by its name. */
const placesOf = (call: ServiceCall, handled: HandledCall) =>
  new Map(buffersOf(call).map(([name], i) => [name, handled.buffers[i]!]))

/** The handler's arguments; structures are read now. */
const argumentsOf = (call: ServiceCall, handled: HandledCall, step: Step) =>
  Effect.gen(function* () {
    const places = placesOf(call, handled)
    const values: { [name: string]: unknown } = {}
    for (const [name, field] of Object.entries(call.request)) {
      if (field.kind === "buffer") values[name] = bufferFor(step, places.get(name)!)
      else if (field.kind === "struct") {
        values[name] = decodeStruct(field.fields, yield* bufferFor(step, places.get(name)!).read())
      } else {
        const value = handled.registers[field.register]
        values[name] = field.kind === "u32" ? Number(value) : value
      }
    }
    return values
  })

type Values = { readonly [name: string]: number | bigint | { readonly [field: string]: number | bigint | Uint8Array } }

const isBufferReply = (entry: [string, { readonly kind: string }]): entry is [string, BufferReply] =>
  entry[1].kind === "buffer reply"

/** Structures of the reply go to their buffers. */
const writeReply = (call: ServiceCall, handled: HandledCall, step: Step, values: Values) =>
  Effect.forEach(
    Object.entries(call.reply).filter(isBufferReply),
    ([name, { buffer, fields }]) => {
      const value = values[name] as { readonly [field: string]: number | bigint | Uint8Array }
      return bufferFor(step, placesOf(call, handled).get(buffer)!).write(encodeStruct(fields, value))
    },
    { discard: true }
  )

const replyOf = (call: ServiceCall, values: Values): HandlerStep => ({
  kind: "done",
  result: SVSM_RESULT.SUCCESS,
  reply: Object.fromEntries(
    Object.entries(call.reply).flatMap(([name, field]) =>
      field.kind === "buffer reply"
        ? []
        : [[field.register, BigInt.asUintN(field.kind === "u32" ? 32 : 64, BigInt(values[name] as number | bigint))]]
    )
  )
})

/** What the capabilities fail with has a result code of its own. */
const OWN_ERRORS: Service["errors"] = { SecretsFull: "INVALID_REQUEST", FirmwareRefused: "INVALID_REQUEST" }

const tagOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : ""

/** The result code of an error: a refusal's own, or what the service says of its tag; undefined for what it does not know. */
const resultOf = ({ errors = {} }: Service, error: unknown): number | undefined => {
  if (error instanceof Refused) return error.result
  const known = { ...OWN_ERRORS, ...errors }
  return Object.hasOwn(known, tagOf(error)) ? resultCode(known[tagOf(error)]!) : undefined
}

const whyDied = (error: unknown): string => {
  if (tagOf(error) !== "") return `it fails with ${tagOf(error)}, expected a tag that the service's errors name`
  return error instanceof Error ? error.message : String(error)
}

/** Runs a handler to its end, which is its last step. */
const runHandler = (service: Service, handled: HandledCall, session: Session, stream: RandomStream) => {
  const [name, call] = Object.entries(service.calls).find((entry) => entry[1].call === handled.call)!
  const step = stepIn(session)
  const all = capabilitiesFor(step, stream)
  const used = Object.fromEntries(call.uses.map((use) => [use, all[use]])) as Partial<Capabilities>
  const context = { ...used, work: all.work, vmpl: handled.vmpl, apicId: handled.apicId } as HandlerContext &
    Capabilities
  return Effect.gen(function* () {
    const request = yield* argumentsOf(call, handled, step)
    const values = (yield* call.handler(request as never, context)) as Values
    yield* writeReply(call, handled, step, values)
    return replyOf(call, values)
  }).pipe(
    Effect.catchCause((cause): Effect.Effect<HandlerStep | RunFailed> => {
      const error = Cause.squash(cause)
      const result = resultOf(service, error)
      if (result !== undefined) return Effect.succeed<HandlerStep>({ kind: "done", result, reply: {} })
      return Effect.succeed(new RunFailed({ why: `${service.name}, ${name}: the handler died: ${whyDied(error)}` }))
    }),
    Effect.flatMap((last) => Queue.offer(session.steps, last))
  )
}

/** A service ready for one machine: what its SVSM serves, who answers for its handlers, and its calls for another level. */
export interface HostedService {
  readonly service: Protocol
  readonly answerer: OutsideAnswerer
  readonly serveCall: ServeCall
}

/** Makes a service ready for one machine. Equal seeds give equal random bytes. */
export const hostService = (service: Service, seed: number): HostedService => {
  const port: HandlerPort = new OutsidePort()
  const stream = new RandomStream(seed, `service:${service.name}`)
  const sessions = new WeakMap<object, Session>()
  const answer = Effect.gen(function* () {
    const { session: key, event } = port.open!.ask
    let session = sessions.get(key)
    if (event.kind === "called") {
      session = {
        steps: yield* Queue.unbounded<HandlerStep | RunFailed>(),
        events: yield* Queue.unbounded<HandlerEvent>()
      }
      sessions.set(key, session)
      yield* Effect.forkDetach(runHandler(service, event.call, session, stream))
    } else yield* Queue.offer(session!.events, event)
    const step = yield* Queue.take(session!.steps)
    if (step instanceof RunFailed) return yield* step
    port.answer(step)
  })
  const versions = { MIN: service.version.min, MAX: service.version.max }
  const serveCall = handledCalls(Object.values(service.calls).map(ruleOf), port)
  return { service: handledService(service.protocol, versions, serveCall), answerer: { port, answer }, serveCall }
}
