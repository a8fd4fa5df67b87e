import { keyOf, keyRequest, tscInfoOf, tscInfoRequest } from "@vmpl-lab/guest"
import type { RandomStream } from "@vmpl-lab/sim"
import { type FirmwareAsk, type HandledCall, type HandlerEvent, type HandlerStep, SECRET_COST } from "@vmpl-lab/svsm"
import * as Effect from "effect/Effect"
import {
  type Capabilities,
  FirmwareRefused,
  type GuestBuffer,
  type HandlerContext,
  type Refused,
  SecretsFull
} from "./Define.ts"

/**
 * What a handler's own steps cost, virtual ns. Assumed, guesses of an order of magnitude without a source: RDRAND
 * of 8 bytes, and a look into a small table of the SVSM's own.
 */
export const HANDLER_COST = { RANDOM_8_BYTES: 300, SECRET: SECRET_COST.LOOK_UP } as const

/** Has the SVSM take a step for a handler, and tells how it went. */
export type Step = (step: HandlerStep) => Effect.Effect<Extract<HandlerEvent, { kind: "stepped" }>, Refused>

/** REPORT_DATA. */
const REPORT_DATA_SIZE = 64

/** Guest memory at a checked place. */
export const bufferFor = (step: Step, { gpa, size }: HandledCall["buffers"][number]): GuestBuffer => {
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

/** All capabilities, each step of which is the SVSM's. */
export const capabilitiesFor = (step: Step, stream: RandomStream): Capabilities & Pick<HandlerContext, "work"> => {
  const taken = (next: HandlerStep) => Effect.orDie(step(next))
  const work = (ns: number): Effect.Effect<void> =>
    Effect.asVoid(taken({ kind: "work", ns: Math.max(0, Math.round(ns)) }))
  const ask = (message: FirmwareAsk) => Effect.map(taken({ kind: "firmware", ask: message }), ({ bytes }) => bytes)
  const answered = <A>(
    message: FirmwareAsk,
    parse: (reply: Uint8Array) => A | null
  ): Effect.Effect<A, FirmwareRefused> =>
    Effect.flatMap(ask(message), (reply) => {
      const parsed = reply === null ? null : parse(reply)
      return parsed === null ? Effect.fail(new FirmwareRefused()) : Effect.succeed(parsed)
    })
  return {
    work,
    secrets: {
      get: (key) => Effect.map(taken({ kind: "get secret", key }), ({ bytes }) => bytes ?? undefined),
      set: (key, value) =>
        Effect.flatMap(taken({ kind: "set secret", key, value: value.slice() }), ({ isDone }) =>
          isDone ? Effect.void : Effect.fail(new SecretsFull({ key }))
        ),
      remove: (key) => Effect.asVoid(taken({ kind: "remove secret", key }))
    },
    firmware: {
      report: (data) => {
        const padded = new Uint8Array(REPORT_DATA_SIZE)
        padded.set(data.subarray(0, REPORT_DATA_SIZE))
        return answered({ kind: "report", data: padded }, (report) => report)
      },
      key: (options) => answered({ kind: "message", message: keyRequest(options) }, keyOf),
      tscInfo: Effect.suspend(() => answered({ kind: "message", message: tscInfoRequest() }, tscInfoOf))
    },
    clock: Effect.map(taken({ kind: "clock" }), ({ ns }) => ns),
    random: (bytes) =>
      Effect.map(work(Math.ceil(bytes / 8) * HANDLER_COST.RANDOM_8_BYTES), () =>
        Uint8Array.from({ length: bytes }, () => stream.int(0, 255))
      ),
    host: (ns, io) => Effect.andThen(work(ns), io)
  }
}
