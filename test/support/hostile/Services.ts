import { createHash } from "node:crypto"
import { SVSM_RESULT } from "@vmpl-lab/guest"
import {
  type CallRegister,
  type HandlerEvent,
  type HandlerPort,
  type HandlerStep,
  handledCalls,
  handledService,
  type Protocol,
  type TpmPort,
  vtpm
} from "@vmpl-lab/svsm"
import { OutsidePort } from "@vmpl-lab/vmpl"
import type { Services } from "./Machine.ts"
import type { Secrets } from "./Secrets.ts"

/** Protocol numbers of the services here. */
export const SERVICE = { SAFE: 0x4000_0000, LEAKY: 0x4000_0001 } as const

/** What a handler does next: it hears how its latest step went. */
type Handler = (event: HandlerEvent, call: Extract<HandlerEvent, { kind: "called" }>["call"]) => HandlerStep

const done = (result: number, reply: { readonly [R in CallRegister]?: bigint } = {}): HandlerStep => ({
  kind: "done",
  result,
  reply
})

/** A service of two calls with one buffer each, whose handler is the test's. */
const service = (
  number: number,
  handlerOf: () => Handler
): { readonly protocol: Protocol; readonly answer: () => void } => {
  const port: HandlerPort = new OutsidePort()
  const sessions = new WeakMap<object, { readonly handler: Handler; readonly call: Parameters<Handler>[1] }>()
  const buffer = { register: "rcx", size: { register: "rdx", min: 16, max: 8192 }, align: 1 } as const
  const rules = [0, 1].map((call) => ({ call, buffers: [buffer], words: [], costNs: 100 }))
  return {
    protocol: handledService(number, { MIN: 1, MAX: 1 }, handledCalls(rules, port)),
    answer: () => {
      const question = port.open
      if (question === undefined) return
      const { session, event } = question.ask
      if (event.kind === "called") sessions.set(session, { handler: handlerOf(), call: event.call })
      const { handler, call } = sessions.get(session)!
      port.answer(handler(event, call))
    }
  }
}

/** Call 0 compares the guest's bytes with a secret, in equal time; call 1 fills the buffer with what is no secret. */
const safe = (secrets: Secrets): (() => Handler) => {
  const password = secrets.bytes(16)
  return () => {
    const guess = new Uint8Array(16)
    let steps = 0
    return (event, { call, buffers }) => {
      const { gpa, size } = buffers[0]!
      if (event.kind === "stepped" && !event.isThere) return done(SVSM_RESULT.INVALID_ADDRESS)
      if (steps++ === 0) {
        return call === 0
          ? { kind: "read", gpa, into: guess }
          : { kind: "write", gpa, from: new Uint8Array(size).fill(0xa5) }
      }
      if (steps === 2) return { kind: "work", ns: 500 }
      const difference = guess.reduce((sum, byte, i) => sum | (byte ^ password[i]!), 0)
      return done(SVSM_RESULT.SUCCESS, { r8: call === 0 && difference === 0 ? 1n : 0n })
    }
  }
}

/** Ways in which a service can give a secret away. */
export const LEAKS = {
  "copies a byte of its secret": (secret: number) => ({ ns: 500, bytes: [secret], result: 0, r8: 0n }),
  "tells a secret bit in a register": (secret: number) => ({ ns: 500, bytes: [0], result: 0, r8: BigInt(secret & 1) }),
  "answers by a branch on its secret": (secret: number) => ({ ns: 500, bytes: [0], result: secret & 1, r8: 0n }),
  "takes a secret time": (secret: number) => ({ ns: 500 + secret, bytes: [0], result: 0, r8: 0n }),
  "hides the byte from a search": (secret: number) => ({ ns: 500, bytes: [(secret * 7) ^ 0x5a], result: 0, r8: 0n }),
  "stores more for one secret than for another": (secret: number) => ({
    ns: 500,
    bytes: new Array<number>(1 + (secret & 1)).fill(0),
    result: 0,
    r8: 0n
  })
} as const satisfies Record<
  string,
  (secret: number) => {
    readonly ns: number
    readonly bytes: ReadonlyArray<number>
    readonly result: number
    r8: bigint
  }
>
export type Leak = keyof typeof LEAKS

const leaky = (secrets: Secrets, leak: Leak): (() => Handler) => {
  const secret = secrets.bytes(64)
  let calls = 0
  return () => {
    let steps = 0
    const { ns, bytes, result, r8 } = LEAKS[leak](secret[calls++ % secret.length]!)
    return (event, { buffers }) => {
      if (event.kind === "stepped" && !event.isThere) return done(SVSM_RESULT.INVALID_ADDRESS)
      if (steps++ === 0) return { kind: "work", ns }
      if (steps === 2) return { kind: "write", gpa: buffers[0]!.gpa, from: Uint8Array.from(bytes) }
      return done(result === 0 ? SVSM_RESULT.SUCCESS : SVSM_RESULT.INVALID_REQUEST, { r8 })
    }
  }
}

/** A TPM whose answers depend on its command alone; now and then there is none, or one that is too long. */
const answerTpm = (port: TpmPort): void => {
  const command = port.open?.ask
  if (command === undefined) return
  const digest = createHash("sha256").update(command).digest()
  const kind = digest[0]! % 16
  if (kind === 0) port.answer({ response: null })
  else port.answer({ response: new Uint8Array(kind === 1 ? 4093 : digest[1]! * 16).fill(0x77), ns: digest[2]! })
}

/** The vTPM, and a service that keeps a secret; beside them one that does not. */
export const servicesOf =
  (leak: Leak | null) =>
  (secrets: Secrets): Services => {
    const tpm: TpmPort = new OutsidePort()
    const handled = [service(SERVICE.SAFE, safe(secrets))]
    if (leak !== null) handled.push(service(SERVICE.LEAKY, leaky(secrets, leak)))
    return {
      protocols: [vtpm(tpm), ...handled.map(({ protocol }) => protocol)],
      answer: () => {
        answerTpm(tpm)
        for (const { answer } of handled) answer()
      }
    }
  }
