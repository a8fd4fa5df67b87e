import { SVSM_RESULT } from "@vmpl-lab/guest"
import { RandomStream } from "@vmpl-lab/sim"
import {
  type BufferRule,
  type CallRule,
  type HandledCall,
  type HandlerEvent,
  type HandlerPort,
  type HandlerStep,
  handledService,
  type Protocol
} from "@vmpl-lab/svsm"
import { OutsidePort } from "@vmpl-lab/vmpl"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { RunFailed } from "../RunFailed.ts"
import type { OutsideAnswerer } from "../tpm/GuestMachine.ts"
import {
  type BufferField,
  type Capabilities,
  type GuestBuffer,
  type HandlerContext,
  Refused,
  type Service,
  type ServiceCall
} from "./Define.ts"

/**
 * What a handler's own steps cost, virtual ns. Assumed, guesses of an order of magnitude without a source: RDRAND
 * of 8 bytes, and a look into a small table of the SVSM's own, some cache misses.
 */
export const HANDLER_COST = { RANDOM_8_BYTES: 300, SECRET: 100 } as const

const buffersOf = ({ request }: ServiceCall): ReadonlyArray<readonly [name: string, field: BufferField]> =>
  Object.entries(request).filter((entry): entry is [string, BufferField] => entry[1].kind === "buffer")

const ruleOf = (call: ServiceCall): CallRule => ({
  call: call.call,
  costNs: call.costNs,
  buffers: buffersOf(call).map(([, { register, size, align }]): BufferRule => ({ register, size, align })),
  words: Object.values(call.request).flatMap(({ kind, register }) => (kind === "u32" ? [register] : []))
})

/** One call's line between its handler, which is an Effect, and the SVSM, which is not. */
interface Session {
  readonly steps: Queue.Queue<HandlerStep | RunFailed>
  readonly events: Queue.Queue<HandlerEvent>
}

type Step = (step: HandlerStep) => Effect.Effect<Extract<HandlerEvent, { kind: "stepped" }>, Refused>

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

const bufferFor = (step: Step, { gpa, size }: HandledCall["buffers"][number]): GuestBuffer => {
  const inside = (offset: number, length: number): Effect.Effect<void> =>
    Number.isInteger(offset) && Number.isInteger(length) && offset >= 0 && length >= 0 && offset + length <= size
      ? Effect.void
      : Effect.die(new Error(`bytes ${offset} to ${offset + length} of a buffer of ${size}`))
  // A handler has nothing to decide where the guest took its memory away: the call ends, past what the types show.
  const gone = <A>(effect: Effect.Effect<A, Refused>): Effect.Effect<A> => Effect.orDie(effect)
  return {
    size,
    read: (offset = 0, length = size - offset) =>
      Effect.suspend(() => {
        const into = new Uint8Array(Math.max(0, length))
        return Effect.as(
          Effect.andThen(inside(offset, length), gone(step({ kind: "read", gpa: gpa + offset, into }))),
          into
        )
      }),
    write: (bytes, offset = 0) =>
      Effect.andThen(
        inside(offset, bytes.length),
        gone(step({ kind: "write", gpa: gpa + offset, from: bytes.slice() }))
      ).pipe(Effect.asVoid)
  }
}

/** A service's state over one machine's life. */
interface Kept {
  readonly secrets: Map<string, Uint8Array>
  readonly stream: RandomStream
}

const capabilitiesFor = (step: Step, { secrets, stream }: Kept): Capabilities & Pick<HandlerContext, "work"> => {
  const work = (ns: number): Effect.Effect<void> =>
    Effect.asVoid(Effect.orDie(step({ kind: "work", ns: Math.max(0, Math.round(ns)) })))
  return {
    work,
    secrets: {
      get: (key) => Effect.map(work(HANDLER_COST.SECRET), () => secrets.get(key)?.slice()),
      set: (key, value) => Effect.map(work(HANDLER_COST.SECRET), () => void secrets.set(key, value.slice()))
    },
    clock: Effect.map(Effect.orDie(step({ kind: "clock" })), ({ ns }) => ns),
    random: (bytes) =>
      Effect.map(work(Math.ceil(bytes / 8) * HANDLER_COST.RANDOM_8_BYTES), () =>
        Uint8Array.from({ length: bytes }, () => stream.int(0, 255))
      ),
    host: (ns, io) => Effect.andThen(work(ns), io)
  }
}

const argumentsOf = (call: ServiceCall, handled: HandledCall, step: Step) => {
  const buffers = buffersOf(call).map(([name]) => name)
  return Object.fromEntries(
    Object.entries(call.request).map(([name, { kind, register }]) => {
      if (kind === "buffer") return [name, bufferFor(step, handled.buffers[buffers.indexOf(name)]!)]
      const value = handled.registers[register]
      return [name, kind === "u32" ? Number(value) : value]
    })
  )
}

const replyOf = (call: ServiceCall, values: { readonly [name: string]: number | bigint }): HandlerStep => ({
  kind: "done",
  result: SVSM_RESULT.SUCCESS,
  reply: Object.fromEntries(
    Object.entries(call.reply).map(([name, { kind, register }]) => [
      register,
      BigInt.asUintN(kind === "u32" ? 32 : 64, BigInt(values[name]!))
    ])
  )
})

/** Runs a handler to its end, which is its last step. */
const runHandler = (service: Service, handled: HandledCall, session: Session, kept: Kept) => {
  const [name, call] = Object.entries(service.calls).find((entry) => entry[1].call === handled.call)!
  const step = stepIn(session)
  const all = capabilitiesFor(step, kept)
  const used = Object.fromEntries(call.uses.map((use) => [use, all[use]])) as Partial<Capabilities>
  const context = { ...used, work: all.work, vmpl: handled.vmpl, apicId: handled.apicId } as HandlerContext &
    Capabilities
  return Effect.suspend(() => call.handler(argumentsOf(call, handled, step), context)).pipe(
    Effect.map((values) => replyOf(call, values as { readonly [name: string]: number | bigint })),
    Effect.catchCause((cause): Effect.Effect<HandlerStep | RunFailed> => {
      const error = Cause.squash(cause)
      if (error instanceof Refused)
        return Effect.succeed<HandlerStep>({ kind: "done", result: error.result, reply: {} })
      const why = error instanceof Error ? error.message : String(error)
      return Effect.succeed(new RunFailed({ why: `${service.name}, ${name}: the handler died: ${why}` }))
    }),
    Effect.flatMap((last) => Queue.offer(session.steps, last))
  )
}

/** A service ready for one machine: what its SVSM serves, and who answers for its handlers. */
export const hostService = (
  service: Service,
  seed: number
): { readonly service: Protocol; readonly answerer: OutsideAnswerer } => {
  const port: HandlerPort = new OutsidePort()
  const kept: Kept = { secrets: new Map(), stream: new RandomStream(seed, `service:${service.name}`) }
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
      yield* Effect.forkDetach(runHandler(service, event.call, session, kept))
    } else yield* Queue.offer(session!.events, event)
    const step = yield* Queue.take(session!.steps)
    if (step instanceof RunFailed) return yield* step
    port.answer(step)
  })
  const versions = { MIN: service.version.min, MAX: service.version.max }
  const rules = Object.values(service.calls).map(ruleOf)
  return { service: handledService(service.protocol, versions, rules, port), answerer: { port, answer } }
}
